"""The charts of the site: score and loss against compute and size, with laws and forecasts.

Each has the same numbers as a table below it, for those who do not see it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from markupsafe import Markup

from nhzoo.leaderboard.site.page import KINDS, templates
from nhzoo.publishing.charts import Frame, LogAxis, short
from nhzoo.publishing.html import number, text
from nhzoo.publishing.learning_curve import CLONED, Curve
from nhzoo.scaling.intervals import LawInterval

FRAME: Final = Frame(width=480, height=330, left=46, right=20, top=36, bottom=46)
MOST_LABELS: Final = 14
MOST_LINES: Final = 3
_LETTER: Final = 6.0  # a letter of a label is at most about that wide
_KINDS: Final = KINDS | {
    "other": "other agent",
    "run": "run of the fit",
    "paper": "Tuyls et al., their protocol",
    "open": "forecast, 90 %",
    "superseded": "forecast, superseded",
    "hit": "forecast that hit",
    "missed": "forecast that missed",
    "came": "what came of it",
}


@dataclass(frozen=True)
class Mark:
    """A point of a chart. `kind` is a key of the legend, `path` the page it leads to.

    What is not `believed` (rows that are only reported) is drawn hollow.
    """

    x: float
    y: float
    name: str
    kind: str
    low: float | None = None
    high: float | None = None
    labelled: bool = True
    path: str = ""
    believed: bool = True


@dataclass(frozen=True)
class Band:
    """A law: (x, interval) along the axis, the name of it, and from which x on it is a guess."""

    name: str
    points: Sequence[tuple[float, LawInterval]]
    edge: float


@dataclass
class _Labels:
    """Where names have been put, so that no two lie on each other."""

    taken: list[tuple[float, float, float, float]] = field(default_factory=list)
    count: int = 0

    def block(self, x: float, y: float) -> None:
        """Keep a point itself free."""
        self.taken.append((x - 5, y - 5, x + 5, y + 5))

    def place(self, x: float, y: float, name: str) -> str:
        """The name beside a point, or "" where there is no room."""
        shown = name if len(name) <= 26 else f"{name[:25]}…"
        wide = _LETTER * len(shown)
        if self.count >= MOST_LABELS:
            return ""
        for left, base, anchor in (
            (x + 8, y + 4, "start"),
            (x - 8 - wide, y + 4, "end"),
            (x - wide / 2, y - 9, "middle"),
            (x - wide / 2, y + 17, "middle"),
        ):
            box = (left, base - 10, left + wide, base + 3)
            inside = left >= FRAME.left and box[2] <= FRAME.width - 2 and base > FRAME.top
            if inside and base < FRAME.y(0) and not any(_meet(box, other) for other in self.taken):
                self.taken.append(box)
                self.count += 1
                at = {"start": left, "middle": x, "end": left + wide}[anchor]
                return (
                    f'<text class="name" x="{at:.1f}" y="{base:.1f}" text-anchor="{anchor}">'
                    f"{text(shown)}</text>"
                )
        return ""


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def scatter(
    title: str,
    summary: str,
    marks: Sequence[Mark],
    x_name: str,
    y_name: str,
    bands: Sequence[Band] = (),
    lines: Sequence[tuple[str, float]] = (),
    y_shown: Callable[[float], str] = number,
) -> Markup | None:
    """Marks on logarithmic axes; `lines` are levels (name, y) of what has no place on the x axis.

    Marks with y <= 0 are in the table only. None when there is nothing to draw.
    """
    drawn = [mark for mark in marks if mark.x > 0 and mark.y > 0]
    if not drawn:
        return None
    across = LogAxis.of([*(m.x for m in drawn), *(x for b in bands for x, _ in b.points)])
    seen = [mark.y for mark in drawn]
    ends = [end for m in drawn for end in (m.low, m.high) if end and end > m.y / 30]
    lines = drawn_lines(lines, seen)
    up = LogAxis.of([*seen, *ends, *(level for _, level in lines)], least=0.3)
    labels, body = _Labels(), FRAME.axes(across.ticks(), up.ticks(), x_name, y_name)
    for band in bands:
        body += _band(band, across, up)
    for name, level in lines:
        y = FRAME.y(up.at(level))
        body.append(
            f'<line class="level" x1="{FRAME.left}" x2="{FRAME.x(1):.0f}" y1="{y:.1f}" '
            f'y2="{y:.1f}"><title>{text(f"{name}: {y_shown(level)}")}</title></line>'
        )
        box = (FRAME.x(1) - _LETTER * len(name), y - 14, FRAME.x(1), y + 2)
        labels.taken.append(box)
        body.append(
            f'<text class="name" x="{FRAME.x(1):.0f}" y="{y - 4:.1f}" text-anchor="end">'
            f"{text(name)}</text>"
        )
    places = [(FRAME.x(across.at(mark.x)), FRAME.y(up.at(mark.y))) for mark in drawn]
    labelled = [(*place, m.name) for m, place in zip(drawn, places, strict=True) if m.labelled]
    for x, y, _ in labelled:
        labels.block(x, y)
    for mark, place in zip(drawn, places, strict=True):
        values = f"{x_name} {short(mark.x)}, {y_name} {y_shown(mark.y)}"
        body.append(_mark(mark, *place, up, f"{mark.name}: {values}"))
    body += [labels.place(*label) for label in labelled]
    legend = _legend({mark.kind for mark in drawn}, bands)
    more = (
        templates()
        .get_template("chart_table.html")
        .render(
            title=title,
            legend=legend,
            marks=marks,
            kind_names=_KINDS,
            axes=(x_name, y_name),
            y_shown=y_shown,
        )
    )
    return FRAME.figure(title, summary, body, Markup(more))


def drawn_lines(
    lines: Sequence[tuple[str, float]], seen: Sequence[float]
) -> Sequence[tuple[str, float]]:
    """Levels that are drawn beside these values: a few, and none that would flatten the rest."""
    return [line for line in lines if line[1] > min(seen) / 30][:MOST_LINES]


def _mark(mark: Mark, x: float, y: float, up: LogAxis, title: str) -> str:
    """The point and its interval, one group, with the numbers as its title."""
    whisker = ""
    if mark.low is not None and mark.high is not None:
        low, high = FRAME.y(up.at(mark.low)), FRAME.y(up.at(mark.high))
        whisker = f'<path d="M{x:.1f} {low:.1f}V{high:.1f}"/>'
    dot = _shape(mark.kind, x, y)
    kind = mark.kind if mark.believed else f"{mark.kind} hollow"
    return f'<g class="mark {kind}">{whisker}{dot}<title>{text(title)}</title></g>'


def _shape(kind: str, x: float, y: float) -> str:
    if kind in ("run", "paper"):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2"/>'
    if kind == "rl":
        return f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"/>'
    if kind == "bot":
        return f'<path class="dot" d="M{x:.1f} {y - 5.5:.1f}l5.5 9.5h-11z"/>'
    if kind == "came":
        return f'<path class="dot" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>'
    if kind in ("open", "superseded", "hit", "missed"):
        return f'<path class="dot" d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>'


def _band(band: Band, across: LogAxis, up: LogAxis) -> list[str]:
    places = [(across.at(x), [up.at(v) for v in (i.value, i.low, i.high)]) for x, i in band.points]
    ribbon = [(x, y[2]) for x, y in places] + [(x, y[1]) for x, y in reversed(places)]
    known = [(across.at(x), up.at(i.value)) for x, i in band.points if x <= band.edge * 1.001]
    guess = [(across.at(x), up.at(i.value)) for x, i in band.points if x >= band.edge * 0.999]
    parts = [f'<path class="band" d="{FRAME.path(ribbon)}Z"/>']
    for kind, points in (("curve", known), ("curve beyond", guess)):
        if len(points) > 1:
            parts.append(f'<path class="{kind}" d="{FRAME.path(points)}"/>')
    return parts


def _legend(kinds: Collection[str], bands: Sequence[Band]) -> list[tuple[Markup, str]]:
    """Samples of marks and bands, with their names."""
    marks = [
        (Markup(f'<g class="mark {kind}">{_shape(kind, 8, 8)}</g>'), name)
        for kind, name in _KINDS.items()
        if kind in kinds
    ]
    return marks + [(Markup('<path class="curve" d="M1 8H15"/>'), band.name) for band in bands]


def learning_curve(curve: Curve | None) -> Markup | None:
    """An entry's losses, or its score where it learnt by playing, against samples; None of none."""
    known = [row for row in curve.rows if row[0]] if curve is not None else []
    if curve is None or curve.fields == CLONED:
        lines = {"curve second": ("training", 2), "curve": ("held out", 3)}
        unit, what, form = "loss, nats a key", "held-out loss", ".3f"
        note = ", on a small sample"
    else:
        lines = {"curve": ("mean score", 2)}
        unit, what, form = "mean score", "mean score", ",.0f"
        note = ", of the games that ended last"
    drawn = {
        kind: [(row[0] or 0.0, row[place] or 0.0) for row in known if row[place]]
        for kind, (_, place) in lines.items()
    }
    values = [y for points in drawn.values() for _, y in points]
    if len(known) < 2 or not values:
        return None
    frame = Frame(top=34)
    across = LogAxis.of([x for points in drawn.values() for x, _ in points])
    up = LogAxis(min(values) * 0.93, max(values) * 1.07)
    body = frame.axes(across.ticks(6), up.ticks(6), "samples", unit)
    drawn = {kind: points for kind, points in drawn.items() if len(points) > 1}
    for kind, points in drawn.items():
        line = [(across.at(x), up.at(y)) for x, y in points]
        body.append(f'<path class="{kind}" d="{frame.path(line)}"/>')
    names = [(kind, lines[kind][0]) for kind in drawn]
    summary = f"{known[-1][0]:,.0f} samples"
    if "curve" in drawn:
        summary += f"; {what} {drawn['curve'][-1][1]:{form}} at the end{note}"
    return frame.figure(
        "Learning curve", f"{summary}. Both axes are logarithmic.", body + frame.legend(names)
    )


def grid(low: float, high: float, points: int = 40) -> list[float]:
    """Places along a logarithmic axis."""
    return [float(x) for x in np.geomspace(low, high, points)]
