"""Cells that compute the same, told by their strings and by running them."""

import itertools
from collections import defaultdict

import pytest
import torch

from search.spaces.cell_equivalence import computed
from search.spaces.nasbench201 import OPERATION_NAMES, NASBench201

SPACE = NASBench201()
N, S, A, B, _ = OPERATION_NAMES


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((N, N, N, B, N, N), (A, N, N, B, N, N), True),  # node 1 goes nowhere
        ((S, N, B, N, N, S), (N, N, N, B, N, N), True),  # passed on twice
        ((A, B, N, N, S, S), (B, A, N, N, S, S), True),  # a sum in another order
        ((A, B, N, N, S, S), (A, N, N, B, S, N), True),
        ((A, A, N, N, S, S), (A, N, S, N, S, S), False),  # two convolutions, and one twice
        ((A, N, B, N, N, S), (B, N, A, N, N, S), False),
        ((N, N, N, N, N, N), (B, N, N, N, N, N), True),
    ],
)
def test_cells_by_hand(one, other, same):
    assert (computed(one) == computed(other)) == same


def test_representatives_are_the_first_of_their_class_and_stay():
    archs = torch.cartesian_prod(*(torch.arange(5),) * 6)
    found = SPACE.representative(archs)
    assert torch.equal(SPACE.representative(found), found)
    assert (SPACE.code(found) <= SPACE.code(archs)).all()
    assert len(found.unique(dim=0)) == 5482
    assert torch.equal(SPACE.representative(archs.reshape(25, 625, 6)), found.reshape(25, 625, 6))


def test_cells_of_a_class_give_the_same_features():
    """A node as a sum of words, the operations on the way to it, each with the number of its edge."""

    def run(choices, numbers):
        names, values, edge = [OPERATION_NAMES[c] for c in choices], [{(): 1}], 0
        for _ in range(3):
            total = defaultdict(int)
            for source, value in enumerate(values):
                name = names[edge + source]
                step = () if name == S else ((name, numbers[edge + source]),)
                for word, count in value.items() if name != N else ():
                    total[word + step] += count
            edge += len(values)
            values.append(dict(total))
        return values[-1]

    classes = defaultdict(list)
    for choices in itertools.islice(SPACE.enumerate(), 0, None, 7):
        classes[computed([OPERATION_NAMES[c] for c in choices])].append(choices)
    several = [cells for cells in classes.values() if len(cells) > 1]
    assert len(several) > 100
    for cells in several[:100]:
        first = run(cells[0], range(6))
        for other in cells[1:]:
            # Some numbering of its edges makes the other cell compute the very same sum of words.
            assert any(run(other, numbers) == first for numbers in itertools.permutations(range(6)))
