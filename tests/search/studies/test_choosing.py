"""What a method returns: networks, not their names."""

import pytest

from search.spaces.nasbench101 import EDGES, NASBench101
from search.studies.choosing import choose_networks

SPACE = NASBench101()
EMPTY = next(arch for arch in SPACE.draw_distinct("x") if SPACE.canonical_of(arch)[: len(EDGES)].count(1) == 1)
NAMES = [(*EMPTY[: len(EDGES)], k, 0, 0, 0, 0) for k in range(3)]
"""One cell, whose vertices are on no path, under three names."""
OTHERS = [arch for arch, _ in zip(SPACE.draw_distinct("others", besides=[EMPTY]), range(6), strict=False)]


def chooser(listed):
    asked = []

    def choose(evaluate, count, seed):
        asked.append((count, seed))
        worth = evaluate(listed)
        return sorted(listed, key=lambda arch: -worth[listed.index(arch)])[:count]

    return choose, asked


def test_one_network_is_one_choice_and_more_are_asked_for():
    listed = [*NAMES, *OTHERS]
    choose, asked = chooser(listed)
    evaluated = []

    def evaluate(archs):
        evaluated.extend(archs)
        return [-float(listed.index(arch)) for arch in archs]

    assert choose_networks(SPACE, choose, evaluate, 3, 7) == [NAMES[0], *OTHERS[:2]]
    assert asked == [(3, 7), (12, 7)] and sorted(evaluated) == sorted(listed)  # each evaluated once


@pytest.mark.parametrize("count", [2, 3])
def test_what_is_not_wanted_or_of_no_use_makes_room_for_the_next(count):
    listed = [*NAMES, *OTHERS]
    choose, _ = chooser(listed)
    found = choose_networks(
        SPACE,
        choose,
        lambda archs: [-float(listed.index(arch)) for arch in archs],
        count,
        0,
        besides=[NAMES[2]],
        usable=lambda arch: arch not in OTHERS[1:3],
    )
    assert found == [OTHERS[0], *OTHERS[3:]][:count]


def test_a_method_with_less_to_offer_gives_what_it_has():
    choose, asked = chooser([*NAMES, OTHERS[0]])
    found = choose_networks(SPACE, choose, lambda archs: [1.0] * len(archs), 5, 0)
    assert len(found) == 2 and len(asked) == 1
