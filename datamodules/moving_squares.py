"""A video that is always there: squares that fly straight on and bounce off the edges."""

from __future__ import annotations

import numpy as np

MOVING_SQUARES = "moving_squares"
"""What a recipe names to get it."""
_GROUND = 50


def moving_squares(frames: int = 60, height: int = 16, width: int = 20, squares: int = 2, seed: int = 0) -> np.ndarray:
    """Light squares on dark grey, each at a speed of its own; the next frame follows from the last two.

    Args:
        frames: how many.
        height: in pixels.
        width: in pixels.
        squares: how many; later ones fly before earlier ones.
        seed: of colours, places and speeds.

    Returns:
        Uint8 ``[frames, height, width, 3]``.
    """
    rng = np.random.default_rng(seed)
    side = max(2, min(height, width) // 4)
    room = np.array([height - side, width - side])
    video = np.full((frames, height, width, 3), _GROUND, dtype=np.uint8)
    for _ in range(squares):
        colour, start = rng.integers(120, 256, 3), rng.uniform(0, room)
        speed = rng.uniform(0.5, 1.5, 2) * rng.choice([-1, 1], 2)
        way = start + speed * np.arange(frames)[:, None]
        # Off an edge it comes back as it went: a triangle wave between 0 and the room.
        places = np.rint(room - np.abs(way % (2 * room) - room)).astype(int)
        for frame, (top, left) in zip(video, places, strict=True):
            frame[top : top + side, left : left + side] = colour
    return video
