import pytest
import torch

from search.agents.local_search import LocalSearch

from .toy_spaces import Grid, Staircase, integer_reward


def neighbours_of(space, arch):
    """Every valid architecture one decision away, by comparing with the whole space."""
    return {other for other in space.enumerate() if sum(a != b for a, b in zip(arch, other, strict=True)) == 1}


def asked_one_by_one(agent, evaluations, reward):
    asked = []
    for _ in range(evaluations):
        archs = agent.ask()
        agent.tell(archs, reward(agent.space, archs))
        asked.append(archs)
    return [[tuple(arch) for arch in trial] for trial in torch.cat(asked, dim=1).tolist()]


@pytest.mark.parametrize("space", [Grid(4, 3), Staircase()], ids=lambda space: space.name)
def test_every_step_is_the_algorithm(space):
    """Each asked architecture against a plain retelling of the climb: an untried neighbour, while there is one."""
    for trial in asked_one_by_one(LocalSearch(space, trials=5), 70, integer_reward):
        top, top_value, seen, restarts = None, 0.0, set(), 0
        for arch in trial:
            if top is not None:
                untried = neighbours_of(space, top) - seen
                if untried:
                    assert arch in untried
                else:
                    top, restarts = None, restarts + 1
            seen.add(arch)
            value = integer_reward(space, torch.tensor(arch)).item()
            if top is None or value > top_value:
                top, top_value = arch, value
        assert restarts >= 1


def test_the_whole_neighbourhood_comes_before_a_restart():
    """On a plateau: the start, its 24 neighbours, each once, then something else."""
    space = Grid()
    for trial in asked_one_by_one(LocalSearch(space, trials=20), 26, lambda space, archs: torch.ones(archs.shape[:2])):
        assert set(trial[1:25]) == neighbours_of(space, trial[0])
        assert len(set(trial)) == 26


def test_the_order_of_neighbours_is_random():
    """The second architecture of a plateau search: each of the 24 neighbours about equally often."""
    space = Grid()
    agent = LocalSearch(space, trials=2400)
    start = agent.ask()
    agent.tell(start, torch.ones(2400, 1))
    step = (agent.ask() - start)[:, 0] % 5
    decision, change = step.argmax(-1), step.max(-1).values
    counts = torch.bincount(decision * 4 + change - 1, minlength=24)
    assert ((counts - 100).double() ** 2 / 100).sum() < 49.7  # the 0.1% tail of chi-square with 23 degrees of freedom


def test_reaches_the_optimum_of_a_separable_function():
    """Every move raises the rank of one decision's choice: at most 6 x 4 moves, each after at most 24 evaluations."""
    space = Grid()
    weights = torch.randperm(30, generator=torch.Generator().manual_seed(0)).double()

    def separable(space, archs):
        return space.one_hot(archs).double() @ weights

    best = weights.view(6, 5).max(dim=1).values.sum()
    for trial in asked_one_by_one(LocalSearch(space, trials=30), 1 + 24 * 24, separable):
        assert separable(space, torch.tensor(trial)).max() == best


@pytest.mark.parametrize("n", [1, 7])
def test_nothing_is_evaluated_twice_while_most_of_the_space_is_new(n):
    space = Grid(3, 5)
    agent = LocalSearch(space, trials=10)
    asked = []
    for _ in range(56 // n):
        archs = agent.ask(n)
        agent.tell(archs, integer_reward(space, archs))
        asked.append(archs)
    codes = space.code(torch.cat(asked, dim=1))
    assert all(len(set(trial)) == 56 for trial in codes.tolist())


def test_a_space_smaller_than_the_budget_is_no_obstacle():
    space = Grid(2, 2)
    for trial in asked_one_by_one(LocalSearch(space, trials=4), 12, integer_reward):
        assert set(trial) == set(space.enumerate())


def test_a_batch_moves_to_its_best():
    space = Grid()
    agent = LocalSearch(space, trials=8)
    archs = agent.ask(6)
    rewards = integer_reward(space, archs)
    agent.tell(archs, rewards)
    top = archs[torch.arange(8), rewards.argmax(1)]
    assert (space.distance(agent.ask(18), top[:, None]) == 1).all()


def test_climbs_from_a_better_architecture_that_it_is_told():
    space = Grid()
    agent = LocalSearch(space, trials=2)
    agent.tell(agent.ask(), torch.zeros(2, 1))
    gift = torch.tensor([[[1, 2, 3, 4, 0, 1]]]).expand(2, 1, 6)
    agent.tell(gift, torch.ones(2, 1))
    assert (space.distance(agent.ask(22), gift) == 1).all()


def test_memory_grows_by_one_architecture_an_evaluation():
    agent = LocalSearch(Grid(), trials=2)
    asked_one_by_one(agent, 40, integer_reward)
    assert agent.state_dict()["seen"].shape == (2, 40, 6)


def test_refuses_no_tries():
    with pytest.raises(ValueError, match="start_tries is 0"):
        LocalSearch(Grid(), start_tries=0)
