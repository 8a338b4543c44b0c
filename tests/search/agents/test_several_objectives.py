"""ParEGO, Pareto local search and Optuna's samplers see every objective; what they promise is in test_contract.py."""

import itertools
import math

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from search.agents.multi_objective_local_search import MultiObjectiveLocalSearch
from search.agents.optuna_sampler import OptunaSampler
from search.agents.parego import ParEGO
from search.agents.random_search import RandomSearch
from search.evaluation import Evaluation, Objective
from search.randomness import TrialRandom
from search.statistics.pareto import hypervolume, pareto_front

from .test_nsga2 import OBJECTIVES, evaluations_of, proposals_of, search, values_of
from .toy_spaces import Grid, Staircase, integer_reward

TWO = {"first": "max", "second": "min"}
KINDS = {
    "parego": lambda space, trials, objectives: ParEGO(space, trials, candidates=20, objectives=objectives),
    "local": lambda space, trials, objectives: MultiObjectiveLocalSearch(space, trials, objectives=objectives),
    "tpe": lambda space, trials, objectives: OptunaSampler(space, trials, sees="objectives", objectives=objectives),
}


@pytest.mark.parametrize("name", ["parego", "local"])  # Optuna's are held to be what Optuna asks for, below
@pytest.mark.parametrize("count", [2, 3])
def test_their_fronts_cover_more_than_those_of_random_search(name, count):
    objectives = dict(list(OBJECTIVES.items())[:count])
    directions, trials = list(objectives.values()), 8
    worst = torch.tensor([-700.0 if direction == "max" else 700.0 for direction in directions]).double()

    def volumes(agent, n):
        return hypervolume(values_of(agent.space, search(agent, 60, objectives, n=n), count), worst, directions)

    ours, random = volumes(KINDS[name](Grid(), trials, objectives), 3), volumes(RandomSearch(Grid(), 32), 5)
    error = math.sqrt(float(ours.var()) / trials + float(random.var()) / 32)
    print(f"{name}: {float(ours.mean()):.4g}, random search {float(random.mean()):.4g}, standard error {error:.2g}")
    assert ours.mean() > random.mean() + 2 * error


@pytest.mark.parametrize("name", KINDS)
def test_a_hard_limit_comes_first(name):
    """A twentieth of the space keeps it: of what is asked in the end most does."""
    space, trials = Grid(), 3
    everything = integer_reward(space, torch.tensor(list(space.enumerate())), seed=1)
    limit = float(everything.quantile(0.05))
    limited = {"first": "max", "second": Objective("min", limit)}
    asked = search(KINDS[name](space, trials, limited), 80, TWO, n=5)
    kept = integer_reward(space, asked, seed=1) <= limit
    first, last = float(kept[:, :20].double().mean()), float(kept[:, -20:].double().mean())
    print(f"{name}: {first:.0%} at first, {last:.0%} in the end")
    assert last > first + 0.15


@pytest.mark.parametrize("kind", [ParEGO, MultiObjectiveLocalSearch])
def test_with_a_single_objective_they_climb_the_score(kind):
    asked = []
    for objectives in (None, {"size": Objective("min", 3.0)}):
        agent, found = kind(Grid(), objectives=objectives), []
        for _ in range(16):
            found.append(agent.ask(1))
            rewards = integer_reward(agent.space, found[-1])
            evaluations = [[Evaluation(float(rewards), {"size": 1.0})]]
            agent.observe(proposals_of(found[-1]), evaluations, rewards)
        asked.append(torch.cat(found, dim=1))
    assert torch.equal(*asked)


@pytest.mark.parametrize("kind", [ParEGO, MultiObjectiveLocalSearch])
def test_a_trial_is_the_run_of_its_own_seed_with_objectives_too(kind):
    runs = [search(kind(Grid(), trials, seed, objectives=TWO), 24, TWO, n=2) for trials, seed in ((3, 0), (1, 2))]
    assert torch.equal(runs[0][2], runs[1][0])


# ---- Pareto local search -------------------------------------------------------------------------------------------


def test_local_search_asks_for_untried_neighbours_of_the_front():
    """By the definition, step by step; where all were tried it asks for something else."""
    space = Grid(3, 3)
    agent = MultiObjectiveLocalSearch(space, seed=4, initial=4, objectives=TWO)
    asked, strays = [], 0
    for number in range(27):
        archs = agent.ask(1)
        if number >= 4:
            values = values_of(space, torch.tensor(asked), 2)
            front = [asked[k] for k in pareto_front(values, list(TWO.values())).nonzero()[:, 0].tolist()]
            near = {arch for arch in space.enumerate() if any(apart(arch, each) == 1 for each in front)} - set(asked)
            if near:
                assert tuple(archs[0, 0].tolist()) in near
            strays += not near
        asked.append(tuple(archs[0, 0].tolist()))
        agent.observe(proposals_of(archs), evaluations_of(space, archs, TWO), torch.zeros(1, 1))
    assert 0 < strays < 20


def apart(one, other):
    return sum(a != b for a, b in zip(one, other, strict=True))


def test_a_batch_of_a_masked_space_is_valid_and_new():
    space = Staircase()
    for kind in (MultiObjectiveLocalSearch, ParEGO):
        asked = search(kind(space, trials=3, objectives=TWO), 60, TWO, n=5)
        assert space.is_valid(asked).all()
        assert all(len({tuple(arch) for arch in row}) == 60 for row in asked.tolist())


# ---- ParEGO --------------------------------------------------------------------------------------------------------


def test_the_scalarisation_by_hand():
    agent = ParEGO(Grid(), objectives={"a": "max", "b": "min"}, rho=0.05)
    points = [(10.0, 4.0), (6.0, 2.0), (2.0, 3.0)]
    proposals = proposals_of(agent.space.sample(TrialRandom(0), 5))
    told = [Evaluation(0.0, {"a": a, "b": b}) for a, b in points]
    told += [Evaluation(0.0, {"a": 6.0, "b": 3.0}, violation=0.25), Evaluation.failed("broken")]
    agent.observe(proposals, [told], torch.zeros(1, 5))
    weights = (0.25, 0.75)
    losses = []
    for a, b in points:
        each = [weights[0] * (10 - a) / 8, weights[1] * (b - 2) / 2]
        losses.append(max(each) + 0.05 * sum(each))
    losses += [1.05 + 0.2, 1.05 + 1.0]
    mean = sum(losses) / 5
    deviation = math.sqrt(sum((loss - mean) ** 2 for loss in losses) / 4)
    expected = [(mean - loss) / deviation for loss in losses]
    assert agent.scalarised(torch.tensor([weights], dtype=torch.float64))[0].tolist() == pytest.approx(expected)


def test_expected_improvement_equals_a_plain_gaussian_process():
    """Inverse and determinant of the whole matrix, where the agent solves triangles."""
    space = Grid(3, 3)
    agent = ParEGO(space, scales=(1.0, 4.0))
    archs = space.sample(TrialRandom(1), 8)
    agent.tell(archs, integer_reward(space, archs))
    worth = agent.scalarised(torch.ones(1, 1, dtype=torch.float64))
    candidates = space.sample(TrialRandom(2), 5)
    found = agent._improvement(candidates, worth)[0]
    answers = {}
    for scale in agent.scales:

        def kernel(one, other, scale=scale):
            return torch.exp(-(one[:, None] != other[None]).sum(-1).double() / scale)

        known = kernel(archs[0], archs[0]) + 0.01 * torch.eye(8, dtype=torch.float64)
        across = kernel(candidates[0], archs[0])
        mean = across @ known.inverse() @ worth[0]
        variance = 1 - (across @ known.inverse() * across).sum(1)
        likely = -0.5 * worth[0] @ known.inverse() @ worth[0] - 0.5 * known.logdet()
        normal, deviation = torch.distributions.Normal(0.0, 1.0), variance.clamp(min=1e-9).sqrt()
        u = (mean - worth.max()) / deviation
        answers[float(likely)] = deviation * (normal.log_prob(u).exp() + u * normal.cdf(u))
    assert torch.allclose(found.exp(), answers[max(answers)].double(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "kind, arguments, words",
    [
        (ParEGO, {"initial": 0}, "initial is 0"),
        (ParEGO, {"candidates": 0}, "candidates is 0"),
        (ParEGO, {"rho": -1.0}, "rho is -1"),
        (ParEGO, {"scales": ()}, "at least one number above 0"),
        (MultiObjectiveLocalSearch, {"initial": 0}, "initial is 0"),
        (MultiObjectiveLocalSearch, {"tries": 0}, "tries is 0"),
        (OptunaSampler, {"sees": "objectives", "objectives": {"a": "least"}}, "objectives.a: direction is 'least'"),
        (OptunaSampler, {"sees": "everything"}, "sees is 'everything', allowed: score, limits, objectives"),
    ],
)
def test_what_they_can_not_do_is_refused(kind, arguments, words):
    with pytest.raises(ValueError, match=words):
        kind(Grid(), **arguments)


# ---- Optuna --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("climb_score", [False, True])
@pytest.mark.parametrize("sampler", ["TPESampler", "GPSampler"])
def test_suggests_what_a_plain_study_with_the_same_history_does(sampler, climb_score):
    """Objectives, constraints and a failure, told at once; then again one by one."""
    space, limit = Grid(3, 3), 10.0
    agent = OptunaSampler(
        space,
        1,
        8,
        sampler,
        sees="limits" if climb_score else "objectives",
        objectives={"a": "max", "b": Objective("min", limit)},
        score_metric="a",
    )
    agent.begin_task(20, True)
    archs = space.sample(TrialRandom(1), 12)
    values = values_of(space, archs, 2)[0].tolist()
    evaluations = [Evaluation(a, {"b": b}) for a, b in values[:-1]] + [Evaluation.failed("broken")]
    agent.observe(proposals_of(archs), [evaluations], torch.zeros(1, 12))
    suggested = agent.ask()[0, 0].tolist()

    seed = TrialRandom(8).integers(2**31).item()
    made = getattr(optuna.samplers, sampler)(seed=seed)
    study = optuna.create_study(directions=["maximize"] if climb_score else ["maximize", "minimize"], sampler=made)
    parameters = {decision.name: CategoricalDistribution([0, 1, 2]) for decision in space.decisions}
    for arch, (a, b) in zip(archs[0].tolist()[:-1], values, strict=False):
        study.add_trial(
            create_trial(
                params=dict(zip(parameters, arch, strict=True)),
                distributions=parameters,
                values=[a] if climb_score else [a, b],
                system_attrs={"constraints": [(b - limit) / limit]},
            )
        )
    worst = [min(a for a, _ in values[:-1]), max(b for _, b in values[:-1])]
    study.add_trial(
        create_trial(
            params=dict(zip(parameters, archs[0, -1].tolist(), strict=True)),
            distributions=parameters,
            values=worst[:1] if climb_score else worst,
            system_attrs={"constraints": [max(1.0, (worst[1] - limit) / limit)]},
        )
    )
    trial = study.ask()
    assert [trial.suggest_categorical(name, [0, 1, 2]) for name in parameters] == suggested


def test_told_one_by_one_it_is_the_study_that_is_made_anew():
    """What the kept study knows is what a resumed agent builds: objectives, constraints, failures."""
    objectives = {"first": "max", "second": Objective("min", 0.0)}
    space, agents = Grid(), [OptunaSampler(Grid(), seed=5, sees="objectives", objectives=objectives) for _ in range(2)]
    asked = [[], []]
    for k, (which, agent) in itertools.product(range(20), enumerate(agents)):
        archs = agent.ask(1)
        asked[which].append(archs)
        (found,) = evaluations_of(space, archs, objectives)
        agent.observe(proposals_of(archs), [[Evaluation.failed("x")] if k % 7 == 3 else found], torch.zeros(1, 1))
        if which:
            agents[1] = OptunaSampler(Grid(), seed=77, sees="objectives", objectives=objectives)
            agents[1].load_state_dict(agent.state_dict())
    assert torch.equal(torch.cat(asked[0]), torch.cat(asked[1]))
