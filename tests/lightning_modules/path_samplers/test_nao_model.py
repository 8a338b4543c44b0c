import pytest
import torch
from torch import nn

from lightning_modules.path_samplers.nao_model import EncoderPredictorDecoder, fit

SIZES = (3, 5, 2, 4)
SECRET = torch.tensor([2, 0, 1, 3])


def architectures(n, seed=0, sizes=SIZES):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(size, (n,), generator=generator) for size in sizes], dim=1)


def closeness(archs):
    return (archs == SECRET).sum(1).double()


@pytest.fixture(scope="module")
def trained():
    model = EncoderPredictorDecoder(SIZES)
    archs = architectures(60)
    fit(model, archs, closeness(archs), epochs=500, batch_size=60, learning_rate=3e-3)
    return model


def test_writes_back_and_ranks_architectures_that_it_never_saw(trained):
    archs = torch.cartesian_prod(*map(torch.arange, SIZES))
    with torch.no_grad():
        memory = trained.encode(archs)
        worth = trained.predict(memory)
    assert memory.shape == (120, 4, 16)
    assert (trained.decode(memory) == archs).all(1).float().mean() > 0.8
    assert torch.corrcoef(torch.stack([worth.double(), closeness(archs)]))[0, 1] > 0.9


def test_predicts_normalised_worth(trained):
    """60 of 120 architectures include every number of right choices from 0 to 4: worth n is n / 4."""
    archs = architectures(60)
    assert sorted(set(closeness(archs).tolist())) == [0, 1, 2, 3, 4]
    with torch.no_grad():
        predicted = trained.predict(trained.encode(archs))
    assert (predicted - closeness(archs) / 4).abs().mean() < 0.08


def test_the_scale_of_worth_changes_nothing():
    archs = architectures(20)
    models = [EncoderPredictorDecoder(SIZES) for _ in range(2)]
    losses = [
        fit(models[0], archs, closeness(archs), epochs=3),
        fit(models[1], archs, 40 * closeness(archs) - 7, epochs=3),
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_climbs(trained):
    """Following the gradient leads to better architectures, and to the best one, from the worst ones."""
    archs = architectures(200, seed=1)
    archs = archs[closeness(archs) <= 1]
    reached = trained.ascended(archs, range(1, 51))
    assert reached.shape == (50, len(archs), 4)
    gain = closeness(reached[-1]).mean() - closeness(archs).mean()
    assert gain > 1.5
    assert (reached.flatten(0, 1) == SECRET).all(1).any()


def test_a_step_of_no_length_changes_nothing(trained):
    archs = architectures(50)
    assert torch.equal(trained.ascended(archs, [0.0])[0], trained.decode(trained.encode(archs).detach()))


def test_a_short_step_raises_the_prediction(trained):
    archs = architectures(50)
    memory = trained.encode(archs).detach().requires_grad_()
    before = trained.predict(memory)
    (gradient,) = torch.autograd.grad(before.sum(), memory)
    with torch.no_grad():
        after = trained.predict(nn.functional.normalize(memory + 1e-2 * gradient, dim=-1))
    assert (after > before).float().mean() > 0.95


def test_decodes_within_the_sizes_whatever_the_weights():
    model = EncoderPredictorDecoder(SIZES, seed=5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(30)
    decoded = model.decode(torch.randn(500, 4, 16, generator=torch.Generator().manual_seed(0)))
    assert (decoded >= 0).all() and (decoded < torch.tensor(SIZES)).all()


def test_greedy_decoding_agrees_with_the_log_probabilities(trained):
    """What is decoded token by token is, given itself as the true tokens, the argmax everywhere."""
    archs = architectures(40, seed=2)
    with torch.no_grad():
        decoded = trained.decode(trained.encode(archs))
        same = archs[(decoded == archs).all(1)]
        _, log_probs = trained(same)
    assert len(same) > 20
    assert torch.equal(log_probs.argmax(-1) - trained.offsets, same)
    inside = torch.zeros(4, 14)
    for t, size in enumerate(SIZES):
        inside[t, sum(SIZES[:t]) : sum(SIZES[:t]) + size] = 1
    torch.testing.assert_close((log_probs.exp() * inside).sum(-1), torch.ones(len(same), 4))


def test_loss_is_the_weighted_sum():
    """Without dropout and with a learning rate of zero, the loss of one epoch is that of the initial weights."""
    model = EncoderPredictorDecoder(SIZES, dropout=0.0, seed=3)
    archs = architectures(10)
    loss = fit(model, archs, closeness(archs), epochs=1, learning_rate=0.0, trade_off=0.7)
    target = (closeness(archs) - closeness(archs).min()) / (closeness(archs).max() - closeness(archs).min())
    with torch.no_grad():
        predicted, log_probs = model(archs)
    squared = sum((float(p) - float(t)) ** 2 for p, t in zip(predicted, target, strict=True)) / 10
    likelihood = sum(float(log_probs[i, t, sum(SIZES[:t]) + int(archs[i, t])]) for i in range(10) for t in range(4))
    assert loss == pytest.approx(0.7 * squared - 0.3 * likelihood / 40, rel=1e-5)


def test_depends_on_its_seeds_alone():
    archs = architectures(20)
    weights = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        model = EncoderPredictorDecoder(SIZES, seed=4)
        fit(model, archs, closeness(archs), epochs=3, batch_size=7, seed=9)
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(*weights)
    other = EncoderPredictorDecoder(SIZES, seed=5)
    assert not torch.equal(other.output.weight, EncoderPredictorDecoder(SIZES, seed=4).output.weight)


def test_equal_worth_is_no_error():
    model = EncoderPredictorDecoder(SIZES)
    archs = architectures(10)
    assert fit(model, archs, torch.ones(10), epochs=2) < 10
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
