"""What recipes for detection and segmentation share: sizes of pictures, and the backbones that are searched."""

from __future__ import annotations

BACKBONES = """\
space:
  class_path: ResidualBackbone
  init_args:  # small ones, for a small machine; its defaults reach from ResNet-18 to ResNet-101
    block_types: [basicblock]
    base_channels: [16, 24, 32]
    depths: [8, 12]
    stages: [4]
    blocks_per_stage: [1, 2, 3, 4]
    doublings: [3]
"""


def scaled(median: tuple[int, int], longest: int, multiple: int) -> tuple[int, int]:
    """The longer and the shorter side to scale pictures to: the shape of the middle one, in steps of so many pixels.

    Args:
        median: the longer and the shorter side of the middle picture.
        longest: the most that the longer side may get.
        multiple: of which both sides are multiples, at least one.
    """
    factor = min(1.0, longest / median[0])
    longer, shorter = (multiple * max(1, round(side * factor / multiple)) for side in median)
    return longer, shorter
