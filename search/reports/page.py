"""Pages for people: the template they share, and numbers that read well in them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

ABSENT = "—"
"""Stands where there is no value."""


def render_page(kind: str, template: str = "report.html.jinja", **content: Any) -> str:
    """Fill a page template; everything but our own figures is escaped.

    Args:
        kind: of page, where a template has several: ``report`` or ``comparison``.
        template: a file beside this one.
        **content: what the template names.
    """
    return _environment().get_template(template).render(kind=kind, **content)


@functools.cache  # which compiles a template once
def _environment() -> jinja2.Environment:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Figures come from search.reports.svg, whose text matplotlib has escaped.
    environment.filters |= {"figure": Markup, "number": number, "duration": duration, "share": share}
    return environment


def duration(seconds: float) -> str:
    """A time that reads well: ``0.4 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 9.95:
        return f"{seconds:.2g} s" if seconds >= 0.01 else "under 0.01 s" if seconds > 0 else "0 s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def decimals_for(values: Iterable[float | None]) -> int:
    """Decimals that show differences between the values to three digits."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return 2
    span = max(known) - min(known)
    scale, digits = (span, 2) if span > 1e-12 * max(map(abs, known)) else (max(map(abs, known)) or 1.0, 3)
    return min(max(digits - math.floor(math.log10(scale)), 0), 8)


def number(value: float | None, decimals: int) -> str:
    """A number, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{value:,.{decimals}f}" if abs(value) < 1e9 else f"{value:.6g}"


def p_text(p_value: float | None) -> str:
    """A p-value to the digits that matter."""
    if p_value is None:
        return ABSENT
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


def p_equals(p_value: float | None) -> str:
    """The same behind a ``p``: ``= 0.03`` or ``< 0.001``."""
    text = p_text(p_value)
    return text if text.startswith("<") else f"= {text}"


def share(value: float | None) -> str:
    """A share as a percentage, or a dash."""
    return ABSENT if value is None else f"{value:.0%}" if value in (0, 1) else f"{100 * value:.1f}%"
