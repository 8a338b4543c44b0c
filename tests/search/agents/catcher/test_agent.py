from dataclasses import replace

import pytest
import torch

from search.agents.catcher.agent import CATCHer, normalise
from search.agents.catcher.bayesian import BayesianCATCHer
from search.agents.catcher.settings import CatcherSettings
from search.agents.catcher.stacked import clip_gradients_per_trial
from search.attributes.base import Attribute
from search.randomness import TrialRandom
from search.spaces.nasbench201 import NASBench201
from tests.search.agents.toy_spaces import Grid, integer_reward

SETTINGS = CatcherSettings(hidden=16, candidates=8, policy_updates=2, evaluator_updates=4, double=True)


def reward(archs):
    """Deterministic, with an interaction: choice 3 pays everywhere, twice where it repeats."""
    hits = (archs == 3).double()
    return hits.sum(-1) + (hits[..., 1:] * hits[..., :-1]).sum(-1) + 0.01 * archs.double().mean(-1)


def search(agent, steps, budget=40, begin=True):
    if begin:
        agent.begin_task(budget, adapting=True)
    asked = []
    for _ in range(steps):
        archs = agent.ask(1)
        agent.tell(archs, reward(archs))
        asked.append(archs)
    return torch.cat(asked, 1)


def test_normalised_rewards():
    rewards = torch.tensor([[1.0, 2.0, 3.0, 10.0], [5.0, 5.0, 5.0, 5.0]], dtype=torch.float64)
    scored = normalise(rewards, "zscore")
    assert scored[0].mean().item() == pytest.approx(0)
    assert scored[0].std(correction=0).item() == pytest.approx(1)
    assert scored[1].tolist() == [0] * 4
    ranked = normalise(rewards, "rank")
    expected = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor([0.125, 0.375, 0.625, 0.875]))
    assert torch.allclose(ranked[0].float(), expected)
    assert ranked[1].abs().max() < 1e-12
    # Ties share the mean of their places.
    tied = normalise(torch.tensor([[1.0, 2.0, 2.0, 3.0]]).double(), "rank")
    assert tied[0, 1] == tied[0, 2] and tied[0, 1].abs() < 1e-12


@pytest.mark.parametrize("part", ["policy", "evaluator"])
def test_gradients_of_both_losses_reach_the_encoder(part):
    agent = CATCHer(NASBench201(), 2, 0, replace(SETTINGS, kl_weight=0.0, entropy_weight=0.0))
    search(agent, 12)
    agent.optimizer.zero_grad()
    agent.joint_loss(policy=part == "policy", evaluator=part == "evaluator").sum().backward()
    gradients = [parameter.grad for parameter in agent.encoder.parameters()]
    assert all(gradient is not None and gradient.flatten(1).norm(dim=1).min() > 0 for gradient in gradients)


@pytest.mark.parametrize("context", ["posterior", "zero", "random"])
def test_a_batch_of_trials_is_as_many_single_runs(context):
    """The same networks over a whole search; the same weights while training has not amplified rounding."""
    together = CATCHer(NASBench201(), 3, 20, SETTINGS, context)
    early = search(together, 8)
    weights = {name: value.clone() for name, value in together.networks.state_dict().items()}
    asked = torch.cat([early, search(together, 12, begin=False)], 1)
    for trial in range(3):
        alone = CATCHer(NASBench201(), 1, 20 + trial, SETTINGS, context)
        first = search(alone, 8)
        for name, value in alone.networks.state_dict().items():
            assert torch.allclose(value[0], weights[name][trial], atol=1e-9), name
        assert torch.equal(torch.cat([first, search(alone, 12, begin=False)], 1)[0], asked[trial])


def test_joint_loss_of_a_batch_is_the_single_runs():
    together = CATCHer(NASBench201(), 3, 5, SETTINGS)
    search(together, 10)
    singles = []
    for trial in range(3):
        alone = CATCHer(NASBench201(), 1, 5 + trial, SETTINGS)
        search(alone, 10)
        singles.append(alone.joint_loss())
    assert torch.allclose(together.joint_loss(), torch.cat(singles), atol=1e-10)


def test_zero_context_ignores_the_history_and_random_does_not_learn_the_encoder():
    for context in ("zero", "random"):
        agent = CATCHer(NASBench201(), 1, 0, SETTINGS, context)  # type: ignore[arg-type]
        before = [parameter.clone() for parameter in agent.encoder.parameters()]
        search(agent, 15)
        assert all(torch.equal(a, b) for a, b in zip(before, agent.encoder.parameters(), strict=True))
    codes, rewards = agent._history()
    mean, variance = CATCHer(NASBench201(), 1, 0, SETTINGS, "zero")._posterior(codes, rewards)
    assert mean.abs().max() == 0 and variance.abs().max() == 0


class Mirrored(Grid):
    """A space in which the order of decisions makes no difference."""

    name = "mirrored"

    def canonical(self, archs):
        return archs.sort(-1).values


def test_no_network_is_asked_twice():
    asked = search(CATCHer(NASBench201(), 4, 1, SETTINGS), 40)
    numbers = NASBench201().code(asked)
    assert all(len(set(row.tolist())) == 40 for row in numbers)
    many = CATCHer(NASBench201(), 4, 1, SETTINGS)
    many.begin_task(40, adapting=True)
    for _ in range(8):
        archs = many.ask(5)
        assert all(len(set(row.tolist())) == 5 for row in NASBench201().code(archs))
        many.tell(archs, reward(archs))


def test_more_candidates_when_adapting_and_only_then():
    agent = CATCHer(NASBench201(), 2, 0, replace(SETTINGS, candidates_adapting=33))
    seen, original = [], agent.candidates
    agent.candidates = lambda z, count: (seen.append(count), original(z, count))[1]
    search(agent, 8)
    agent.begin_task(20, adapting=False)
    search(agent, 8, begin=False)
    assert seen == [33] * 3 + [SETTINGS.candidates] * 3  # three steps behind five random networks


@pytest.mark.parametrize("fallback", ["random", "mutation"])
def test_a_policy_with_nothing_new_falls_back(fallback):
    agent = CATCHer(NASBench201(), 6, 0, replace(SETTINGS, fallback=fallback))
    search(agent, 12)
    old = agent.archs[:, :1]
    agent.candidates = lambda z, count: old.expand(-1, count, -1)  # all of them known
    best = agent.archs[torch.arange(6), agent.rewards.argmax(1)]
    differing = (agent.ask(3) != best[:, None]).sum(-1)
    assert (differing == 1).all() if fallback == "mutation" else differing.double().mean() > 3


def test_two_architectures_of_one_network_are_not_both_asked():
    space = Mirrored(decisions=2, choices=3)  # six networks, of which three have two architectures each
    agent = CATCHer(space, 4, 0, replace(SETTINGS, initial_networks=1, candidates=40))
    agent.begin_task(6, adapting=True)
    for _ in range(4):
        archs = agent.ask(1)
        agent.tell(archs, archs.sum(-1).double())
    for told in space.canonical(agent.archs):
        assert len(told.unique(dim=0)) == 4


def test_epsilon_falls_over_the_task_and_is_reset_by_the_next():
    agent = CATCHer(NASBench201(), 1, 0, SETTINGS)
    agent.begin_task(budget=20, adapting=False)
    assert agent.epsilon == 1.0
    search(agent, 19, begin=False)
    assert agent.epsilon == pytest.approx(0.1)
    agent.begin_task(budget=20, adapting=False)
    assert agent.epsilon == 1.0 and agent.archs.shape[1] == 0
    agent.begin_task(budget=20, adapting=True)
    assert agent.epsilon == SETTINGS.epsilon_start_adapting


def test_meta_training_pays_on_a_related_task():
    """Meta-trained on the very reward, a CATCHer's first own choices are better than a fresh one's."""
    space = NASBench201()
    settings = CatcherSettings(hidden=16, candidates=8)
    fresh, trained = CATCHer(space, 8, 0, settings), CATCHer(space, 8, 100, settings)
    for _ in range(6):
        trained.begin_task(20, adapting=False)
        search(trained, 20, begin=False)
    start = CATCHer(space, 8, 0, settings)
    start.load_weights(trained.weights())
    difference = reward(search(start, 15)).max(1).values - reward(search(fresh, 15)).max(1).values
    assert difference.mean() > 3 * difference.std() / 8**0.5


def test_weights_file_loads_safely_and_refuses_what_does_not_fit(tmp_path):
    agent = CATCHer(NASBench201(), 2, 0, SETTINGS)
    search(agent, 8)
    torch.save(agent.weights(), tmp_path / "catcher.pt")
    torch.load(tmp_path / "catcher.pt", weights_only=True)
    started = CATCHer(NASBench201(), 5, 9, SETTINGS, init=str(tmp_path / "catcher.pt"))
    for name, value in started.networks.state_dict().items():  # two trained agents dealt out to five trials
        assert torch.equal(value, agent.networks.state_dict()[name][[0, 1, 0, 1, 0]])
    with pytest.raises(ValueError, match="hidden=16, this agent has hidden=32"):
        CATCHer(NASBench201(), 1, 0, replace(SETTINGS, hidden=32), init=str(tmp_path / "catcher.pt"))


def test_gradient_clipping_is_per_trial():
    parameter = torch.nn.Parameter(torch.zeros(3, 2, 2))
    parameter.grad = torch.stack([torch.full((2, 2), value) for value in (0.1, 3.0, 100.0)])
    clip_gradients_per_trial([parameter], 1.0)
    norms = parameter.grad.flatten(1).norm(dim=1)
    assert norms.tolist() == pytest.approx([0.2, 1.0, 1.0], rel=1e-5)


def test_settings_refuse_what_could_only_fail_later():
    for wrong, words in [
        ({"normalisation": "min"}, "zscore, rank"),
        ({"candidates": 0}, "at least 1"),
        ({"fallback": "x"}, "random, mutation"),
        ({"uniform_floor": 1.0}, "uniform_floor 1.0"),
    ]:
        with pytest.raises(ValueError, match=words):
            CatcherSettings(**wrong)


def test_random_streams_of_the_networks_do_not_depend_on_the_number_of_trials():
    one, three = CATCHer(NASBench201(), 1, 7, SETTINGS), CATCHer(NASBench201(), 3, 6, SETTINGS)
    assert torch.equal(one.encoder.mlp.weights[0][0], three.encoder.mlp.weights[0][1])
    assert TrialRandom(7).uniform(3)[0].equal(TrialRandom(6, 3).uniform(3)[1])


def test_on_a_target_candidates_may_be_mutants_of_the_best():
    agent = CATCHer(Grid(), 2, 0, replace(SETTINGS, mutations_adapting=0.5))
    z = torch.zeros(2, agent.settings.latent, dtype=torch.float64)
    told = Grid().sample(TrialRandom(4, 2), 10)
    for adapting in (True, False):
        agent.begin_task(20, adapting)
        agent.tell(told, reward(told))
        best = told.gather(1, reward(told).topk(3).indices.unsqueeze(-1).expand(-1, -1, told.shape[-1]))
        distance = Grid().distance(agent.candidates(z, 12).unsqueeze(2), best.unsqueeze(1)).min(2).values
        assert (distance[:, 6:] <= 1).all() == adapting
        assert not (distance[:, :6] <= 1).all()
    with pytest.raises(ValueError, match="mutations_adapting is 2, it must lie in"):
        CatcherSettings(mutations_adapting=2)


# ---- attributes ------------------------------------------------------------------------------------------------------


class Reward(Attribute):
    """What a network will get, known beforehand."""

    name = "reward"

    def measure(self, architectures):
        return integer_reward(self.space, torch.tensor(architectures)).tolist()


@pytest.mark.parametrize("kind", [CATCHer, BayesianCATCHer])
def test_an_evaluator_that_reads_the_answer_finds_it(kind):
    """As a feature an attribute is learned from, as a filter it is followed; with neither it has no effect."""
    space = Grid()

    def late(attributes_for):
        agent = kind(space, 6, 0, attributes={"reward": Reward(space)}, attributes_for=attributes_for)
        agent.begin_task(14, adapting=True)
        for _ in range(14):
            archs = agent.ask(1)
            agent.tell(archs, integer_reward(space, archs))
        return agent.rewards[:, 5:].mean()

    without, read, sifted = late("nothing"), late("features"), late("filter")
    assert sifted > without and (read > without or kind is CATCHer)
    plain = kind(space, 2, 0)
    ignoring = kind(space, 2, 0, attributes={"reward": Reward(space)})
    for agent in (plain, ignoring):
        agent.begin_task(14, adapting=True)
        archs = space.sample(TrialRandom(3, 2), 6)
        agent.tell(archs, integer_reward(space, archs))
    assert torch.equal(plain.ask(2), ignoring.ask(2)) and ignoring.attributes == {}


def test_a_filter_keeps_the_quarter_that_promises_most():
    space = Grid()
    agent = CATCHer(space, 2, 0, attributes={"reward": Reward(space)}, attributes_for="filter")
    drawn = space.sample(TrialRandom(1, 2), 40)
    kept = agent._sifted(drawn)
    for trial in range(2):
        wanted = integer_reward(space, drawn[trial : trial + 1])[0].sort(descending=True).values[:10]
        assert (
            integer_reward(space, kept[trial : trial + 1])[0].sort(descending=True).values.tolist() == wanted.tolist()
        )


def test_weights_that_read_attributes_fit_agents_that_read_the_same(tmp_path):
    space = Grid()
    attributes = {"reward": Reward(space)}
    reading = CATCHer(space, 1, 0, attributes=attributes, attributes_for="features")
    torch.save(reading.weights(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="these CATCHer weights read the attributes: reward; this agent reads: none"):
        CATCHer(space, init=str(tmp_path / "weights.pt"))
    with pytest.raises(ValueError, match="attributes_for is 'all', allowed: nothing, features, filter, both"):
        CATCHer(space, attributes_for="all")
    # A recipe's attributes are not known yet where an agent is made for the first time.
    assert CATCHer(space, init=str(tmp_path / "weights.pt"), attributes_for="features").attributes is None
    again = CATCHer(space, 1, 1, init=str(tmp_path / "weights.pt"), attributes=attributes, attributes_for="features")
    for name, value in reading.networks.state_dict().items():
        assert torch.equal(again.networks.state_dict()[name], value), name
