"""What every figure shares: colours, line and marker patterns, and the way from matplotlib to SVG text.

Colours are CSS variables with the light theme's value behind them, so a page can restyle a figure and a figure can
stand alone. The same figure gives the same text every time.
"""

from __future__ import annotations

import html
import io
import itertools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import CatchmarkError, explain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5d5d5d")
"""Okabe and Ito's palette, told apart with any of the common colour-vision deficiencies, less its pale yellow."""
INK, MUTED, GRID, PAPER, TINT = "#1c2430", "#66707c", "#dfe3e8", "#fffffe", "#eef3f8"
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", TINT: "tint"} | {
    color: f"series-{k}" for k, color in enumerate(SERIES)
}
DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.6)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
"""Line patterns, for more lines than there are colours."""
MARKERS = ("o", "s", "^", "v", "P", "X", "p")
"""Marker shapes, told apart without their colours."""


def shortened(text: str, longest: int = 34) -> str:
    """A label that fits, without line breaks and other signs that can't be drawn."""
    text = "".join(each if each.isprintable() else " " for each in text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def house_style() -> Any:
    """Settings that hold while one figure is made; what the process has set otherwise is put back."""
    from matplotlib import rc_context, rcParamsDefault

    settings = {key: value for key, value in rcParamsDefault.items() if not key.startswith(("backend", "interactive"))}
    return rc_context(
        settings
        | {
            "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
            "svg.hashsalt": "catchmark",
            "pdf.fonttype": 42,  # TrueType, which publishers take; the letters that occur are embedded
            "text.parse_math": False,  # a name may hold dollar signs
            "axes.edgecolor": MUTED,
            "axes.labelcolor": INK,
            "axes.facecolor": "none",
            "axes.labelsize": 9.5,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "ytick.major.size": 0,
        }
    )


def new_figure(width: float, height: float) -> Figure:
    """An empty figure without a background; its size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="none")


def style_of(place: int) -> tuple[str, str, Any]:
    """Colour, marker and dashes of what has this place: every colour once, then all of them with other shapes."""
    turn, color = divmod(place, len(SERIES))
    return SERIES[color], MARKERS[turn % len(MARKERS)], DASHES[turn % len(DASHES)]


def plain_frame(axes: Axes) -> None:
    """A grid behind what is drawn, and a frame at the left and the foot alone."""
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


_gallery: ContextVar[tuple[Path, Iterator[int]] | None] = ContextVar("gallery", default=None)
"""The folder of `kept_in`, and the numbers of its figures."""


@contextmanager
def kept_in(folder: Path | None) -> Iterator[None]:
    """Every figure that is made meanwhile is kept there too: as PDF and as SVG, numbered in the order of the page.

    Args:
        folder: made if it is not there; files of these names are replaced. None: figures are for the page alone.

    Raises:
        CatchmarkError: nothing can be written there.
    """
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatchmarkError(f"--figures: {explain(error)}; name another folder") from error
    before = _gallery.set(None if folder is None else (folder, itertools.count(1)))
    try:
        yield
    finally:
        _gallery.reset(before)


def _keep(figure: Figure, description: str, folder: Path, number: int) -> None:
    """A figure for a paper: vectors, with its fonts in it."""
    from matplotlib import rc_context

    words = re.sub(r"\W+", "_", description.partition(", of:")[0].partition(", by:")[0]).strip("_").lower()[:60]
    stem = folder / f"{number:02d}_{words}"
    try:
        with rc_context({"svg.fonttype": "path"}):
            for ending, dates in ((".svg", {"Date": None}), (".pdf", {"CreationDate": None})):
                figure.savefig(stem.with_suffix(ending), metadata=dates, bbox_inches="tight", facecolor="white")
    except OSError as error:
        raise CatchmarkError(f"--figures: {explain(error)}; name another folder") from error


def to_svg(figure: Figure, description: str) -> str:
    """A figure as an ``<svg>`` element; see `kept_in` for files.

    Args:
        figure: made within `house_style`.
        description: what it shows, for who can't see it.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    with warnings.catch_warnings():
        # The page's font draws the text, so a glyph that matplotlib's own lacks is no loss.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        if (gallery := _gallery.get()) is not None:
            _keep(figure, description, gallery[0], next(gallery[1]))
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(out, metadata=nothing)
    text = out.getvalue()
    viewbox = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert viewbox is not None
    width, height = viewbox.groups()
    body = text[text.index(">", viewbox.end()) + 1 :]
    # Several figures share a page: a group's number would be an id twice, its name is a class.
    body = re.sub(r'<g id="([a-z]+)[^"]*">', r'<g class="\1">', body)
    body = re.sub(r'<g id="[^"]*"/>', "", body)
    body = re.sub(r"font-family: [^;\"]*; ?", "", body)
    body = re.sub(r"<defs>\s*<style.*?</defs>", "", body, count=1, flags=re.DOTALL)  # it would hold for the whole page
    for color, variable in _VARIABLES.items():
        body = body.replace(f": {color}", f": var(--{variable}, {color})")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="figure" role="img" '
        f'viewBox="0 0 {width} {height}" style="width: {float(width) / 72:.2f}in" '
        f'font-family="system-ui, sans-serif" stroke-linejoin="round" aria-label="{html.escape(description)}">'
    )
    return head + "\n".join(line.strip() for line in body.splitlines())
