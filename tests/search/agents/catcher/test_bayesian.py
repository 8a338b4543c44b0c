"""The Bayesian CATCHer: practice, exact adaptation, and what it is worth where sources help or mislead."""

from dataclasses import replace

import pytest
import torch

from search.agents.catcher.agent import normalise
from search.agents.catcher.bayesian import BayesianCATCHer, BayesianSettings, normalise_among
from search.agents.catcher.gaussian_process import log_expected_improvement, posterior
from search.agents.catcher.settings import CatcherSettings
from search.agents.catcher.sources import SourceProcesses
from search.agents.random_search import RandomSearch
from search.randomness import TrialRandom
from search.spaces.nasbench201 import NASBench201
from tests.search.agents.toy_spaces import Grid, Staircase, best_reward, integer_reward

SPACE = Grid()
SETTINGS = CatcherSettings(hidden=16, initial_networks=3, candidates=40, double=True)
PRACTICE = BayesianSettings(updates_per_network=3, batch=32)
OF_SOURCES = replace(PRACTICE, updates_per_network=1, prior="sources", opening="prior", whole=20_000)


def meta_trained(trials, seed, reward, networks=100, tasks=1, **changes):
    agent = BayesianCATCHer(SPACE, trials, seed, replace(SETTINGS, **changes), PRACTICE)
    for _ in range(tasks):
        agent.begin_task(networks, adapting=False)
        archs = agent.ask(networks)
        agent.tell(archs, reward(archs))
    return agent


def search(agent, evaluations, reward=lambda archs: integer_reward(SPACE, archs)):
    agent.begin_task(evaluations, adapting=True)
    found = []
    for _ in range(evaluations):
        archs = agent.ask(1)
        found.append(reward(archs))
        agent.tell(archs, found[-1])
    return torch.cat(found, 1).cummax(1).values


def test_normalise_among_counts_places():
    history = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    rewards = torch.tensor([[0.0, 2.0, 9.0]], dtype=torch.float64)
    places = torch.special.ndtr(normalise_among(rewards, history, "rank"))
    assert torch.allclose(places, torch.tensor([[0.5 / 4, 2.0 / 4, 3.5 / 4]], dtype=torch.float64))
    zscores = normalise_among(torch.tensor([[2.0, 2.5, 99.0]], dtype=torch.float64), history, "zscore")
    assert torch.allclose(zscores, torch.tensor([[0.0, 0.5 / (2 / 3) ** 0.5, 3.0]], dtype=torch.float64), atol=1e-6)


def test_a_search_may_be_conditioned_on_rewards_instead_of_ranks():
    """The acquisition computed again from standardised rewards and centred expectations."""
    agent = BayesianCATCHer(SPACE, 2, 0, SETTINGS, replace(PRACTICE, adapts_on="rewards"))
    with torch.no_grad():
        agent.evaluator.mlp.weights[-1] *= 100  # expects different things of different networks
    agent.begin_task(20, adapting=True)
    told = SPACE.sample(TrialRandom(1, 2), 12)
    rewards = integer_reward(SPACE, told)
    rewards[:, 0] = -1e6  # did not learn
    agent.tell(told, rewards)
    archs, z = SPACE.sample(TrialRandom(2, 2), 30), torch.zeros(2, SETTINGS.latent, dtype=torch.float64)
    with torch.no_grad():
        found = agent.preference(archs, z)
        codes, asked = (SPACE.one_hot(each).double() for each in (told, archs))
        nothing = torch.zeros(2, 30)
        once = (rewards - rewards.mean(1, keepdim=True)) / rewards.std(1, correction=0, keepdim=True)
        drawn_up = once.clamp(min=-3)
        values = (drawn_up - drawn_up.mean(1, keepdim=True)) / drawn_up.std(1, correction=0, keepdim=True)
        known, expected = agent._prior(told, z, nothing[:, :12]), agent._prior(archs, z, nothing)
        centre = known.mean(1, keepdim=True)
        mean, variance = posterior(agent.kernel, codes, known - centre, values, asked, expected - centre)
        improvement = log_expected_improvement(mean, variance, values.amax(1, keepdim=True))
    assert torch.allclose(found, improvement, atol=1e-6)
    agent.bayesian = PRACTICE
    assert not torch.allclose(found, agent.preference(archs, z), atol=1e-2)


def test_practice_loss_of_a_batch_is_the_single_runs():
    archs = SPACE.sample(TrialRandom(0, 3), 60)
    rewards = integer_reward(SPACE, archs)
    worth = normalise(rewards, "rank")
    together = BayesianCATCHer(SPACE, 3, 5, SETTINGS, PRACTICE).practice_loss(archs, rewards, worth, update=4)
    for trial in range(3):
        alone = BayesianCATCHer(SPACE, 1, 5 + trial, SETTINGS, PRACTICE)
        own = slice(trial, trial + 1)
        one = alone.practice_loss(archs[own], rewards[own], worth[own], update=4)
        assert torch.allclose(together[trial], one[0], atol=1e-9)


def test_practice_reaches_every_part_and_lowers_its_loss():
    agent = BayesianCATCHer(SPACE, 2, 0, SETTINGS, PRACTICE)
    before = {name: value.clone() for name, value in agent.networks.state_dict().items()}
    archs = SPACE.sample(TrialRandom(9, 2), 100)
    rewards = integer_reward(SPACE, archs)

    @torch.no_grad()
    def loss():
        kept, agent.rng = agent.rng, TrialRandom(77, 2)
        worth = normalise(rewards, "rank")
        value = torch.stack([agent.practice_loss(archs, rewards, worth, update) for update in range(20)]).mean()
        agent.rng = kept
        return float(value)

    untrained = loss()
    agent.begin_task(100, adapting=False)
    agent.tell(archs, rewards)
    assert loss() < untrained - 0.5
    for name, value in agent.networks.state_dict().items():
        assert not torch.equal(value, before[name]), f"{name} was not trained"


def test_nothing_is_learned_by_gradient_on_a_target():
    agent = meta_trained(2, 0, lambda archs: integer_reward(SPACE, archs))
    before = {name: value.clone() for name, value in agent.networks.state_dict().items()}
    search(agent, 12)
    for name, value in agent.networks.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_no_network_is_asked_twice_while_candidates_are_new():
    agent = BayesianCATCHer(SPACE, 4, 0, SETTINGS)
    search(agent, 40)
    for trial in range(4):
        assert len({tuple(arch) for arch in agent.archs[trial].tolist()}) == 40


def test_helps_where_sources_agree_and_is_not_fooled_where_they_mislead():
    """A related source halves the distance to the best of 15,625; an opposite one leaves the agent ahead of random."""
    trials, evaluations = 12, 20
    target = best_reward(SPACE)
    found = {
        "random": search(RandomSearch(SPACE, trials, 0), evaluations),
        "scratch": search(BayesianCATCHer(SPACE, trials, 0, SETTINGS), evaluations),
    }
    sources = {
        "related": lambda archs: integer_reward(SPACE, archs) + 0.3 * integer_reward(SPACE, archs, seed=1),
        "opposite": lambda archs: -integer_reward(SPACE, archs),
    }
    for name, reward in sources.items():
        agent = BayesianCATCHer(SPACE, trials, 0, SETTINGS, PRACTICE)
        agent.load_weights(meta_trained(4, 500, reward).weights())
        found[name] = search(agent, evaluations)
    gap = {name: float((target - best[:, -1]).mean()) for name, best in found.items()}
    assert gap["related"] < 0.5 * gap["scratch"] < 0.5 * gap["random"], gap
    assert gap["opposite"] < 0.7 * gap["random"], gap


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mutations": 1.5}, "mutations is 1.5"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"parents": 0}, "parents is 0"),
        ({"smallest_context": 9, "largest_context": 3}, "smallest_context is 9"),
    ],
)
def test_settings_out_of_range_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        BayesianSettings(**changes)


# ---- source evaluations that are not random --------------------------------------------------------------------------


FEW = Grid(4, 4)


def active(share=0.5, space=FEW, **changes):
    return BayesianCATCHer(space, 2, 0, SETTINGS, replace(OF_SOURCES, active=share, **changes))


def asked_on_a_source(agent, networks, reward, n=1):
    agent.begin_task(networks, adapting=False)
    for _ in range(networks // n):
        archs = agent.ask(n)
        agent.tell(archs, reward(archs))
    return agent.archive[-1][0]


def other_reward(archs):
    return -(archs - 2).square().sum(-1).double()


def test_the_active_part_goes_where_the_sources_expect_most():
    """Half of each source at random, then the best new ones by the mean of a process for each source so far."""
    agent, plain = active(), active(0.0)
    rewards = lambda archs: integer_reward(FEW, archs)  # noqa: E731
    first, second = asked_on_a_source(agent, 24, rewards), asked_on_a_source(agent, 24, other_reward)
    assert torch.equal(first[:, :12], asked_on_a_source(plain, 24, rewards)[:, :12]), "as random as ever"
    everything = torch.tensor(list(FEW.enumerate()))
    for told, tasks in (
        (first, [(first[:, :12], rewards)]),
        (second, [(first, rewards), (second[:, :12], other_reward)]),
    ):
        processes = SourceProcesses(agent.codes)
        for archs, its in tasks:
            processes.learn(archs, its(archs))
        for trial, expected in enumerate(processes.expected(everything[None], range(2))):
            known = set(FEW.code(told[trial, :12]).tolist())
            new = [place for place in range(len(everything)) if int(FEW.code(everything[place])) not in known]
            best = sorted(expected[new].tolist(), reverse=True)[:12]
            asked = [int(FEW.code(each)) for each in told[trial, 12:]]
            assert len(set(asked)) == 12 and not known & set(asked)
            of_code = {int(FEW.code(each)): float(worth) for each, worth in zip(everything, expected, strict=True)}
            assert [of_code[code] for code in asked] == pytest.approx(best)
    assert rewards(first[:, 12:]).mean() > rewards(first[:, :12]).mean()


@pytest.mark.parametrize("whole", [0, 20_000])
def test_an_active_source_is_resumed_exactly(whole):
    rewards = lambda archs: integer_reward(FEW, archs)  # noqa: E731
    archs = asked_on_a_source(active(whole=whole), 12, rewards)
    assert len({tuple(each) for each in archs[0].tolist()}) == 12
    for split in (3, 6, 7, 10):
        begun, goes_on = active(whole=whole), active(whole=whole)
        begun.begin_task(12, adapting=False)
        for _ in range(split):
            asked = begun.ask()
            begun.tell(asked, rewards(asked))
        goes_on.load_state_dict(begun.state_dict())
        for place in range(split, 12):
            asked = goes_on.ask()
            assert torch.equal(asked[:, 0], archs[:, place]), (split, place)
            goes_on.tell(asked, rewards(asked))


def test_an_active_part_asks_for_all_that_is_new_and_then_once_more():
    few = Grid(2, 3)
    everything = len(list(few.enumerate()))
    archs = asked_on_a_source(active(space=few), 4 * everything, other_reward, n=everything)
    assert archs.shape[1] == 4 * everything
    assert all(len(set(map(tuple, of_trial.tolist()))) == everything for of_trial in archs)


def test_active_needs_something_that_expects():
    with pytest.raises(ValueError, match="active asks what sources expect, and prior is 'evaluator'"):
        BayesianSettings(active=0.5)
    with pytest.raises(ValueError, match="active is 1"):
        BayesianSettings(active=1.0, prior="sources")


# ---- the sources' processes as prior, whole spaces ------------------------------------------------------------------

STAIRS = Staircase()
EVERYTHING = torch.tensor(list(STAIRS.enumerate()))[None]


def of_sources(trials, seed, practice, tasks=1, networks=40):
    agent = BayesianCATCHer(STAIRS, trials, seed, SETTINGS, practice)
    for _ in range(tasks):
        agent.begin_task(networks, adapting=False)
        archs = agent.ask(networks)
        agent.tell(archs, integer_reward(STAIRS, archs))
    return agent


@pytest.mark.parametrize("whole", [0, 20_000])
def test_a_search_may_open_with_what_the_sources_expect_most_of(whole):
    """Of the whole space the very best, else the best of what is proposed."""
    practice = replace(OF_SOURCES, whole=whole)
    agent = BayesianCATCHer(STAIRS, 4, 0, SETTINGS, practice)
    with pytest.raises(ValueError, match="these weights hold no source tasks, which prior: sources looks at"):
        agent.load_weights(BayesianCATCHer(STAIRS, 1, 0, SETTINGS, PRACTICE).weights())
    agent.load_weights(of_sources(2, 50, practice).weights())
    agent.begin_task(10, adapting=True)
    first = agent.ask(1)
    if whole:
        expected = agent.sources.expected(EVERYTHING, [0, 1, 0, 1])
        assert torch.equal(first[:, 0], EVERYTHING[0][expected.argmax(1)])
    rewards = integer_reward(STAIRS, EVERYTHING)[0]
    assert integer_reward(STAIRS, first).mean() > rewards.mean() + 0.5 * rewards.std()


@pytest.mark.parametrize("prior", ["sources", "weighted_sources"])
def test_of_a_whole_space_the_one_is_asked_that_is_worth_most(prior):
    practice = replace(OF_SOURCES, adapts_on="rewards", prior=prior)
    agent = of_sources(3, 0, practice, tasks=2)
    agent.begin_task(20, adapting=True)
    told = STAIRS.sample(TrialRandom(1, 3), 9)
    agent.tell(told, integer_reward(STAIRS, told, 7))
    everything = EVERYTHING.expand(3, -1, -1)
    before = agent.rng.state_dict()
    with torch.no_grad():
        worth = agent.preference(everything, agent._context())
    worth.masked_fill_((STAIRS.code(everything).unsqueeze(2) == STAIRS.code(told).unsqueeze(1)).any(2), -torch.inf)
    agent.rng.load_state_dict(before)
    asked = agent.ask(2)
    best = worth.topk(2, dim=1).indices
    assert torch.equal(asked, everything.gather(1, best.unsqueeze(-1).expand(-1, -1, asked.shape[-1])))


def test_weighted_sources_find_the_one_that_the_target_is_like():
    """Three sources that have nothing to do with each other; the target is the second: their mean alone is no help."""
    found = {}
    for prior in ("sources", "weighted_sources"):
        agent = BayesianCATCHer(STAIRS, 8, 0, SETTINGS, replace(OF_SOURCES, prior=prior, adapts_on="rewards"))
        for source in (1, 2, 3):
            agent.begin_task(40, adapting=False)
            archs = agent.ask(40)
            agent.tell(archs, integer_reward(STAIRS, archs, source))
        best = search(agent, 5, lambda archs: integer_reward(STAIRS, archs, 2))
        found[prior] = float((best_reward(STAIRS, 2) - best[:, -1]).mean())
    assert found["weighted_sources"] < 0.7 * found["sources"], found


def test_weights_that_weigh_sources_and_weights_that_do_not_are_told_apart():
    for theirs, ours in (("sources", "weighted_sources"), ("weighted_sources", "sources")):
        weights = of_sources(1, 0, replace(OF_SOURCES, prior=theirs), networks=10).weights()
        agent = BayesianCATCHer(STAIRS, 1, 0, SETTINGS, replace(OF_SOURCES, prior=ours))
        with pytest.raises(ValueError, match=f"weights are of prior: {theirs}, this agent has prior: {ours}"):
            agent.load_weights(weights)


@pytest.mark.parametrize(("one_network", "networks"), [("graph", 4930), ("canonical", 15_625)])
def test_of_a_whole_space_each_network_comes_up_once_by_its_graph_or_its_canonical_form(one_network, networks):
    practice = replace(OF_SOURCES, one_network=one_network)
    agent = BayesianCATCHer(NASBench201(), 1, 0, SETTINGS, practice)
    assert agent.pool.candidates(torch.zeros(1, 0, 6, dtype=torch.long), agent.rng).archs.shape[1] == networks


@pytest.mark.parametrize("prior", ["sources", "weighted_sources"])
def test_a_search_with_sources_goes_on_exactly_where_it_was(prior):
    practice = replace(OF_SOURCES, prior=prior)
    agent = of_sources(2, 0, practice)
    agent.begin_task(10, adapting=True)
    archs = agent.ask(6)
    agent.tell(archs, integer_reward(STAIRS, archs))
    again = BayesianCATCHer(STAIRS, 2, 5, SETTINGS, practice)
    again.load_state_dict(agent.state_dict())
    assert torch.equal(agent.ask(3), again.ask(3))


def test_settings_of_the_sources_are_checked():
    for name in ("prior", "opening", "one_network"):
        with pytest.raises(ValueError, match=f"{name} is 'none', allowed: "):
            BayesianSettings(**{name: "none"})
