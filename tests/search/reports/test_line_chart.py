"""Lines are drawn and named, whatever their numbers are."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from search.reports.best_so_far import best_line, best_so_far_svg, visible_range
from search.reports.line_chart import Line, line_chart
from tests.search.reports.reading import SVG, groups

BAND = [None, (0.5, 2.5), (1.0, 3.0)]


def heights_of_names(svg):
    return [
        float(re.findall(r"[-\d.]+", words.get("transform"))[-1])
        for group in ElementTree.fromstring(svg).iter(f"{SVG}g")
        if group.get("class") == "name"
        for words in group.iter(f"{SVG}text")
    ]


def test_a_line_and_a_band_for_every_curve_that_has_one():
    lines = [
        best_line("a", [1.0, 2.0, 3.0], BAND),
        best_line("b", [None, 2.0, 2.5], (), 1),
        best_line("c", [1.0, 1.0, 1.0], BAND, 2),
    ]
    svg = best_so_far_svg(lines, "score")
    assert (groups(svg, "curve"), groups(svg, "band"), groups(svg, "level")) == (3, 2, 0)
    assert groups(best_so_far_svg(lines, "score", best_possible=3.1), "level") == 1
    far = best_so_far_svg(lines, "score", best_possible=300.0)
    assert groups(far, "level") == 0 and "best in the space: 300 (above the axis)" in far


def test_everything_that_has_a_name_is_named_apart_from_the_others():
    lines = [Line(str(k), [0, 1], [1.0, 2.0], color=k) for k in range(9)]
    svg = line_chart(lines, "epoch", "loss", levels={"chance": 2.0}, begins={"landmarks": 0.5})
    names = heights_of_names(svg)
    assert len(names) == 10 and np.diff(sorted(names)).min() > 11  # points; a name is 9.5 high
    assert (groups(svg, "curve"), groups(svg, "level"), groups(svg, "begin")) == (9, 1, 1)
    for words in ("landmarks", "epoch", "loss", " chance"):
        assert f">{words}</text>" in svg, words


def test_faint_lines_are_behind_and_without_names():
    faint = [Line("", [1, 2], [3.0, 4.0]), Line("", [1], [9.0], failed=True), Line("", [], [])]
    svg = line_chart([], "epoch", "loss", faint=faint)
    assert (groups(svg, "faint"), groups(svg, "failed"), groups(svg, "curve")) == (2, 1, 0)
    assert not heights_of_names(svg)


def test_one_point_has_an_interval_too():
    svg = line_chart([Line("a", [9], [0.2], [(0.1, 0.3)])], "epochs", "S-KdT", points=True)
    assert (groups(svg, "band"), groups(svg, "points")) == (1, 1)


def test_labels_are_escaped_and_never_mathematics():
    svg = best_so_far_svg([best_line("<i>$x_1$ & \x1b[1m日本</i>", [1.0])], "s<b>")
    assert "<i>" not in svg and "<b>" not in svg and "$x_1$" in svg


@pytest.mark.parametrize(
    "mean", [[5.0], [5.0, 5.0], [None, None], [0.0, 0.0], [1e-9, 2e-9], [-1e9, 1e9], [float("inf"), 1.0]], ids=str
)
def test_any_numbers_can_be_drawn(mean):
    assert groups(best_so_far_svg([best_line("a", mean)], "score"), "curve") == 1
    assert groups(line_chart([best_line("a", mean)], "x", "y"), "curve") == 1


def test_the_axis_shows_the_differences_at_the_end():
    # Scores of 10 at first, 90 and 91 at the end: the difference of 1 gets at least an eighth of the height.
    lines = [best_line("a", [10.0, 80.0, *[90.0] * 8]), best_line("b", [10.0, 85.0, *[91.0] * 8])]
    low, high = visible_range(lines)
    assert low > 80 and low < 90 and high > 91 and (91 - 90) / (high - low) >= 1 / 9.2
    # A best possible score that is near is inside; one far away would press the lines together and is not.
    assert visible_range(lines, 92.0)[1] > 92 and visible_range(lines, 200.0) == (low, high)
    low, high = visible_range([best_line("a", [3.0, 3.0])])
    assert low < 3 < high
