"""Rankings by landmarks alone, on a benchmark's table."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm, rankdata
from sklearn.linear_model import Ridge

from search.agents.predictor.gaussian_process import GaussianProcess
from search.attributes.table_column import TableColumn
from search.randomness import TrialRandom
from search.results.landmark_references import (
    FOREST,
    PROCESS,
    RIDGE,
    WITH_ATTRIBUTES,
    landmark_predictions,
    operation_counts,
    ranks_together,
)
from search.spaces.nasbench101 import EDGES, NASBench101
from search.spaces.nasbench201 import NASBench201
from search.spaces.nasbench_macro import NASBenchMacro
from search.statistics.rank_correlation import kendall_tau
from search.tasks.table import TableTask

SPACE = NASBench201()


def test_choices_are_counted_over_decisions_that_offer_the_same():
    assert operation_counts(SPACE, [(0, 1, 1, 3, 3, 3), (2, 2, 2, 2, 2, 2)]).tolist() == [
        [1, 2, 0, 3, 0],
        [0, 0, 6, 0, 0],
    ]
    cell = (1,) * 7 + (0,) * (len(EDGES) - 7) + (0, 0, 2, 1, 0)
    assert operation_counts(NASBench101(), [cell]).tolist() == [[14, 7, 3, 1, 1]]  # edges, then operations


def test_ranks_together_are_sums_of_normal_quantiles():
    """Ties stand in the middle, and what has no value stands last."""
    columns = [np.array([3.0, 1.0, 1.0, 7.0]), np.array([-math.inf, 5.0, 2.0, 9.0])]
    expected = norm.ppf((rankdata(columns[0]) - 0.5) / 4) + norm.ppf((rankdata(columns[1]) - 0.5) / 4)
    np.testing.assert_allclose(ranks_together(columns), expected)
    assert ranks_together([np.array([math.nan, 0.0])]).argmin() == 0


@pytest.fixture(scope="module")
def known():
    """50 landmarks and 250 others of NAS-Bench-201, and their accuracies."""
    archs = list({tuple(each) for each in SPACE.sample(TrialRandom(2), 460)[0].tolist()})
    task = TableTask(SPACE, "nasbench201.npz", "cifar10", "test", "acc", 200)
    worth = task.scores(torch.tensor(archs)).tolist()
    return archs[:50], worth[:50], archs[50:300], worth[50:300]


def test_the_process_that_knows_cells_is_the_strongest_then_the_ridge(known):
    landmarks, worth, asked, truth = known
    tau = {
        name: kendall_tau(truth, each) for name, each in landmark_predictions(SPACE, landmarks, worth, asked).items()
    }
    assert tau[PROCESS] > tau[RIDGE] > tau[FOREST] > 0.3 and tau[RIDGE] > 0.5


def test_attributes_are_further_columns(known):
    """A model that sees FLOPs ranks better, and one that sees the truth itself nearly as the truth does."""
    landmarks, worth, asked, truth = known
    flops = TableColumn(SPACE, "nasbench201.npz", "flops_m")
    itself = TableColumn(SPACE, "nasbench201.npz", "cifar10_test_acc_200ep")
    taus = {}
    for said, attributes in (("flops", [flops]), ("itself", [itself]), ("nothing", [])):
        found = landmark_predictions(SPACE, landmarks, worth, asked, attributes)
        models = {FOREST, RIDGE, PROCESS}
        assert set(found) == models | ({name + WITH_ATTRIBUTES for name in models} if attributes else set())
        taus[said] = {name: kendall_tau(truth, each) for name, each in found.items()}
    for name in models:
        assert taus["flops"][name] == taus["itself"][name] == taus["nothing"][name]
        assert taus["itself"][name + WITH_ATTRIBUTES] > max(0.85, taus["flops"][name + WITH_ATTRIBUTES])
    assert taus["flops"][FOREST + WITH_ATTRIBUTES] > taus["nothing"][FOREST]


def test_the_process_is_the_posterior_mean_of_its_own_kernel(known, monkeypatch):
    """Its kernel is taken as it was fitted; the mean is computed again by solving the system."""
    fitted = []
    fit = GaussianProcess.fit

    def remembered(self, examples):
        model = fit(self, examples)
        fitted.append((model.kernel, examples))
        return model

    monkeypatch.setattr(GaussianProcess, "fit", remembered)
    landmarks, worth, asked, _ = known
    found = landmark_predictions(SPACE, landmarks, worth, asked[:20])[PROCESS]
    kernel, examples = fitted[0]
    assert examples.targets[0].numpy() == pytest.approx(norm.ppf((rankdata(worth) - 0.5) / 50))
    # Equal cells have equal codes: with everything asked about a landmark itself, it says nearly its worth.
    again = landmark_predictions(SPACE, landmarks, worth, landmarks)[PROCESS]
    kernel, examples = fitted[1]
    codes = examples.features.double()
    none = torch.zeros(1, 50, dtype=torch.float64)
    between = kernel.covariance(codes, none, codes, none)[0].numpy()
    noisy = between + float(kernel.noise()) * np.eye(50)
    expected = between @ np.linalg.solve(noisy, examples.targets[0].numpy())
    assert again == pytest.approx(expected, abs=1e-3) and np.isfinite(found).all()


def test_a_process_reads_spaces_whose_networks_are_no_cells():
    space = NASBenchMacro()
    archs = [space.draw("process", k) for k in range(40)]
    worth = [float(sum(arch)) for arch in archs]
    found = landmark_predictions(space, archs[:20], worth[:20], archs[20:])[PROCESS]
    assert kendall_tau(worth[20:], found) > 0.6


def test_an_attribute_without_a_value_stands_in_the_middle(known):
    class Sometimes(TableColumn):
        def measure(self, architectures):
            return [
                math.nan if each[0] == 0 else value
                for each, value in zip(architectures, super().measure(architectures), strict=True)
            ]

    landmarks, worth, asked, truth = known
    attribute = Sometimes(SPACE, "nasbench201.npz", "flops_m")
    found = landmark_predictions(SPACE, landmarks, worth, asked, [attribute])[RIDGE + WITH_ATTRIBUTES]
    assert np.isfinite(found).all() and kendall_tau(truth, found) > 0.4


def test_the_ridge_is_fitted_to_normal_quantiles(known):
    landmarks, worth, asked, _ = known
    found = landmark_predictions(SPACE, landmarks, worth, asked)[RIDGE]
    targets = norm.ppf((rankdata(worth) - 0.5) / 50)

    def features(archs):
        code = np.eye(5)[np.array(archs)]
        return np.concatenate([code.reshape(len(archs), -1), code.sum(1)], 1)

    # One of the penalties that are tried gives just this.
    fits = [Ridge(alpha).fit(features(landmarks), targets).predict(features(asked)) for alpha in np.logspace(-2, 3, 16)]
    assert min(np.abs(fit - found).max() for fit in fits) < 1e-6
    # A monotone change of the worth changes nothing.
    changed = landmark_predictions(SPACE, landmarks, np.exp(np.array(worth) / 10), asked)
    for name, each in landmark_predictions(SPACE, landmarks, worth, asked).items():
        assert changed[name] == pytest.approx(each)
