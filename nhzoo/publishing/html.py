"""The parts of HTML pages: templates, escaped text, numbers, tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from nhzoo.runtime.console import clean
from nhzoo.runtime.system import PACKAGE


def asset(name: str) -> str:
    """A template, style sheet or script of the folder `assets`."""
    return (PACKAGE / "publishing" / "assets" / name).read_text("utf-8")


def text(value: object) -> str:
    """Anything as the text of an element or of a quoted attribute: no markup, no controls."""
    return escape(clean(str(value)), quote=True)


def number(value: float) -> str:
    """1,234 or 56.7 or 8.91: fewer decimals the larger it is, none when it is whole."""
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.{0 if abs(value) >= 1_000 else 1 if abs(value) >= 10 else 2}f}"


def interval(ends: tuple[float, float] | None) -> str:
    """The ends of an interval, "12.3 to 45.6"; a dash where there is none."""
    return "–" if ends is None else f"{number(ends[0])} to {number(ends[1])}"


def count(amount: int, noun: str, nouns: str = "") -> str:
    """An amount and its noun: "1 game", "2 games", "0 crashes"."""
    return f"{amount:,} {noun if amount == 1 else nouns or noun + 's'}"


def heading(title: str, sortable: bool = False) -> str:
    """A column's heading; one that begins with "<" is aligned to the left."""
    name = text(title.removeprefix("<"))
    if sortable:
        name = f'<button type="button">{name}</button>'
    left = ' class="t"' if title.startswith("<") else ""
    return f'<th scope="col"{left}>{name}</th>' if title != "<" else "<td></td>"


def table(name: str, head: Sequence[str], body: Iterable[str], sortable: bool = False) -> str:
    """A table in a box that scrolls by itself, so that the page does not."""
    cells = "".join(heading(title, sortable) for title in head)
    kinds = ("box tall", ' class="sortable"') if sortable else ("box", "")
    return (
        f'<div class="{kinds[0]}" role="region" aria-label="{text(name)}" tabindex="0">'
        f"<table{kinds[1]}><thead><tr>{cells}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def share_table(
    name: str,
    head: tuple[str, str],
    counts: Sequence[tuple[str, int]],
    total: int,
    rest: tuple[str, int] | None = None,
) -> str:
    """Counts, their shares of `total`, and a bar for each; `rest` is a last line without a bar."""
    most = max((amount for _, amount in counts), default=1)
    body = []
    lines = [(*line, True) for line in counts] + ([(*rest, False)] if rest else [])
    for label, amount, drawn in lines:
        bar = (
            '<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="bar" width="{100 * amount / most:.1f}" height="8"/></svg>'
        )
        body.append(
            f'<tr><th scope="row">{text(label)}</th><td>{amount:,}</td><td>{amount / total:.1%}'
            f'</td><td class="share">{bar if drawn else ""}</td></tr>'
        )
    return table(name, (f"<{head[0]}", head[1], "Share", "<"), body)
