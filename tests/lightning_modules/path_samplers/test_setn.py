import io

import pytest
import torch

from lightning_modules.networks.supernet import Path
from lightning_modules.path_samplers.darts import DARTSSampler
from lightning_modules.path_samplers.setn import SETNSampler
from lightning_modules.path_samplers.uniform import UniformSampler
from tests.lightning_modules.path_samplers.test_darts import SECRET, SPACE, Sum, batch, step_of, trained


def shared_worth(network):
    """Minus the error of each architecture's own path with the shared weights."""

    def evaluate(archs):
        x, y = batch(10_000)
        with torch.no_grad():
            return [-float((network(x, Path(choices)) - y).square().mean()) for choices in archs]

    return evaluate


def test_finds_the_functions_that_made_the_data():
    network = Sum()
    sampler = trained(SETNSampler(SPACE, learning_rate=0.05, candidates=20), network, range(200))
    assert sampler.choose(shared_worth(network), 5, 0)[0] == SECRET


def test_trains_the_weights_on_uniform_paths():
    sampler, uniform = SETNSampler(SPACE), UniformSampler(SPACE)
    paths = [sampler.path(3, step, index) for step in range(50) for index in range(2)]
    assert paths == [uniform.path(3, step, index) for step in range(50) for index in range(2)]
    assert len(set(path.choices for path in paths)) > 90


def test_the_logits_learn_as_those_of_first_order_darts():
    network = Sum()
    samplers = [SETNSampler(SPACE), DARTSSampler(SPACE, 1)]
    for sampler in samplers:
        for seed in range(3):
            sampler.learn(step_of(network, seed))
    assert torch.equal(*(torch.cat(list(sampler.logits)) for sampler in samplers))


def test_judges_the_likeliest_by_their_worth():
    sampler = SETNSampler(SPACE, candidates=7)
    with torch.no_grad():
        for t, logits in enumerate(sampler.logits):
            logits.copy_(torch.randn(5, generator=torch.Generator().manual_seed(t)))
    likeliest = DARTSSampler.choose(sampler, shared_worth(Sum()), 7, 0)
    asked = []

    def evaluate(archs):
        asked.append(list(archs))
        return [float(k == 4) - k / 100 for k in range(len(archs))]

    chosen = sampler.choose(evaluate, 3, 0)
    assert asked == [likeliest]
    assert chosen == [likeliest[4], likeliest[0], likeliest[1]]


def test_gives_as_many_as_asked_even_beyond_the_candidates():
    assert len(set(SETNSampler(SPACE, candidates=2).choose(shared_worth(Sum()), 5, 0))) == 5


def test_continues_from_a_checkpoint_exactly():
    whole_network, network = Sum(), Sum()
    whole = trained(SETNSampler(SPACE), whole_network, range(12))
    half = trained(SETNSampler(SPACE), network, range(7))
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    resumed = SETNSampler(SPACE)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    trained(resumed, network, range(7, 12))
    assert torch.equal(torch.cat(list(resumed.logits)), torch.cat(list(whole.logits)))
    assert torch.equal(network.scale, whole_network.scale)


def test_refuses_no_candidates():
    with pytest.raises(ValueError, match="candidates is 0"):
        SETNSampler(SPACE, candidates=0)
