"""What every path sampler promises."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.base import ArchitectureStep, Choices, PathSampler
from search.contracts.contract import (
    Broken,
    Contract,
    Subject,
    ensure,
    not_restored,
    random_state_stays,
    through_a_file,
    toy_factory,
)
from search.contracts.toy_spaces import MaskedSpace
from search.spaces.base import SearchSpace
from search.spaces.head import Head
from search.spaces.nasbench201 import NASBench201

EPOCHS, STEPS = 6, 3
_STATE = "keep what changes in parameters, buffers or get_extra_state (of tensors and plain values)"


class SamplerSubject(Subject):
    """A sampler on a space."""

    def sampler(self) -> PathSampler:
        """A fresh sampler; parts of it that draw from torch's random state draw the same each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make(self.space)


def made_up_scores(archs: Iterable[Choices]) -> list[float]:
    """A number in [0, 1) for each architecture, the same on every machine, in no order of theirs."""
    return [zlib.crc32(bytes(arch)) / 2**32 for arch in archs]


class Weights(nn.Module):
    """Shared weights of any space: a path's output is the sum of its choices' weights."""

    def __init__(self, space: SearchSpace):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.scale = nn.ParameterList(torch.randn(size, generator=generator) for size in space.sizes)

    def forward(self, images: Tensor, path: Path) -> Tensor:
        """A scalar."""
        total = images.mean()
        for t, scale in enumerate(self.scale):
            if path.choices is None:
                assert path.weights is not None
                total = total + (path.weights[t] * scale.tanh()).sum()
            else:
                weight = 1.0 if path.weights is None else path.weights[t][path.choices[t]]
                total = total + weight * scale[path.choices[t]].tanh()
        return total


class Training:
    """Shared weights and a sampler that learn side by side, and everything that was seen of them."""

    def __init__(self, subject: SamplerSubject):
        self.network, self.sampler, self.seen = Weights(subject.space), subject.sampler(), list[Any]()

    def loss(self, seed: int) -> Callable[[Path], Tensor]:
        """Of a path on one batch."""
        image = torch.randn(2, generator=torch.Generator().manual_seed(seed))
        return lambda path: (self.network(image, path) - 1).square()

    def evaluate(self, archs: Sequence[Choices]) -> list[float]:
        """Scores with the shared weights."""
        with torch.no_grad():
            losses = [float(self.loss(999)(self.sampler.path_of(arch))) for arch in archs]
        return [1 / (1 + each) for each in losses]

    def run(self, epochs: Iterable[int]) -> Training:
        """Train some epochs."""
        for epoch in epochs:
            for step in range(epoch * STEPS, (epoch + 1) * STEPS):
                path = self.sampler.path(5, step)
                self.seen.append(_plain(path))
                self.network.zero_grad()
                train, held_out = self.loss(2 * step), self.loss(2 * step + 1)
                train(path).backward()
                with torch.no_grad():
                    for parameter in self.network.parameters():
                        if parameter.grad is not None:
                            parameter.sub_(parameter.grad, alpha=0.1)
                if not self.sampler.learns_at(step, epoch):
                    continue
                self.sampler.learn(
                    ArchitectureStep(
                        supernet=self.network,  # type: ignore[arg-type]  # all that a sampler may need of one
                        train_loss=train,
                        held_out_loss=held_out,
                        average=lambda parameters: None,
                        seed=5,
                        step=step,
                        progress=step / (EPOCHS * STEPS),
                        learning_rate=0.1,
                    )
                )
            self.sampler.epoch_ended(self.evaluate, 5, epoch, EPOCHS)
        return self


def _plain(path: Path) -> Any:
    """What can be compared of a path."""
    if path.choices is not None:
        return path.choices
    assert path.weights is not None
    return torch.cat(path.weights).tolist()


def _bytes(sampler: PathSampler) -> bytes:
    file = io.BytesIO()
    torch.save(sampler.state_dict(), file)
    return file.getvalue()


def a_path_is_a_pure_function(subject: SamplerSubject) -> None:
    """Gives paths that depend on seed, step and index alone."""
    cure = "derive every draw from the arguments: self.space.draw('path', seed, step, index)"
    keys = [(seed, step, index) for seed in (0, 2**31 - 1) for step in (0, 1, 99) for index in (0, 1, 7)]
    sampler, other = subject.sampler(), subject.sampler()
    first = {key: _plain(sampler.path(*key)) for key in keys}
    for key in reversed(keys):
        ensure(_plain(sampler.path(*key)) == first[key], f"path{key} differs when it is asked again", cure)
        ensure(_plain(other.path(*key)) == first[key], f"path{key} of two samplers differs", cure)
    for seed, step in {(seed, step) for seed, step, _ in keys}:
        once, again = ([_plain(path) for path in each.paths(seed, step)] for each in (sampler, other))
        ensure(once == again and once, f"paths({seed}, {step}) of two samplers differ, or there are none", cure)


def drawing_leaves_states_alone(subject: SamplerSubject) -> None:
    """Leaves torch's random state and its own state alone when it draws and chooses."""
    sampler = subject.sampler()
    before = _bytes(sampler)
    with random_state_stays("give a torch.Generator a seed"):
        sampler.path(1, 2)
        sampler.choose(made_up_scores, 3, 0)
    ensure(before == _bytes(sampler), "its state changes in path or choose", "change it in learn or epoch_ended")


def steps_and_seeds_differ(subject: SamplerSubject) -> None:
    """Gives different paths at different steps, indices and seeds; the same one if it is relaxed."""
    sampler = subject.sampler()
    paths = [sampler.path(0, step) for step in range(60)]
    if subject.found.relaxed:  # type: ignore[attr-defined]
        alike = all(path.choices is None and _plain(path) == _plain(paths[0]) for path in paths)
        ensure(alike, "it says 'relaxed', but its paths choose or differ", "set relaxed = False")
        return
    for what, others in {
        "steps": paths,
        "indices": [sampler.path(0, 0, k) for k in range(60)],
        "seeds": [sampler.path(k, 0) for k in range(60)],
    }.items():
        different = len({str(_plain(path)) for path in others})
        cure = "draw with seed, step and index; set relaxed = True if each path runs all operations"
        ensure(different > 35, f"60 {what} give {different} different paths", cure)


def paths_are_valid(subject: SamplerSubject) -> None:
    """Gives valid paths at the start and after learning."""
    training = Training(subject)
    for epochs in (range(0), range(3)):
        sampler = training.run(epochs).sampler
        for step in range(100, 140):
            path = sampler.path(0, step)
            if path.choices is not None:
                _ensure_valid(subject, path.choices, f"path(0, {step})")
            for each in sampler.paths(0, step):
                if each.choices is not None:
                    _ensure_valid(subject, each.choices, f"one of paths(0, {step})")
            if path.weights is not None:
                shapes = [each.shape for each in path.weights]
                cure = "let the space's relaxation make the path: self.space.relaxation().path(logits)"
                right = shapes == subject.space.relaxation().shapes()
                ensure(right, f"weights of a path have the shapes {[list(each) for each in shapes]}", cure)
                sums = [float(row.sum()) for each in path.weights for row in each.detach().view(-1, each.shape[-1])]
                ensure(all(abs(each - 1) < 1e-5 for each in sums), f"weights of a path add up to {sums}", cure)


def _ensure_valid(subject: SamplerSubject, choices: Choices, what: str) -> None:
    try:
        right = subject.space.check(choices) == choices and type(choices) is tuple
    except ValueError as error:
        raise Broken(f"{what} is no architecture: {error}", "draw with space.draw, or ask space.is_valid") from None
    ensure(right, f"{what} is a {type(choices).__name__}", "an architecture is a plain tuple of ints")


def a_real_supernet_runs_every_path(subject: SamplerSubject) -> None:
    """Gives paths that a supernet runs."""
    space = NASBench201()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = space.build_supernet(lambda width: BatchStatistics(width), Head(3), channels=4, cells=1)
        images = torch.randn(4, 3, 8, 8)
        sampler = subject.make(space)
    cure = "a path has one choice for each decision, or one tensor of weights"
    for path in [sampler.path(0, 0), sampler.path(0, 1), sampler.path_of((3, 1, 2, 0, 4, 3))]:
        lengths = {len(each) for each in (path.choices, path.weights) if each is not None}
        ensure(lengths == {len(space.sizes)}, f"a path of {len(space.sizes)} decisions has {lengths}", cure)
        ensure(network(images, path).isfinite().all(), "a supernet gives infinite numbers for a path", cure)


def chooses_different_architectures_best_first(subject: SamplerSubject) -> None:
    """Chooses different valid architectures, best first."""
    sampler = Training(subject).run(range(2)).sampler
    asked: dict[Choices, float] = {}

    def evaluate(archs: Sequence[Choices]) -> list[float]:
        asked.update(zip(archs, made_up_scores(archs), strict=True))
        return made_up_scores(archs)

    for count in (1, 4, 9):
        chosen = sampler.choose(evaluate, count, 3)
        ensure(1 <= len(chosen) <= count, f"choose(..., {count}) gives {len(chosen)}", "return the first count of them")
        ensure(len(set(chosen)) == len(chosen), "it chooses an architecture twice", "collect them in a dict")
        for arch in chosen:
            _ensure_valid(subject, arch, "what it chooses")
        if subject.found.chooses_in_own_order:  # type: ignore[attr-defined]
            ensure(not asked, "it says 'chooses_in_own_order' and asks for scores", "set chooses_in_own_order = False")
            continue
        scores = made_up_scores(chosen)
        cure = "sort with best_first; set chooses_in_own_order = True if scores do not decide"
        ensure(scores == sorted(scores, reverse=True), "what it chooses is not in the order of scores", cure)
        ensure(set(chosen) <= set(asked), "it chooses what it has not evaluated", cure)
        ensure(max(asked.values()) == scores[0], "it does not choose the best that it evaluated", cure)
    ensure(
        sampler.choose(evaluate, 4, 3) == sampler.choose(evaluate, 4, 3),
        "it chooses something else when it is asked again with one seed",
        "draw from a torch.Generator of the seed",
    )


def never_evaluates_twice(subject: SamplerSubject) -> None:
    """Evaluates no architecture twice in one choice."""
    sampler, asked = Training(subject).run(range(2)).sampler, list[Choices]()

    def evaluate(archs: Sequence[Choices]) -> list[float]:
        asked.extend(archs)
        return made_up_scores(archs)

    sampler.choose(evaluate, 5, 1)
    ensure(len(set(asked)) == len(asked), "an architecture is evaluated twice", "keep what is known in a dict")


def continues_from_a_checkpoint(subject: SamplerSubject) -> None:
    """Goes on from a checkpoint exactly as if nothing had stopped it."""
    whole = Training(subject).run(range(EPOCHS))
    half = Training(subject).run(range(4))
    saved = through_a_file([half.network.state_dict(), half.sampler.state_dict()])
    resumed = Training(subject)
    resumed.network.load_state_dict(saved[0])
    resumed.sampler.load_state_dict(saved[1])
    unlike = not_restored(half.sampler, resumed.sampler)
    half.run(range(4, EPOCHS))  # what is saved must not change with what it was saved from
    resumed.run(range(4, EPOCHS))
    ensure(half.seen == whole.seen, "two equal trainings give different paths", "draw from seed and step")
    ensure(resumed.seen == half.seen[4 * STEPS :], f"resumed, it gives other paths{unlike}", _STATE)
    same = all(torch.equal(a, b) for a, b in zip(resumed.network.scale, whole.network.scale, strict=True))
    ensure(same, f"resumed, the shared weights end elsewhere{unlike}", _STATE)
    chosen = [each.sampler.choose(each.evaluate, 5, 2) for each in (whole, resumed)]
    ensure(chosen[0] == chosen[1], f"resumed, it chooses something else{unlike}", _STATE)


def two_trainings_agree(subject: SamplerSubject) -> None:
    """Learns the same twice, and what it learns changes its state."""
    one, other = (Training(subject).run(range(3)) for _ in range(2))
    ensure(one.seen == other.seen, "two equal trainings give different paths", "draw from seed and step")
    ensure(_bytes(one.sampler) == _bytes(other.sampler), "two equal trainings end in different states", _STATE)
    fresh = subject.sampler()
    if fresh.state_dict():
        ensure(_bytes(one.sampler) != _bytes(fresh), "its state is the same before and after a training", _STATE)


def scores_that_are_no_numbers_stop_nothing(subject: SamplerSubject) -> None:
    """Goes on where every score is NaN."""
    sampler = subject.sampler()

    def diverged(archs: Sequence[Choices]) -> list[float]:
        return [math.nan for _ in archs]

    sampler.epoch_ended(diverged, 0, 2, EPOCHS)
    chosen = sampler.choose(diverged, 3, 0)
    ensure(len(set(chosen)) == len(chosen) >= 1, f"of NaN it chooses {chosen}", "sort with best_first: NaN comes last")
    for arch in chosen:
        _ensure_valid(subject, arch, "what it chooses")


def the_penalty_is_a_number(subject: SamplerSubject) -> None:
    """Gives as penalty a number that a gradient passes through, if it has one."""
    sampler, generator = subject.sampler(), torch.Generator().manual_seed(0)
    shapes = subject.space.relaxation().shapes()
    logits = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    penalty = sampler.penalty([each.softmax(-1) for each in logits])
    number = isinstance(penalty, Tensor) and penalty.shape == () and bool(penalty.isfinite())
    ensure(number, f"the penalty is {penalty!r}", "return a finite scalar tensor")
    if type(sampler).penalty is not PathSampler.penalty:
        cure = "compute it of the weights with torch's operations alone"
        ensure(penalty.requires_grad, "no gradient passes through the penalty", cure)
        gradients = torch.autograd.grad(penalty, logits, allow_unused=True)
        finite = all(each is None or bool(each.isfinite().all()) for each in gradients)
        ensure(finite, "gradients of the penalty are not finite", cure)


def a_small_space_ends_its_choice(subject: SamplerSubject) -> None:
    """Ends its choice where a space has fewer architectures than are wanted."""
    everything = set(subject.space.enumerate()) if math.prod(subject.space.sizes) < 50_000 else None
    if everything is not None and len(everything) < 500:
        chosen = subject.sampler().choose(made_up_scores, len(everything) + 50, 0)
        ensure(set(chosen) <= everything and len(set(chosen)) == len(chosen), "it chooses others", "use distinct")


def subjects(found: type, spaces: Mapping[str, SearchSpace] | None = None) -> list[SamplerSubject]:
    """A sampler on two spaces."""
    make = toy_factory(found, Callable[[SearchSpace], PathSampler])
    spaces = {"nasbench201": NASBench201(), "masked": MaskedSpace()} if spaces is None else spaces
    return [SamplerSubject(found, name, make, space) for name, space in spaces.items()]


CONTRACT = Contract(
    "path sampler",
    PathSampler,
    subjects,
    checks=(
        a_path_is_a_pure_function,
        drawing_leaves_states_alone,
        steps_and_seeds_differ,
        paths_are_valid,
        chooses_different_architectures_best_first,
        never_evaluates_twice,
        continues_from_a_checkpoint,
        two_trainings_agree,
        scores_that_are_no_numbers_stop_nothing,
        a_small_space_ends_its_choice,
        the_penalty_is_a_number,
    ),
    once=(a_real_supernet_runs_every_path,),
)
