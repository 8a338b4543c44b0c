import pytest

from datamodules.digits import DigitsDataModule
from datamodules.frames import FramesDataModule
from lightning_modules.prednet import PredNetModule
from search.errors import RunError
from search.evaluation import Proposal
from search.spaces.depth_fusion import DepthFusion
from search.spaces.prednet import PredNetSpace
from search.tasks.hyperparameters import HyperparameterTask
from search.training.brain_similarity import HMSCallback

SPACE = PredNetSpace(
    layers=[2],
    channels=[4],
    filters=[3],
    epochs=[1, 3],
    batch_sizes=[2, 4],
    train_sequences=[4, 8],
    val_sequences=[2, 3],
    learning_rates=[0.01],
)
FIRST, LAST = (0,) * len(SPACE.sizes), tuple(size - 1 for size in SPACE.sizes)


def squares(**arguments):
    return FramesDataModule("moving_squares", length=3, val_step=1, **arguments)


def task(data=None, space=SPACE, **arguments):
    trainer = {"accelerator": "cpu", "check_val_every_n_epoch": 1}
    usual = {"score": "val_skill", "threads": 1, "trainer": trainer}
    return HyperparameterTask(space, data or squares(), PredNetModule, **(usual | arguments))


def test_an_architecture_decides_how_it_is_trained():
    data = squares()
    seen = []

    class Watched(FramesDataModule):
        def train_dataloader(self):
            seen.append((self.batch_size, self.train_sequences, self.val_sequences))
            return super().train_dataloader()

    data.__class__ = Watched
    asked = task(data)
    first, last = (asked.evaluate_one(Proposal(arch, 1)) for arch in (FIRST, LAST))
    assert (first.status, len(first.history), len(last.history)) == ("ok", 1, 3)
    assert seen == [(2, 4, 2), (4, 8, 3)] and data.batch_size == 4 and data.train_sequences is None
    assert {"val_mse", "val_previous_mse", "val_loss", "train_loss", "parameters"} <= set(first.metrics)
    assert first.score == pytest.approx(
        100 * (1 - first.metrics["val_mse"] / first.metrics["val_previous_mse"]), abs=1e-3
    )


def test_a_task_may_say_the_epochs_and_a_proposal_fewer():
    assert len(task(epochs=2).evaluate_one(Proposal(LAST, 1)).history) == 2
    assert len(task().evaluate_one(Proposal(LAST, 1, {"epochs": 2})).history) == 2
    assert task().epochs == 3  # what 'catchmark train' trains for
    with pytest.raises(ValueError, match="stages"):
        task(stages=["one"])


def test_what_another_metric_guides_is_another_score():
    hms = HMSCallback(stimuli="digits")
    guided = task(callbacks=[hms], score="val_hms", objectives={"val_hms": "max", "val_mse": "min"})
    found = guided.evaluate_one(Proposal(LAST, 1))
    assert found.score == found.history[-1]["val_hms"] and "val_skill" in found.metrics
    assert len({epoch["val_hms"] for epoch in found.history}) > 1
    again = guided.evaluate_one(Proposal(LAST, 1))
    assert (again.score, again.metrics) == (found.score, found.metrics)
    # Nobody who looks changes what is learned.
    alone = task().evaluate_one(Proposal(LAST, 1))
    assert {name: found.metrics[name] for name in alone.metrics} | {"val_skill": alone.score} == {
        **alone.metrics,
        "val_skill": found.metrics["val_skill"],
    }


def test_a_video_that_is_too_short_ends_the_run():
    short = task(FramesDataModule("moving_squares", length=40))
    with pytest.raises(RunError, match="data: moving_squares: of a video of 60 frames 12 are held out"):
        short.evaluate_one(Proposal(FIRST, 1))


def test_data_that_take_no_settings_end_the_run():
    with pytest.raises(RunError, match=r"data: .*DigitsDataModule.*with_settings"):
        task(DigitsDataModule()).evaluate_one(Proposal(FIRST, 1))


def test_other_spaces_are_trained_as_the_task_says():
    other = task(space=DepthFusion())
    assert other.epochs == 12 and other._as_said_by((0,)) is other
