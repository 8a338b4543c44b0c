import math

import pytest
import torch

from lightning_modules.learning_rate_schedule import LearningRateSchedule
from lightning_modules.openmmlab import prepare
from lightning_modules.supernet_settings import SupernetSettings


def rates(schedule, learning_rate, iterations, epochs=None):
    factor = schedule.factor(learning_rate, iterations, epochs)
    return [learning_rate * factor(iteration) for iteration in range(iterations)]


def rates_of_mmengine(learning_rate, iterations, *configs):
    prepare()
    from mmengine.optim import scheduler as library

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=learning_rate)
    schedulers = [getattr(library, kind)(optimizer, by_epoch=False, **config) for kind, config in configs]
    seen = []
    for _ in range(iterations):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for each in schedulers:
            each.step()
    return seen


def test_steps_with_warm_up_are_those_of_mmdets_schedule_of_12_epochs():
    expected = rates_of_mmengine(
        0.02,
        120,
        ("LinearLR", {"start_factor": 0.001, "begin": 0, "end": 50}),
        ("MultiStepLR", {"begin": 0, "end": 120, "milestones": [80, 110], "gamma": 0.1}),
    )
    assert rates(LearningRateSchedule(warmup=50), 0.02, 120) == pytest.approx(expected)
    assert rates(LearningRateSchedule(warmup=50, milestones=(8, 11)), 0.02, 120, epochs=12) == pytest.approx(expected)
    assert rates(LearningRateSchedule(warmup=50 / 120), 0.02, 120) == pytest.approx(expected)
    assert expected[0] == pytest.approx(2e-5) and expected[119] == pytest.approx(2e-4)


def test_poly_is_that_of_mmseg():
    config = {"power": 0.9, "eta_min": 1e-4, "begin": 0, "end": 101}
    expected = rates_of_mmengine(0.01, 100, ("PolyLR", config))
    assert rates(LearningRateSchedule("poly", minimum=1e-4), 0.01, 100) == pytest.approx(expected)


def test_cosine_ends_at_its_minimum():
    seen = rates(LearningRateSchedule("cosine", minimum=0.001), 0.1, 1000)
    assert seen[0] == 0.1 and seen[500] == pytest.approx(0.0505) and seen[999] == pytest.approx(0.001, abs=1e-5)
    assert seen[250] == pytest.approx(0.001 + 0.099 * 0.5 * (1 + math.cos(math.pi / 4)))


def test_one_iteration_of_warm_up_is_none():
    assert rates(LearningRateSchedule("constant", warmup=1), 0.1, 3) == rates(LearningRateSchedule("constant"), 0.1, 3)


def test_a_rise_before_the_shape_leaves_it_whole():
    schedule = LearningRateSchedule("cosine", warmup=3, climb="before")
    seen = rates(schedule, 1.0, 11)
    assert seen[:4] == [0.25, 0.5, 0.75, 1.0]
    assert seen[3:] == rates(LearningRateSchedule("cosine", climb="before"), 1.0, 8)


def test_falls_at_equal_distances_need_no_end_of_the_run():
    factor = LearningRateSchedule("steps", every=3, gamma=0.5).factor(0.1, math.inf)
    assert [factor(epoch) for epoch in range(8)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"shape": "step"}, "shape is 'step', allowed: steps, cosine"),
        ({"climb": "after"}, "climb is 'after', allowed: below, before"),
        ({"warmup": -1}, "cannot be negative"),
        ({"milestones": (-0.5,)}, "cannot be negative"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LearningRateSchedule(**settings)


def test_what_the_run_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="warmup of 500 iterations is longer than the run of 20"):
        LearningRateSchedule(warmup=500).factor(0.1, 20, None)
    with pytest.raises(ValueError, match="milestones in epochs need max_epochs"):
        LearningRateSchedule(milestones=(8, 11)).factor(0.1, 20, None)


def test_a_cosine_that_falls_and_rises_again_is_torchs():
    """NAS-Bench-201's ENAS: a cosine of 10 epochs in a training of 250."""
    settings = SupernetSettings(epochs=45, learning_rate=0.05, final_learning_rate=0.0005, falls_in=10, nesterov=True)
    optimizer = settings.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert optimizer.param_groups[0]["nesterov"] and optimizer.param_groups[0]["momentum"] == 0.9
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, 0.0005)
    seen = []
    for _ in range(45):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert [settings.learning_rate_at(epoch) for epoch in range(45)] == pytest.approx(seen, rel=1e-6)


@pytest.mark.parametrize("wrong", [{"falls_in": -1}, {"nesterov": True, "momentum": 0.0}])
def test_settings_of_weights_refuse_what_makes_no_sense(wrong):
    with pytest.raises(ValueError, match="falls_in"):
        SupernetSettings(**wrong)
