"""FairNAS' paths: how often each choice is trained, step by step."""

from collections import Counter

import torch
from scipy import stats

from lightning_modules.path_samplers.fair import FairSampler
from search.contracts.toy_spaces import MaskedSpace
from search.spaces.base import Decision, SearchSpace
from search.spaces.nasbench201 import NASBench201


class Uneven(SearchSpace):
    """Decisions of five, two and three choices; it has no networks."""

    name = "uneven"
    decisions = tuple(Decision(f"d{size}", tuple(map(str, range(size)))) for size in (5, 2, 3))

    def build(self, architecture, head=None):
        raise NotImplementedError


def test_every_step_trains_each_choice_of_every_decision_once():
    sampler = FairSampler(NASBench201())
    seen = Counter()
    for step in range(400):
        choices = torch.tensor([path.choices for path in sampler.paths(3, step)])
        assert choices.shape == (5, 6) and torch.equal(choices.sort(0).values, torch.arange(5)[:, None].expand(5, 6))
        seen.update(map(tuple, choices[:, :2].tolist()))
    # Of two decisions each of 25 pairs comes as often as any other.
    assert len(seen) == 25 and stats.chisquare(list(seen.values())).pvalue > 1e-3


def test_choices_of_a_smaller_decision_differ_by_at_most_one():
    for step in range(60):
        columns = torch.tensor([path.choices for path in FairSampler(Uneven()).paths(0, step)]).T.tolist()
        counts = [sorted(Counter(column).values()) for column in columns]
        assert counts == [[1] * 5, [2, 3], [1, 2, 2]]


def test_where_choices_exclude_others_paths_are_valid_and_as_even_as_can_be():
    space = MaskedSpace()
    sampler = FairSampler(space)
    paths = torch.tensor([path.choices for step in range(300) for path in sampler.paths(1, step)])
    assert space.is_valid(paths).all()
    reached = {(t, choice) for path in paths.tolist() for t, choice in enumerate(path)}
    assert reached == {(t, choice) for arch in space.enumerate() for t, choice in enumerate(arch)}
    # What comes first excludes nothing: five paths a step share its three choices.
    for step in range(300):
        assert sorted(Counter(paths[5 * step : 5 * step + 5, 0].tolist()).values()) == [1, 2, 2]


def test_steps_and_seeds_differ():
    sampler = FairSampler(NASBench201())
    assert sampler.paths(2, 9) == FairSampler(NASBench201()).paths(2, 9)
    assert sampler.paths(2, 9) != sampler.paths(2, 10) and sampler.paths(2, 9) != sampler.paths(3, 9)
