"""What every search space promises."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property, partial

import torch
from scipy import stats
from torch import Tensor, nn

from search.contracts.contract import Broken, Contract, Subject, ensure, refused, toy_factory
from search.errors import one_line
from search.evaluation import Architecture
from search.randomness import TrialRandom
from search.spaces.base import SearchSpace
from search.spaces.head import Head

ENUMERABLE = 50_000
"""Larger spaces are looked at through samples instead of one by one."""
_REFUSE = "raise a ValueError that names the space and what is wrong; self.check does"
_MASK = "let valid_choices(prefix) decide from the prefix alone, for a batch of prefixes as for one"


class SpaceSubject(Subject):
    """A space."""

    @property
    def small(self) -> bool:
        """Whether all its architectures can be looked at."""
        return math.prod(self.space.sizes) <= ENUMERABLE

    @cached_property
    def everything(self) -> list[Architecture]:
        """Every architecture of a small space."""
        return list(self.space.enumerate())

    def some(self, n: int = 500) -> Tensor:
        """Random architectures: int64 ``[n, decisions]``."""
        return self.space.sample(TrialRandom(11), n)[0]

    def valid_after(self, prefix: Sequence[int]) -> set[int]:
        """The next choices, asked from the space one prefix at a time."""
        asked = self.space.valid_choices(torch.tensor(prefix, dtype=torch.long)).tolist()
        return {k for k, good in enumerate(asked) if good}

    @property
    def head(self) -> Head:
        """Of seven classes, where its networks classify."""
        return Head(7 if self.space.classifies or self.space.reads_text else 0)

    def build(self, arch: Iterable[int]) -> nn.Module:
        """A small network."""
        return self.space.build(tuple(arch), self.head, **self.found.toy_build())  # type: ignore[attr-defined]


def decisions_have_different_names_and_choices(subject: SpaceSubject) -> None:
    """Names its decisions, each with different choices, and itself in lower case."""
    space = subject.space
    ensure(space.name == space.name.lower() and space.name, f"its name is '{space.name}'", "name it in lower case")
    names = [decision.name for decision in space.decisions]
    ensure(names and len(set(names)) == len(names), f"its decisions are called {names}", "give each a name of its own")
    for decision in space.decisions:
        different = len(set(decision.choices)) == len(decision.choices) > 0
        ensure(different, f"'{decision.name}' has the choices {decision.choices}", "each choice needs its own name")


def masks_have_the_size_of_their_decision(subject: SpaceSubject) -> None:
    """Says of every valid prefix which choices may follow, at least one."""
    space, archs = subject.space, subject.some(50)
    for t, size in enumerate(space.sizes):
        mask = space.valid_choices(archs[:, :t])
        ensure(
            mask.dtype == torch.bool and mask.shape == (len(archs), size),
            f"valid_choices of [{len(archs)}, {t}] prefixes gives {mask.dtype} {list(mask.shape)}",
            f"bool [..., {size}], the choices of '{space.decisions[t].name}', is needed",
        )
        ensure(mask.any(-1).all(), f"no choice of '{space.decisions[t].name}' may follow some prefix", _MASK)
        for arch, row in zip(archs[:5].tolist(), mask.tolist(), strict=False):
            alone = subject.valid_after(arch[:t])
            ensure(alone == {k for k, good in enumerate(row) if good}, "prefixes together and alone differ", _MASK)


def enumerates_its_architectures(subject: SpaceSubject) -> None:
    """Enumerates exactly the architectures that it calls valid."""
    if subject.small:
        product = list(itertools.product(*(range(size) for size in subject.space.sizes)))
        valid = subject.space.is_valid(torch.tensor(product)).tolist()
        wanted = [arch for arch, good in zip(product, valid, strict=True) if good]
        ensure(subject.everything == wanted, "enumerate and is_valid differ", _MASK)


def refuses_choices_out_of_range(subject: SpaceSubject) -> None:
    """Calls no architecture valid that has a choice out of range."""
    archs = subject.some(20)
    ensure(subject.space.is_valid(archs).all(), "a sampled architecture is not valid", _MASK)
    for t, size in enumerate(subject.space.sizes):
        for wrong in (-1, size):
            broken = archs.clone()
            broken[:, t] = wrong
            ensure(not subject.space.is_valid(broken).any(), f"choice {wrong} of decision {t} is called valid", _MASK)


def every_code_is_its_own(subject: SpaceSubject) -> None:
    """Gives every architecture a number of its own."""
    if subject.small:
        codes = subject.space.code(torch.tensor(subject.everything)).tolist()
        product = list(itertools.product(*(range(size) for size in subject.space.sizes)))
        ensure([product[code] for code in codes] == subject.everything, "two share a code", "do not override code")


def samples_are_valid(subject: SpaceSubject) -> None:
    """Samples valid architectures, a function of the seed."""
    space, cure = subject.space, "draw from the TrialRandom alone"
    together = space.sample(TrialRandom(5, trials=3), 40)
    form = together.shape == (3, 40, len(space.decisions)) and together.dtype == torch.long
    ensure(form, f"sample gives {together.dtype} {list(together.shape)}", "int64 [trials, n, decisions] is needed")
    ensure(space.is_valid(together).all(), "a sample is not valid", _MASK)
    for trial in range(3):
        alone = space.sample(TrialRandom(5 + trial), 40)[0]
        ensure(torch.equal(alone, together[trial]), f"trial {trial} differs from its seed alone", cure)
    ensure(not torch.equal(together[0], together[1]), "two seeds give the same samples", cure)


def sampled_choices_are_uniform(subject: SpaceSubject) -> None:
    """Samples each decision uniformly among what may follow."""
    archs = subject.space.sample(TrialRandom(3), 6000)[0]
    for t in range(len(subject.space.sizes)):
        # The most frequent prefix has the most to say about a masked space.
        prefix = Counter(map(tuple, archs[:, :t].tolist())).most_common(1)[0][0]
        allowed = sorted(subject.valid_after(prefix))
        chosen = archs[(archs[:, :t] == torch.tensor(prefix, dtype=torch.long)).all(1), t]
        seen = [int((chosen == k).sum()) for k in allowed]
        ensure(sum(seen) == len(chosen), f"what follows {prefix} is ruled out by valid_choices", _MASK)
        uniform = len(allowed) == 1 or stats.chisquare(seen).pvalue > 1e-4
        ensure(uniform, f"after {prefix} choices {allowed} come up {seen} times", "do not override sample")


def mutants_are_valid(subject: SpaceSubject) -> None:
    """Mutates into valid architectures that differ, a function of the seed."""
    space = subject.space
    archs = space.sample(TrialRandom(5, trials=3), 200)
    mutants = space.mutate(archs, TrialRandom(9, trials=3))
    ensure(mutants.shape == archs.shape and space.is_valid(mutants).all(), "a mutant is not valid", _MASK)
    ensure((space.distance(archs, mutants) >= 1).all(), "a mutant is its parent", "do not override mutate")
    if subject.small and len(subject.everything) == math.prod(space.sizes):
        one = (space.distance(archs, mutants) == 1).all()
        ensure(one, "a mutant differs in two decisions, though nothing is ruled out", "do not override mutate")
    for trial in range(3):
        alone = space.mutate(archs[trial : trial + 1], TrialRandom(9 + trial))[0]
        ensure(torch.equal(alone, mutants[trial]), "a trial's mutants depend on others", "draw from the TrialRandom")


def mutations_hit_every_decision_equally(subject: SpaceSubject) -> None:
    """Mutates every decision that can change equally often, into each other choice equally often."""
    cure = "do not override mutate"
    for arch in subject.some(3):
        parent = tuple(arch.tolist())
        others = [subject.valid_after(parent[:t]) - {choice} for t, choice in enumerate(parent)]
        free = [t for t, choices in enumerate(others) if choices]
        mutants = subject.space.mutate(arch.expand(1, 8000, -1), TrialRandom(21))[0]
        # A mask may force later decisions to follow, so the mutated decision is the first that differs.
        position = (mutants != arch).long().argmax(-1)
        seen = position.bincount(minlength=len(parent))
        ensure(set(seen.nonzero().flatten().tolist()) == set(free), "a decision never changes", cure)
        ensure(stats.chisquare(seen[free].numpy()).pvalue > 1e-4, f"decisions change {seen.tolist()} times", cure)
        for t in free:
            chosen = mutants[position == t, t].tolist()
            counts = [chosen.count(k) for k in others[t]]
            ensure(sum(counts) == len(chosen), f"decision {t} becomes what is ruled out", cure)
            uniform = len(counts) == 1 or stats.chisquare(counts).pvalue > 1e-4
            ensure(uniform, f"decision {t} becomes {sorted(others[t])} {counts} times", cure)


def mutations_keep_what_may_stay(subject: SpaceSubject) -> None:
    """Keeps every later decision of a mutant that may stay."""
    archs = subject.some(300)
    mutants = subject.space.mutate(archs.unsqueeze(0), TrialRandom(2))[0]
    for old, new in zip(archs.tolist(), mutants.tolist(), strict=True):
        first = next(t for t in range(len(old)) if old[t] != new[t])
        for t in range(first + 1, len(old)):
            kept = new[t] == old[t] or old[t] not in subject.valid_after(new[:t])
            ensure(kept, f"{tuple(old)} becomes {tuple(new)}: decision {t} could stay", "do not override mutate")


def neighbours_are_one_decision_away(subject: SpaceSubject) -> None:
    """Knows all architectures one decision away as neighbours."""
    if not subject.small:
        return
    space, archs, cure = subject.space, subject.some(5), "do not override neighbours"
    found, valid = space.neighbours(archs)
    wanted = (5, sum(space.sizes) - len(space.sizes), len(space.sizes))
    ensure(found.shape == wanted and valid.shape == wanted[:2], f"neighbours has the shape {list(found.shape)}", cure)
    for arch, neighbours, good in zip(archs.tolist(), found, valid, strict=True):
        kept = [tuple(neighbour) for neighbour in neighbours[good].tolist()]
        near = {other for other in subject.everything if sum(a != b for a, b in zip(arch, other, strict=True)) == 1}
        ensure(len(kept) == len(set(kept)) and set(kept) == near, f"neighbours of {tuple(arch)} are others", cure)
    again = space.neighbours(archs)
    ensure(torch.equal(found, again[0]) and torch.equal(valid, again[1]), "neighbours differ when asked again", cure)


def one_hot_is_a_naive_loop(subject: SpaceSubject) -> None:
    """Encodes architectures and prefixes one-hot."""
    space, archs = subject.space, subject.some(30)
    for length in (len(space.sizes), len(space.sizes) // 2, 0):
        code = space.one_hot(archs[:, :length])
        ensure(code.dtype == torch.float32, f"one_hot gives {code.dtype}", "float32 is needed")
        for row, arch in zip(code.tolist(), archs.tolist(), strict=True):
            expected: list[float] = []
            for t, size in enumerate(space.sizes):
                expected += [1.0 if t < length and arch[t] == k else 0.0 for k in range(size)]
            ensure(row == expected, f"one_hot of {tuple(arch[:length])} is another", "do not override one_hot")


def distance_counts_differing_decisions(subject: SpaceSubject) -> None:
    """Counts as distance the decisions that differ."""
    a, b = subject.some(60).reshape(2, 30, -1)
    expected = [sum(x != y for x, y in zip(p, q, strict=True)) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    right = subject.space.distance(a, b).tolist() == expected and subject.space.distance(a, a).sum() == 0
    ensure(right, "distance counts something else", "do not override distance")


def strings_are_read_back(subject: SpaceSubject) -> None:
    """Reads back the string of every architecture, and no two share one."""
    space = subject.space
    architectures = {tuple(arch) for arch in subject.some().tolist()}
    texts = {space.format(arch): arch for arch in architectures}
    ensure(len(texts) == len(architectures), "two architectures have one string", "name every choice in format")
    for text, arch in texts.items():
        back = space.parse(text)
        ensure(back == arch, f"parse(format({arch})) is {back}", "let parse undo format")


def damaged_strings_are_refused(subject: SpaceSubject) -> None:
    """Refuses a damaged string, and says whose it is."""
    text = subject.space.format(tuple(subject.some(1)[0].tolist()))
    for damaged in ("", text[:-1], text + "|x", "?" + text[1:]):
        refused(partial(subject.space.parse, damaged), f"parse('{damaged}')", _REFUSE, subject.space.name)


def check_names_what_is_wrong(subject: SpaceSubject) -> None:
    """Names the decision that is wrong with an architecture."""
    space, arch = subject.space, subject.some(1)[0].tolist()
    ensure(space.check(arch) == tuple(arch), "check refuses a valid architecture", _MASK)
    for t, decision in enumerate(space.decisions):
        for wrong in (-1, space.sizes[t]):
            broken = [*arch[:t], wrong, *arch[t + 1 :]]
            words = (f"'{decision.name}'", f" is {wrong}, allowed: ")
            refused(partial(space.check, broken), f"check({tuple(broken)})", _REFUSE, *words)
    missing = f"{len(arch) - 1} decisions, {len(arch)} are needed"
    refused(partial(space.check, arch[:-1]), f"check({tuple(arch[:-1])})", _REFUSE, missing)


def the_diagram_joins_named_nodes(subject: SpaceSubject) -> None:
    """Draws an architecture as labelled arrows between different nodes."""
    for arch in subject.some(20).tolist():
        for edge in subject.space.diagram(tuple(arch)):
            good = edge.source != edge.target and edge.label
            ensure(good, f"the diagram of {tuple(arch)} has {edge}", "leave out edges that carry nothing")


def an_example_has_the_channels_that_are_asked_for(subject: SpaceSubject) -> None:
    """Gives an example of what its networks take: images of as many channels as are asked for, or words."""
    if subject.space.reads_text:
        words = subject.space.example_input(subject.head)
        right = words.ndim == 2 and len(words) > 1 and words.dtype == torch.long
        ensure(right, f"it is {words.dtype} {list(words.shape)}", "int64 [batch, time] is needed, as reads_text says")
        return
    for channels in (1, 3):
        images = subject.space.example_input(Head(in_channels=channels))
        right = images.ndim == 4 and len(images) > 1 and images.shape[1] == channels and images.dtype == torch.float32
        ensure(right, f"for {channels} channels it is {list(images.shape)}", "float32 [batch, in_channels, h, w]")


def networks_learn(subject: SpaceSubject) -> None:
    """Builds networks that take its example and learn; logits, if it classifies."""
    space = subject.space
    archs = [*subject.some(3).tolist(), [size - 1 for size in space.sizes], [0] * len(space.sizes)]
    for arch in filter(lambda arch: space.is_valid(torch.tensor(arch)), archs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            network = subject.build(arch)
            images = space.example_input(subject.head)
            images = images if space.reads_text else torch.randn_like(images)
        outputs, count = network(images), len(images)
        form = list(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        if space.classifies:
            ensure(
                form == [count, 7],
                f"{tuple(arch)} gives {form} for images {list(images.shape)} and 7 classes",
                "logits [batch, classes] are needed: end with a pooling and a linear layer of head.classes outputs; or "
                "say 'classifies = False' in the class",
            )
            torch.nn.functional.cross_entropy(outputs, torch.arange(count) % 7).backward()
        else:
            right = isinstance(outputs, Tensor) and len(outputs) == count
            ensure(right, f"{tuple(arch)} gives {form} for {count} images", "one output for each image")
            outputs.square().mean().backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        ensure(all(each.isfinite().all() for each in gradients), "gradients are not finite", "normalise activations")
        moved = sum(float(each.abs().sum()) for each in gradients) > 0
        ensure(moved, f"no weight of {tuple(arch)} has a gradient", "the output must depend on weights")


def images_of_every_size_are_taken_or_refused(subject: SpaceSubject) -> None:
    """Takes images of every size, or refuses them in words."""
    if subject.space.reads_text:
        return
    multiple = subject.space.image_multiple
    for arch in subject.some(2).tolist():
        network = subject.build(arch).eval()
        for size in (8, 10, 15, 18, 30, 33, 50):
            images = torch.zeros(1, 3, size, size + 5)
            if size % multiple or (size + 5) % multiple:
                words = f"images are {size}x{size + 5} pixels, both must be divisible"
                refused(partial(network, images), "an odd size of images", _REFUSE, words)
                continue
            cure = "pad, or say image_multiple in the class and refuse other sizes"
            try:
                finite = network(images).isfinite().all()
            except RuntimeError as error:
                raise Broken(f"images of {size}x{size + 5} pixels fail: {error}", cure) from None
            ensure(finite, f"images of {size}x{size + 5} pixels give infinite numbers", cure)


def a_network_is_a_function_of_the_random_state(subject: SpaceSubject) -> None:
    """Builds networks that torch's random state decides."""
    arch, built = subject.some(1)[0].tolist(), []
    for seed in (1, 1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built.append(subject.build(arch).state_dict())
    cure = "initialise weights from torch's random state, with nothing else"
    ensure(all(torch.equal(built[0][key], built[1][key]) for key in built[0]), "one seed gives two networks", cure)
    ensure(not all(torch.equal(built[0][key], built[2][key]) for key in built[0]), "two seeds give one network", cure)


def sizes_can_be_counted_without_weights(subject: SpaceSubject) -> None:
    """Builds networks under torch.device("meta") too, where their size is counted."""
    arch = subject.some(1)[0].tolist()
    count = sum(each.numel() for each in subject.build(arch).parameters())
    cure = "look at no tensor's values in build; self.check does where they are"
    try:
        with torch.device("meta"):
            without = sum(each.numel() for each in subject.build(arch).parameters())
    except Exception as error:
        raise Broken(f"under torch.device('meta') build fails: {one_line(error)}", cure) from None
    ensure(count == without, f"it has {count} parameters, and under torch.device('meta') {without}", cure)


def a_wrong_architecture_is_not_built(subject: SpaceSubject) -> None:
    """Builds no architecture that is not its own."""
    wrong = (99,) * len(subject.space.decisions)
    refused(partial(subject.space.build, wrong), f"build({wrong})", _REFUSE, subject.space.name)


def subjects(found: type) -> list[SpaceSubject]:
    """A space with its toy arguments."""
    space = toy_factory(found, SearchSpace)
    return [SpaceSubject(found, space.name, lambda: space, space)]  # type: ignore[attr-defined]


CONTRACT = Contract(
    "search space",
    SearchSpace,
    subjects,
    checks=(
        decisions_have_different_names_and_choices,
        masks_have_the_size_of_their_decision,
        enumerates_its_architectures,
        refuses_choices_out_of_range,
        every_code_is_its_own,
        samples_are_valid,
        sampled_choices_are_uniform,
        mutants_are_valid,
        mutations_hit_every_decision_equally,
        mutations_keep_what_may_stay,
        neighbours_are_one_decision_away,
        one_hot_is_a_naive_loop,
        distance_counts_differing_decisions,
        strings_are_read_back,
        damaged_strings_are_refused,
        check_names_what_is_wrong,
        the_diagram_joins_named_nodes,
        an_example_has_the_channels_that_are_asked_for,
        networks_learn,
        images_of_every_size_are_taken_or_refused,
        a_network_is_a_function_of_the_random_state,
        sizes_can_be_counted_without_weights,
        a_wrong_architecture_is_not_built,
    ),
)
