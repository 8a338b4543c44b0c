"""What human-model similarity is worth: known values, a PredNet that learns, and studies read from their runs.

    python experiments/benchmarks/hms.py golden
    python experiments/benchmarks/hms.py prednet [--channels 3 8 16] [--steps 600] [--seeds 1]
    python experiments/benchmarks/hms.py study RUN --score val_skill [--patience 1 2 3]

``golden`` compares matrices that others published with human IT, and says how far people agree. ``prednet`` trains on
random crops of the first 80 frames of the road clip and predicts the last 21 in full, beside the previous frame.
``study`` reads a finished run of ``experiments/hms``: how far HMS orders networks as their score does, and what
stopping trainings by it costs and saves beside stopping by the validation loss. Real data are looked for in
$CATCHMARK_DATA.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from datamodules.archives import find_archive
from datamodules.stimuli import HUMAN_IT, load_stimuli
from lightning_modules.similarity import (
    bootstrap_interval,
    check_matrix,
    dissimilarity,
    noise_ceiling,
    spearman,
    upper_triangle,
)
from search.results.metrics import correlate_metrics
from search.runs.folders import JOURNAL
from search.runs.journal import Journal, Record
from search.statistics.early_stopping import stop_early
from search.statistics.intervals import mean_interval
from search.statistics.spearman import spearman_interval

HELD_OUT, LENGTH = 21, 10


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("golden")
    trained = commands.add_parser("prednet")
    trained.add_argument("--channels", type=int, nargs="+", default=[3, 8, 16])
    trained.add_argument("--steps", type=int, default=600)
    trained.add_argument("--crop", type=int, nargs=2, default=[32, 40])
    trained.add_argument("--batch", type=int, default=4)
    trained.add_argument("--learning-rate", type=float, default=3e-3)
    trained.add_argument("--seeds", type=int, nargs="+", default=[1])
    study = commands.add_parser("study")
    study.add_argument("run", type=Path)
    study.add_argument("--score", required=True)
    study.add_argument("--patience", type=int, nargs="+", default=[1, 2, 3])
    chosen = parser.parse_args()
    if chosen.command == "golden":
        golden()
    elif chosen.command == "prednet":
        for seed in chosen.seeds:
            prednet(chosen, seed)
    else:
        report(chosen.run, chosen.score, chosen.patience)


def golden() -> None:
    """Print how far known matrices, pixels and other people agree with human IT."""
    stimuli = load_stimuli()
    average = upper_triangle(stimuli.reference)
    archive = find_archive(HUMAN_IT, "no stimuli", "set CATCHMARK_DATA")
    with np.load(archive, allow_pickle=False) as arrays:
        named = {name: arrays[name] for name in ("human_it_average", "human_it_published", "monkey_it_published")}
        named |= dict(zip(map(str, arrays["model_names"]), arrays["model_rdms"], strict=True))
        named["behaviour"] = arrays["behaviour"].mean(0)
    matrices = {name: check_matrix(torch.from_numpy(each), 92, name) for name, each in named.items()}
    pixels = torch.from_numpy(stimuli.images).float()
    matrices |= {"pixels, RGB": dissimilarity(pixels), "pixels, grey": dissimilarity(pixels.mean(-1))}
    for name, matrix in matrices.items():
        low, high = bootstrap_interval(matrix, stimuli.reference, draws=500)
        print(f"{name:24} {spearman(upper_triangle(matrix), average):.4f}  95% over stimuli [{low:.3f}, {high:.3f}]")
    assert stimuli.subjects is not None
    low, high = noise_ceiling(stimuli.subjects)
    print(f"noise ceiling: a subject with the mean of the others {low:.4f}, with the mean of all {high:.4f}")


def prednet(chosen: argparse.Namespace, seed: int) -> None:
    """Train one PredNet and print its error on the held-out frames."""
    from pytorch_lightning import Trainer

    from datamodules.frames import FramesDataModule
    from lightning_modules.networks.prednet import PredNet
    from lightning_modules.prednet import PredNetModule
    from search.training.brain_similarity import HMSCallback
    from search.training.isolation import quiet_lightning

    clip = {"frames": "road_clip.npz", "length": LENGTH, "held_out": HELD_OUT, "batch_size": chosen.batch, "seed": seed}
    epochs, sequences = 10, chosen.batch * -(-chosen.steps // 10)
    crops = FramesDataModule(**clip, crop=chosen.crop, train_sequences=sequences)
    whole = FramesDataModule(**clip, val_step=1)
    torch.manual_seed(seed)
    module = PredNetModule(PredNet(chosen.channels), chosen.learning_rate)
    with quiet_lightning():
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[HMSCallback()],
        )
        began = time.process_time(), time.perf_counter()
        trainer.fit(module, datamodule=crops)
        took = time.process_time() - began[0], time.perf_counter() - began[1]
        (found,) = trainer.validate(module, datamodule=whole, verbose=False)
    count = sum(each.numel() for each in module.parameters())
    print(
        f"seed {seed}: channels {chosen.channels}, {count:,} parameters, {chosen.steps} steps of {chosen.batch} crops "
        f"of {chosen.crop}, {took[0]:.0f} s of processor time ({took[1]:.0f} s)\n"
        f"  held-out frames in full: MSE {found['val_mse']:.6f}, previous frame {found['val_previous_mse']:.6f}, "
        f"skill {found['val_skill']:.1f} %, HMS {found['val_hms']:.3f}"
    )


def report(run: Path, score: str, patiences: Sequence[int]) -> None:
    """Print what a run says of HMS."""
    journal = Journal(run / JOURNAL, writable=False)
    records = [
        each for search in journal.searches() for each in journal.records(search) if each.evaluation.status == "ok"
    ]
    print(f"{len(records)} networks trained; rank correlations with the score, 95% over networks")
    for each in correlate_metrics(records):
        print(f"  {each.name:22} {each.correlation:6.2f} [{each.interval[0]:.2f}, {each.interval[1]:.2f}]")
    curves = {name: _curves(records, name) for name in (score, "val_hms", "val_loss")}
    last = curves[score][:, -1]
    epochs = curves[score].shape[1]
    print("rank correlation with the last score, by epoch")
    for epoch in sorted({1, 2, epochs // 4, epochs // 2, epochs}):
        parts = []
        for name, sign in (("val_hms", 1), ("val_loss", -1)):
            value, low, high = spearman_interval(sign * curves[name][:, epoch - 1], last)
            parts.append(f"{'-' if sign < 0 else ''}{name} {value:5.2f} [{low:.2f}, {high:.2f}]")
        print(f"  after {epoch:3}: {'   '.join(parts)}")
    changes = [spearman_interval(range(epochs), curve)[0] for curve in curves["val_hms"]]
    moved = curves["val_hms"][:, -1] - curves["val_hms"][:, 0]
    print(f"HMS over a training: from its first to its last epoch {_mean(moved)}; ", end="")
    with_score = [spearman_interval(a, b)[0] for a, b in zip(curves["val_hms"], curves[score], strict=True)]
    print(f"rank correlation with the epoch {_mean(np.array(changes))}, with the score {_mean(np.array(with_score))}")
    chosen = int(curves["val_hms"][:, -1].argmax())
    ranked = int((last > last[chosen]).sum()) + 1
    print(
        f"the network of the highest HMS: score {last[chosen]:.2f}, rank {ranked} of {len(last)}, best {last.max():.2f}"
    )
    _stopping(curves, score, epochs, patiences)


def _stopping(curves: dict[str, np.ndarray], score: str, epochs: int, patiences: Sequence[int]) -> None:
    print(
        f"stopping early, of {epochs} epochs; score lost to the best epoch of each training, means with 95% intervals"
    )
    for patience in patiences:
        found = {}
        for name, direction in (("val_hms", "max"), ("val_loss", "min")):
            stops = [stop_early(list(curve), patience, direction) for curve in curves[name]]
            kept = np.array([curve[stop.kept - 1] for curve, stop in zip(curves[score], stops, strict=True)])
            found[name] = np.array([stop.epochs for stop in stops], dtype=float), curves[score].max(1) - kept
            spent, lost = found[name]
            middle = f"median {np.median(lost):.2f}"
            print(f"  patience {patience} by {name:9} epochs {_mean(spent)}, lost {_mean(lost)}, {middle}")
        (spent, lost), (loss_spent, loss_lost) = found["val_hms"], found["val_loss"]
        print(f"             difference    epochs {_mean(spent - loss_spent)}, lost {_mean(lost - loss_lost)}")


def _curves(records: Sequence[Record], name: str) -> np.ndarray:
    """A metric of each network after each epoch: float64 ``[networks, epochs]``."""
    return np.array([[epoch[name] for epoch in record.evaluation.history] for record in records])


def _mean(values: np.ndarray) -> str:
    values = values[~np.isnan(values)]
    low, high = mean_interval(values) or (float("nan"),) * 2
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
