"""The sandwich rule: which paths a step trains, and what they learn from."""

import pytest
import torch
from torch.nn import functional

from lightning_modules.imitation import imitation_loss, loss_and_outputs
from lightning_modules.networks.batch_statistics import BatchStatistics
from lightning_modules.networks.choices.small_network import SmallNetwork
from lightning_modules.networks.supernet import Path
from lightning_modules.objectives.classification import ClassificationObjective
from lightning_modules.path_samplers.sandwich import SandwichSampler
from lightning_modules.path_samplers.uniform import UniformSampler
from lightning_modules.supernet import SupernetModule
from search.contracts.toy_spaces import MaskedSpace
from search.spaces.head import Head
from search.spaces.module_space import ModuleSpace

SPACE = ModuleSpace(SmallNetwork)


def module_of(sampler):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = SPACE.build_supernet(lambda width: BatchStatistics(width, True), Head(4))
    module = SupernetModule(supernet, sampler)
    module.manual_backward = lambda loss: loss.backward()  # which needs a Trainer for nothing else
    return module


BATCH = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 4


def test_a_step_has_both_ends_and_what_is_drawn_between_them():
    sampler, uniform = SandwichSampler(SPACE, random=3), UniformSampler(SPACE)
    first, *between, last = (path.choices for path in sampler.paths(5, 7))
    assert (first, last) == (SPACE.largest(), SPACE.smallest())
    assert between == [uniform.path(5, 7, index).choices for index in range(3)]
    assert [path.choices for path in uniform.paths(5, 7)] == between[:1]
    assert sampler.paths(5, 7) == sampler.paths(5, 7) != sampler.paths(5, 8)


def test_ends_of_a_space_that_does_not_say_them_are_valid():
    space = MaskedSpace()
    sampler = SandwichSampler(space)
    assert (sampler.smallest, sampler.largest) == ((0, 0, 0, 0, 0), (2, 2, 0, 0, 1))
    assert SandwichSampler(space, largest=[2, 1, 1, 0, 0]).largest == (2, 1, 1, 0, 0)
    for wrong in ({"largest": [2, 3, 3, 2, 0]}, {"smallest": [0]}, {"distillation": 1.5}, {"random": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SandwichSampler(space, **wrong)


@pytest.mark.parametrize("distillation", [0.0, 0.75, 1.0])
def test_gradients_are_the_mean_over_paths_that_imitate_the_largest(distillation):
    module = module_of(SandwichSampler(SPACE, random=1, distillation=distillation))
    paths, (images, labels) = module.sampler.paths(0, 0), BATCH
    module._train_paths(paths, BATCH)
    ours = [parameter.grad.clone() for parameter in module.supernet.parameters()]
    module.zero_grad()
    outputs = [module.supernet(images, path) for path in paths]
    losses = [functional.cross_entropy(each, labels) for each in outputs]
    said = outputs[0].detach().softmax(1)
    for k in (1, 2):
        imitation = -(said * outputs[k].log_softmax(1)).sum(1).mean()
        losses[k] = (1 - distillation) * losses[k] + distillation * imitation
    torch.stack(losses).mean().backward()
    for parameter, gradient in zip(module.supernet.parameters(), ours, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)
    assert float(module._loss.value) == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_one_path_learns_as_ever():
    module = module_of(UniformSampler(SPACE))
    path = module.sampler.path(0, 0)
    module._train_paths([path], BATCH)
    ours = [None if each.grad is None else each.grad.clone() for each in module.supernet.parameters()]
    module.zero_grad()
    module.path_loss(path, BATCH).backward()
    theirs = [each.grad for each in module.supernet.parameters()]
    assert all(one is other or torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_imitation_has_its_least_at_the_teacher():
    """Where the logits are the teacher's, up to a constant, no direction leads down."""
    teacher = torch.randn(3, 5, 2)
    logits = (teacher + 2).requires_grad_()
    loss = imitation_loss(logits, teacher)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().max() < 1e-7
    assert loss < imitation_loss(teacher + torch.randn(3, 5, 2), teacher)


class Twice(ClassificationObjective):
    """Runs its network twice."""

    def loss(self, network, batch):
        return super().loss(network, batch) + super().loss(network, batch)


def test_what_gives_nothing_to_imitate_is_refused():
    network = module_of(UniformSampler(SPACE)).supernet

    def run(images):
        return network(images, Path(SPACE.largest()))

    with pytest.raises(ValueError, match="Twice gives nothing to imitate"):
        loss_and_outputs(Twice(), run, BATCH)
    with pytest.raises(ValueError, match="no logits of classes"):
        imitation_loss(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
