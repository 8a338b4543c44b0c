"""Necks of ours that mmdet knows by name."""

from __future__ import annotations

import importlib

from lightning_modules.networks.merging_cells import MergingCellFPN


def register() -> None:
    """Let mmdet's configs say ``type: MergingCellFPN``; repeated calls change nothing."""
    models = importlib.import_module("mmdet.registry").MODELS
    models.register_module(module=MergingCellFPN, force=True)
