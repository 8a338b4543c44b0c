"""Words on pictures can be read: within the picture, beside each other, whole."""

import numpy as np
from PIL import Image

from search.deploy.drawing import colour_of, with_boxes, with_caption

NAMES = ["cat", "dog"]


def box(name, score, left, top, right, bottom):
    return {"class": name, "score": score, "left": left, "top": top, "right": right, "bottom": bottom}


def coloured(picture, label):
    """Rows and columns of the pixels that have the colour of a class."""
    return np.nonzero((np.asarray(picture) == colour_of(label)).all(-1))


def test_words_at_the_edge_stay_within_the_picture():
    picture = Image.new("RGB", (200, 100))
    alone = coloured(with_boxes(picture, [box("cat", 0.5, 50, 40, 60, 60)], NAMES), 0)
    for edges in ((195, 40, 199, 60), (0, 0, 5, 20), (195, 95, 199, 99)):
        there = coloured(with_boxes(picture, [box("cat", 0.5, *edges)], NAMES), 0)
        assert len(there[0]) > 0.7 * len(alone[0])  # the edges of the box count too, and it may be smaller
    rows, columns = coloured(with_boxes(picture, [box("cat", 0.5, 150, 40, 160, 60)], NAMES), 0)
    assert rows.min() < 40 and columns.min() == 150  # above it where there is room


def test_words_of_one_place_do_not_cover_each_other():
    picture = Image.new("RGB", (200, 100))
    place = (60, 40, 120, 60)
    single = len(coloured(with_boxes(picture, [box("dog", 0.5, *place)], NAMES), 1)[0])
    both = with_boxes(picture, [box("cat", 0.9, *place), box("dog", 0.5, *place)], NAMES)
    edges = 2 * (61 + 21)  # of its box, under the other's
    assert len(coloured(both, 1)[0]) > 0.8 * (single - edges)
    assert coloured(both, 0)[0].min() < 40  # the better one stands above


def test_a_long_caption_is_whole():
    picture = Image.new("RGB", (32, 32), "red")
    short, long = with_caption(picture, "cat 80%"), with_caption(picture, "black-and-white warbler 80%")
    assert short.width == 128 < long.width and short.height == long.height
    ink = (np.asarray(long)[128:, 128:] < 128).all(-1)
    assert ink.any() and not ink[:, -3:].any()
