"""``catchmark export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from search.commands import add_trust
from search.errors import CatchmarkError

HELP = "Write a trained network as a file for other programs, and check what was written."
MORE = "The network must have been trained with 'catchmark train'."
EXAMPLE = "catchmark export runs/quickstart/latest --format onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which network, and as what."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder, or that of a trained network")
    parser.add_argument("--target", metavar="NAME", help="which of the trained networks, where there are several")
    parser.add_argument(
        "--format",
        choices=("onnx", "torch", "safetensors"),
        default="onnx",
        help="ONNX, torch.export's .pt2, or a folder for the Hugging Face Hub (default: %(default)s)",
    )
    parser.add_argument(
        "--part",
        choices=("network", "backbone", "pyramid"),
        help="default: the network where it classifies, else its backbone, under a neck that was searched, with an "
        "output for each feature map",
    )
    parser.add_argument("--out", type=Path, metavar="PATH", help="default: beside the weights")
    parser.add_argument("--resolution", type=int, metavar="N", help="of the images; default: as in training")
    parser.add_argument("--batch", default="dynamic", metavar="N", help="images a pass, or 'dynamic' (the default)")
    parser.add_argument(
        "--with-preprocessing",
        nargs="?",
        const="nhwc",
        choices=("nhwc", "nchw"),
        help="the file takes sized pictures, uint8, and normalises them itself: batch, height, width, channels (nhwc, "
        "the default), or batch, channels, height, width",
    )
    add_trust(parser)


def run(chosen: argparse.Namespace) -> int:
    """Write the file."""
    if chosen.batch != "dynamic" and not chosen.batch.isdecimal():
        raise CatchmarkError(f"--batch is '{chosen.batch}', a number of images is needed, or dynamic")
    if chosen.format == "safetensors":
        return _write_hub(chosen)
    from search.deploy.export import export_network, in_words

    exported = export_network(
        chosen.folder,
        target=chosen.target,
        form=chosen.format,
        part=chosen.part,
        out=chosen.out,
        resolution=chosen.resolution,
        batch="dynamic" if chosen.batch == "dynamic" else int(chosen.batch),
        trust=chosen.trust,
        with_preprocessing=chosen.with_preprocessing,
    )
    print(in_words(exported))
    return 0


def _write_hub(chosen: argparse.Namespace) -> int:
    """Write the folder for the hub, which holds the weights of the whole network and no program."""
    given = {"part": chosen.part, "resolution": chosen.resolution, "with-preprocessing": chosen.with_preprocessing}
    given["batch"] = None if chosen.batch == "dynamic" else chosen.batch
    if unused := [key for key, value in given.items() if value is not None]:
        raise CatchmarkError(f"--{unused[0]}: --format safetensors writes weights, which it has nothing to do with")
    from search.deploy.hub import export_hub

    path = export_hub(chosen.folder, chosen.target, chosen.out, chosen.trust)
    print(f"{path}: checked: the same weights are read back\nload:   search.deploy.hub.load_hub({str(path)!r})")
    print(f"upload: huggingface-cli upload NAME/OF_REPOSITORY {path}")
    return 0
