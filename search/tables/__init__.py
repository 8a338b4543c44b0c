"""Benchmark tables: their format, those that ship, and the converters that make them, and images, from published files.

Light enough for a command line to import: a converter's code is loaded when it runs.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from search.errors import CatchmarkError, one_line

SHIPPED_FOLDER = Path(__file__).parent / "shipped"
"""Where the tables are that ship; its README says for each what it holds, whose it is, and under which licence."""
SHIPPED = {
    "nasbench201.npz": "NAS-Bench-201: accuracies on three data sets and sizes of 15,625 cells.",
    "nasbench201_latency.npz": "Latencies of NAS-Bench-201's cells on 27 devices.",
    "nasbench201_proxies.npz": "Zero-cost proxies of NAS-Bench-201's cells, on networks of one cell a stage.",
    "transnasbench101.npz": "TransNAS-Bench-101, micro space: seven vision tasks, 4,096 cells.",
    "transnasbench101_proxies.npz": "Zero-cost proxies of TransNAS-Bench-101's cells, on networks of 16 channels.",
    "nasbench101.npz": "A sample of NAS-Bench-101: validation accuracies at four lengths of training, 30,001 cells.",
    "nasbench_macro.npz": "NAS-Bench-Macro: accuracies on CIFAR-10 and sizes of 6,561 networks.",
    "fbnet_operator_latency.npz": "Latencies of FBNet's operators, layer by layer, on 27 devices.",
}
"""What each of them holds, by file name."""


@dataclass(frozen=True)
class Option:
    """A number or a word that a converter can be told.

    Attributes:
        name: what the command line and the function call it.
        help: one line about it.
        default: where it is not said; None where that has a meaning of its own.
        type: of its value, ``int`` or ``str``.
    """

    name: str
    help: str
    default: int | str | None
    type: type = int


@dataclass(frozen=True)
class Converter:
    """How ``catchmark data NAME`` makes a table, or a file of images.

    Attributes:
        name: what the command line calls it.
        help: one line about it.
        example: a command line that uses it.
        source_help: one line about what it is made from.
        function: ``module:function``, called with ``source``, ``out`` and the options by name.
        source_required: False where the source can be found without being named.
        options: what else it can be told.
        makes: what comes out, in a word.
    """

    name: str
    help: str
    example: str
    source_help: str
    function: str
    source_required: bool = True
    options: tuple[Option, ...] = ()
    makes: str = "table"

    def convert(self, source: Path | None, out: Path, **options: int | str | None) -> Path:
        """Make the table, or the file of images.

        Args:
            source: the published file or folder.
            out: the file to write.
            options: by name.

        Returns:
            Where the file is.

        Raises:
            CatchmarkError: no source was given though one is needed, it cannot be read, or the file not be written.
        """
        if source is None and self.source_required:
            raise CatchmarkError(f"'{self.name}' needs a source, for instance: {self.example}")
        module, _, function = self.function.partition(":")
        try:
            return getattr(importlib.import_module(module), function)(source=source, out=out, **options)
        except (ValueError, OSError) as error:
            raise CatchmarkError(one_line(error)) from error


CONVERTERS: dict[str, Converter] = {
    converter.name: converter
    for converter in (
        Converter(
            "nasbench201",
            "NAS-Bench-201, which is NATS-Bench's topology space: accuracies and training times on three data sets.",
            "catchmark data nasbench201 NATS-tss-v1_0-3ffb9-simple --out nasbench201.npz",
            "a NATS-tss folder or .pickle.pbz2, a NAS-Bench-201 .pth, or a .csv with a column 'arch'",
            "search.tables.nasbench201:convert_nasbench201",
        ),
        Converter(
            "analog-nasbench",
            "AnalogNAS-Bench: NAS-Bench-201's networks on CIFAR-10 under 13 hardware conditions.",
            "catchmark data analog-nasbench --out analog_nasbench.npz",
            "the wheel of analog-nasbench 0.1.3 or its data.anb; without it, the installed package's",
            "search.tables.analog_nasbench:convert_analog_nasbench",
            source_required=False,
        ),
        Converter(
            "nasbench101",
            "NAS-Bench-101: accuracies on CIFAR-10, one row a cell.",
            "catchmark data nasbench101 nasbench101_sample.npz --out nasbench101.npz",
            "a .npz with adjacency, ops, hash and val_acc_108ep",
            "search.tables.nasbench101:convert_nasbench101",
        ),
        Converter(
            "transnasbench101",
            "TransNAS-Bench-101, micro space: final validation metrics of seven vision tasks.",
            "catchmark data transnasbench101 transnasbench101_micro.npz --out transnasbench101.npz",
            "a .npz with arch_str, tasks and val_metric, or a .csv with arch_str and a column per task",
            "search.tables.transnasbench101:convert_transnasbench101",
        ),
        Converter(
            "cifar10",
            "CIFAR-10's images, from the official binary version.",
            "catchmark data cifar10 cifar-10-batches-bin --out cifar10.npz",
            "the folder that cifar-10-binary.tar.gz unpacks to",
            "datamodules.cifar10:convert_cifar10",
            makes="images",
        ),
        Converter(
            "image_folder",
            "Small square images, from a folder of picture files with a sub-folder for each class.",
            "catchmark data image_folder tiny-imagenet-200/train --out tiny_imagenet16_120.npz --resolution 16 "
            "--classes 120",
            "a folder with 'train' and 'val' (or 'test'), each with a sub-folder for each class; or one with these "
            "sub-folders, of which every fifth image is for validation",
            "datamodules.image_folder:convert_image_folder",
            options=(
                Option("resolution", "height and width in pixels", 16),
                Option("classes", "only the first so many classes by name (default: all)", None),
            ),
            makes="images",
        ),
        Converter(
            "torchvision",
            "A data set that torchvision has downloaded, from its folder; nothing is fetched, no pickle executed.",
            "catchmark data torchvision ~/data --name CIFAR100 --out cifar100.npz",
            "the folder that torchvision was given as 'root'",
            "search.tables.torchvision_sets:convert_torchvision",
            options=(
                Option("name", "torchvision's name of the class, such as CIFAR100 or FashionMNIST", None, str),
                Option("resolution", "height and width in pixels (default: its own)", None),
            ),
            makes="images",
        ),
        Converter(
            "huggingface",
            "An image data set of the Hugging Face Hub, from the folder it was downloaded or saved to.",
            "catchmark data huggingface my_dataset --out my_dataset.npz --resolution 32",
            "a folder of pictures with metadata.csv or metadata.jsonl, or of .parquet or .arrow files (these need "
            "pip install 'catchmark[arrow]')",
            "search.tables.huggingface_sets:convert_huggingface",
            options=(
                Option("resolution", "height and width in pixels", 32),
                Option("image", "column of the images (default: the only one)", None, str),
                Option("label", "column of the classes (default: 'label', or the only other one)", None, str),
            ),
            makes="images",
        ),
    )
}
"""Every converter by name."""
