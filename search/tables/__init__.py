"""Benchmark tables: their format, and the converters that make them from published files.

Light enough for a command line to import: a converter's code is loaded when it runs.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from search.errors import CatchmarkError, one_line


@dataclass(frozen=True)
class Converter:
    """How ``catchmark data NAME`` makes a table.

    Attributes:
        name: what the command line calls it.
        help: one line about it.
        example: a command line that uses it.
        source_help: one line about what it is made from.
        function: ``module:function``, called with ``source`` and ``out``.
        source_required: False where the source can be found without being named.
    """

    name: str
    help: str
    example: str
    source_help: str
    function: str
    source_required: bool = True

    def convert(self, source: Path | None, out: Path) -> Path:
        """Make the table.

        Args:
            source: the published file or folder.
            out: the table to write.

        Returns:
            Where the table is.

        Raises:
            CatchmarkError: no source was given though one is needed, it cannot be read, or the table not be written.
        """
        if source is None and self.source_required:
            raise CatchmarkError(f"'{self.name}' needs a source, for instance: {self.example}")
        module, _, function = self.function.partition(":")
        try:
            return getattr(importlib.import_module(module), function)(source=source, out=out)
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
            "transnasbench101",
            "TransNAS-Bench-101, micro space: final validation metrics of seven vision tasks.",
            "catchmark data transnasbench101 transnasbench101_micro.npz --out transnasbench101.npz",
            "a .npz with arch_str, tasks and val_metric, or a .csv with arch_str and a column per task",
            "search.tables.transnasbench101:convert_transnasbench101",
        ),
    )
}
"""Every converter by name."""
