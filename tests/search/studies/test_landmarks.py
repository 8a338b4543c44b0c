"""Which landmarks are drawn: Algorithm 1 by what it must give, and files of landmarks."""

import itertools
from collections import Counter

import pytest
import torch
from scipy import stats
from torch import nn

from search.errors import CatchmarkError
from search.randomness import TrialRandom
from search.spaces.base import Decision, SearchSpace
from search.spaces.nasbench101 import NASBench101
from search.spaces.nasbench201 import NASBench201
from search.studies.landmarks import LandmarkChoice, read_landmarks
from tests.search.spaces.masked_space import MaskedSpace

SPACE = NASBench201()


class Coins(SearchSpace):
    """Eight architectures."""

    name = "coins"
    decisions = tuple(Decision(f"coin {k}", ("heads", "tails")) for k in range(3))

    def build(self, architecture, **head):
        return nn.Identity()


def random_landmarks(space, count, *seed):
    return list(itertools.islice(LandmarkChoice().draw(space, *seed), count))


def hamming_landmarks(space, count, tau, *seed):
    return list(itertools.islice(LandmarkChoice(how="hamming", tau=tau).draw(space, *seed), count))


def differing(a, b):
    return [t for t, (one, other) in enumerate(zip(a, b, strict=True)) if one != other]


@pytest.mark.parametrize("tau", range(6))
def test_every_landmark_stops_one_step_beyond_the_threshold(tau):
    # One decision changes at a time, so the distance that first exceeds tau is tau + 1 on a space without masks.
    for seed in range(3):
        root, *others = landmarks = hamming_landmarks(SPACE, 12, tau, seed)
        assert len(set(landmarks)) == 12
        assert [len(differing(root, each)) for each in others] == [tau + 1] * 11


@pytest.mark.parametrize("tau", [1, 2, 3])
def test_masked_spaces_give_valid_landmarks_beyond_the_threshold(tau):
    space = MaskedSpace()
    root, *others = hamming_landmarks(space, 15, tau, 4)
    for each in [root, *others]:
        assert space.check(each) == each
    assert min(len(differing(root, each)) for each in others) > tau


def test_nasbench101_landmarks_differ_in_more_than_the_threshold():
    space = NASBench101()
    root, *others = hamming_landmarks(space, 6, 8, 1)
    assert bool(space.is_valid(torch.tensor([root, *others])).all())
    assert min(len(differing(root, each)) for each in others) > 8


def test_the_first_mutant_is_a_uniform_neighbour_of_its_root():
    changes = Counter()
    for seed in range(800):
        root, other = hamming_landmarks(SPACE, 2, 0, seed)
        (place,) = differing(root, other)
        changes[place, (other[place] - root[place]) % 5] += 1
    assert len(changes) == 24  # six decisions, four other operations each
    assert stats.chisquare(list(changes.values())).pvalue > 1e-3


def test_which_decisions_change_is_uniform():
    changes = Counter(
        tuple(differing(*hamming_landmarks(SPACE, 2, 1, seed))) for seed in range(600)
    )  # two different places
    assert set(changes) == set(itertools.combinations(range(6), 2))
    assert stats.chisquare(list(changes.values())).pvalue > 1e-3


def test_a_threshold_that_no_architecture_exceeds_is_refused():
    with pytest.raises(ValueError, match="tau is 6, but no two architectures differ in more than 6 decisions"):
        hamming_landmarks(SPACE, 2, 6, 0)


def test_roots_are_uniform():
    first = Counter(hamming_landmarks(SPACE, 2, 0, seed)[0][2] for seed in range(600))
    assert stats.chisquare([first[k] for k in range(5)]).pvalue > 1e-3


@pytest.mark.parametrize("draw", [random_landmarks, lambda *a: hamming_landmarks(*a[:2], 2, *a[2:])])
def test_landmarks_are_a_pure_function_of_the_seed_and_different(draw):
    found = draw(SPACE, 40, 7, "random")
    torch.manual_seed(3)
    assert draw(SPACE, 40, 7, "random") == found and len(set(found)) == 40
    assert draw(SPACE, 40, 8, "random") != found and draw(SPACE, 40, 7, "other") != found


def test_more_landmarks_start_with_the_same_ones():
    assert random_landmarks(SPACE, 30, 1)[:10] == random_landmarks(SPACE, 10, 1)
    assert hamming_landmarks(SPACE, 30, 3, 1)[:10] == hamming_landmarks(SPACE, 10, 3, 1)


def test_a_space_that_is_too_small_gives_what_it_has():
    assert sorted(random_landmarks(Coins(), 9, 0)) == list(Coins().enumerate())
    assert len(hamming_landmarks(Coins(), 5, 0, 0)) == 4  # a root and its three neighbours


@pytest.mark.parametrize("choice", [LandmarkChoice(), LandmarkChoice(how="hamming", tau=3)])
def test_landmarks_are_of_different_networks_and_of_known_ones(choice):
    space = NASBench101()
    # By their decisions alone a seventh of the draws is the empty cell, over and over.
    everywhere = list(itertools.islice(choice.draw(space, 1), 25))
    assert len({space.canonical_of(each) for each in everywhere}) == 25
    known = space.canonical(space.sample(TrialRandom(3), 1500)[0]).unique(dim=0)
    found = list(itertools.islice(choice.draw(space, 1, known=known), 6))
    networks = {space.canonical_of(each) for each in found}
    assert len(networks) == 6 and networks <= set(map(tuple, known.tolist()))


@pytest.mark.parametrize("settings", [{"count": 1}, {"iterations": 0}, {"added": 0}, {"tau": -1}])
def test_a_choice_refuses_what_makes_no_sense(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name}( is)? {value}"):
        LandmarkChoice(**settings)


# ---- files -----------------------------------------------------------------------------------------------------------


def written(folder, *lines):
    path = folder / "landmarks.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_file_gives_architectures_and_worth(tmp_path):
    archs = random_landmarks(SPACE, 4, 0)
    rows = [f"{k / 10}, {SPACE.format(arch)} ,x" for k, arch in enumerate(archs)]
    path = written(tmp_path, "worth,architecture,remark", *rows)
    assert read_landmarks(path, SPACE) == (archs, [0.0, 0.1, 0.2, 0.3])
    assert read_landmarks(str(path), SPACE)[0] == archs


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CatchmarkError, match=r"landmarks.file: '.*nowhere.csv' can't be read \(No such file"):
        read_landmarks(tmp_path / "nowhere.csv", SPACE)


@pytest.mark.parametrize(
    "lines, number",
    [
        (["architecture,worth", "{0},1", "nonsense,2"], 3),
        (["architecture,worth", "{0},much", "{1},2"], 2),
        (["architecture,accuracy", "{0},1", "{1},2"], 2),
        (["architecture,worth", "{0}", "{1},2"], 2),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, lines, number):
    strings = [SPACE.format(arch) for arch in random_landmarks(SPACE, 2, 0)]
    path = written(tmp_path, *(line.format(*strings) for line in lines))
    with pytest.raises(CatchmarkError, match=f"line {number} of .*landmarks.csv' is not 'architecture,worth'"):
        read_landmarks(path, SPACE)


def test_one_landmark_is_too_few(tmp_path):
    path = written(tmp_path, "architecture,worth", f"{SPACE.format((0,) * 6)},1")
    with pytest.raises(CatchmarkError, match="has 1 landmarks, at least 2 are needed"):
        read_landmarks(path, SPACE)


@pytest.mark.parametrize("worth", ["nan", "inf"])
def test_a_worth_that_is_no_number_is_refused(tmp_path, worth):
    strings = [SPACE.format(arch) for arch in random_landmarks(SPACE, 3, 0)]
    path = written(tmp_path, "architecture,worth", f"{strings[0]},1", f"{strings[1]},2", f"{strings[2]},{worth}")
    with pytest.raises(CatchmarkError, match="line 4"):
        read_landmarks(path, SPACE)


def test_an_architecture_named_twice_is_refused(tmp_path):
    string = SPACE.format((3,) * 6)
    path = written(tmp_path, "architecture,worth", f"{string},1", f"{string},2")
    with pytest.raises(CatchmarkError, match="line 3"):
        read_landmarks(path, SPACE)


def test_a_file_that_is_not_text_is_refused_in_one_line(tmp_path):
    path = tmp_path / "landmarks.csv"
    path.write_bytes(b"\xff\xfe\x00\x81" * 8)
    with pytest.raises(CatchmarkError, match=r"landmarks\.csv' can't be read"):
        read_landmarks(path, SPACE)


def test_a_file_out_of_a_spreadsheet_is_read(tmp_path):
    archs = random_landmarks(SPACE, 2, 0)
    path = tmp_path / "landmarks.csv"
    rows = "\n".join(f"{SPACE.format(arch)},{k}" for k, arch in enumerate(archs))
    path.write_text(f"architecture,worth\n{rows}\n", encoding="utf-8-sig")
    assert read_landmarks(path, SPACE) == (archs, [0.0, 1.0])
