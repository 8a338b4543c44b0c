"""``catchmark predict``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from search.commands import add_trust
from search.errors import CatchmarkError

HELP = "Ask a trained network about pictures: their class, what is where, or what every pixel shows."
MORE = (
    "The network must have been trained with 'catchmark train'. Pictures are made ready as its validation images were. "
    "A picture that can't be read is told of, the others are answered, and the exit code is 1."
)
EXAMPLE = "catchmark predict runs/quickstart/latest photos/ --out answers --format csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which network, and which pictures."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder, or that of a trained network")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="picture files, and folders of these")
    parser.add_argument("--target", metavar="NAME", help="which of the trained networks, where there are several")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="draw pictures and write the table there; default: the table alone is printed",
    )
    parser.add_argument("--format", choices=("json", "csv"), default="json", help="of the table (default: %(default)s)")
    parser.add_argument(
        "--threshold", type=float, default=0.3, metavar="P", help="the lowest score of a box (default: %(default)s)"
    )
    add_trust(parser)


def run(chosen: argparse.Namespace) -> int:
    """Ask and tell."""
    if not 0 <= chosen.threshold <= 1:
        raise CatchmarkError(f"--threshold is {chosen.threshold}, a score from 0 to 1 is needed")
    from search.deploy.predict import load_predictor
    from search.deploy.predictions import picture_files, predict_files

    files = picture_files(chosen.images)
    predictor = load_predictor(chosen.folder, chosen.target, chosen.trust, chosen.threshold)
    text, failed = predict_files(predictor, files, chosen.out, chosen.format, _complain)
    if chosen.out is None:
        print(text, end="")
    else:
        print(f"{len(files) - failed} pictures: {chosen.out / f'predictions.{chosen.format}'}")
    return 1 if failed else 0


def _complain(line: str) -> None:
    print(f"catchmark: {line}", file=sys.stderr, flush=True)
