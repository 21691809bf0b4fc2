"""The charts of a result: distribution of scores, length of games, depth.

Charts are inline SVG and need no script: colours come from the style sheet, marks have titles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from nhzoo.evaluation.outcomes import Survival
from nhzoo.publishing.html import count, number, text

Tick = tuple[float, str]
"""Where it is, 0 to 1, and what it says."""


def nice_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten that gives at most `most` steps in `span`."""
    if span <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(m * power for m in (1, 2, 5, 10) if m * power * most >= span * (1 - 1e-9))


@dataclass(frozen=True)
class Frame:
    """A chart's size and margins, in units of its view box. Places in it are 0 to 1."""

    width: int = 360
    height: int = 230
    left: int = 42
    right: int = 14
    top: int = 34
    bottom: int = 44

    def x(self, fraction: float) -> float:
        """Where a fraction of the width is."""
        return self.left + fraction * (self.width - self.left - self.right)

    def y(self, fraction: float) -> float:
        """Where a fraction of the height is, counted from below."""
        return self.height - self.bottom - fraction * (self.height - self.top - self.bottom)

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        """A line through places, as the data of an SVG path."""
        return "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)

    def figure(
        self, title: str, summary: str, body: Iterable[str], more: Markup | str = ""
    ) -> Markup:
        """The chart with its title above and its summary below; `more` is markup after that."""
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}"'
        return Markup(
            f"<figure><h3>{text(title)}</h3>"
            f'<svg {size} height="{self.height}" role="img" '
            f'aria-label="{text(f"{title}. {summary}")}">{"".join(body)}</svg>'
            f"<figcaption>{text(summary)}</figcaption>{more}</figure>"
        )

    def axes(self, xs: Sequence[Tick], ys: Sequence[Tick], x_name: str, y_name: str) -> list[str]:
        """Grid, ticks and names. Labels of the x axis that have no room are left out."""
        parts = []
        end, floor, taken = self.width - self.right, self.y(0), -math.inf
        for at, label in ys:
            y = f"{self.y(at):.1f}"
            parts.append(f'<line class="grid" x1="{self.left}" x2="{end}" y1="{y}" y2="{y}"/>')
            where = f'x="{self.left - 6}" y="{self.y(at) + 4:.1f}"'
            parts.append(f'<text {where} text-anchor="end">{label}</text>')
        for at, label in xs:
            half = 3.5 * len(label)
            if self.x(at) - half < taken + 4:  # no room: the next one
                continue
            taken = self.x(at) + half
            x = f"{self.x(at):.1f}"
            parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{floor}" y2="{floor + 4}"/>')
            middle = min(self.x(at), self.width - half)  # whole, at the right end as well
            where = f'x="{middle:.1f}" y="{floor + 17}"'
            parts.append(f'<text {where} text-anchor="middle">{label}</text>')
        parts.append(f'<line class="axis" x1="{self.left}" x2="{end}" y1="{floor}" y2="{floor}"/>')
        middle = (self.left + end) / 2
        parts.append(
            f'<text x="{middle:.0f}" y="{self.height - 8}" text-anchor="middle">{text(x_name)}'
            "</text>"
        )
        parts.append(f'<text x="4" y="14">{text(y_name)}</text>')
        return parts

    def legend(self, items: Sequence[tuple[str, str]]) -> list[str]:
        """Line samples (by class) with their names, from the right end of the top line."""
        parts, x = [], float(self.width - self.right)
        for kind, name in reversed(items):
            parts.append(f'<text x="{x:.0f}" y="14" text-anchor="end">{text(name)}</text>')
            x -= 6.6 * len(name) + 8  # a letter is at most about that wide
            parts.append(f'<line class="{kind}" x1="{x - 20:.0f}" x2="{x:.0f}" y1="10" y2="10"/>')
            x -= 34
        return parts


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis from `low` to `high`."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float], room: float = 0.06, least: float = 1.0) -> LogAxis:
        """An axis that has room for all of `values` (those above 0), `least` decades at least."""
        known = [math.log10(value) for value in values if value > 0]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        missing = max(0.0, least - (high - low)) / 2
        margin = missing + room * max(least, high - low)
        return cls(10 ** (low - margin), 10 ** (high + margin))

    def at(self, value: float) -> float:
        """The place of a value, 0 to 1; what is outside is at the nearer end."""
        if value <= self.low:
            return 0.0
        place = math.log10(value / self.low) / math.log10(self.high / self.low)
        return min(1.0, place)

    def holds(self, value: float) -> bool:
        """Whether a value is on the axis."""
        return self.low <= value <= self.high

    def ticks(self, most: int = 7) -> list[Tick]:
        """Round numbers: powers of ten, and what is between them where there is room."""
        if self.high < 5 * self.low:  # there, even steps say more
            step = nice_step(self.high - self.low, most)
            first = math.ceil(self.low / step)
            even = [step * i for i in range(first, math.floor(self.high / step) + 1)]
            return [(self.at(value), short(value)) for value in even]
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = [
                value
                for power in range(
                    math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
                )
                for value in (step * 10.0**power for step in steps)
                if self.holds(value)
            ]
            if len(found) <= most:
                break
        return [(self.at(value), short(value)) for value in found]


def short(value: float) -> str:
    """A number in few letters: 0.5, 20, 3k, 1M, 2e13."""
    value = float(f"{value:.3g}")
    if value >= 1e9:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


_FRAME = Frame()
_BINS_PER_DECADE = 5
_MOST_CENSORED = 500  # marks drawn; more would be one line


@dataclass(frozen=True)
class Bar:
    """A bar from `left` to `right` (0 to 1 of the width)."""

    left: float
    right: float
    games: int
    label: str


def _count_axis(most: int) -> tuple[float, list[tuple[float, str]]]:
    """The top of a count axis, and its ticks: whole numbers."""
    step = max(1.0, nice_step(max(1, most), 4))
    top = step * math.ceil(max(1, most) / step)
    return top, [(i * step / top, f"{i * step:,.0f}") for i in range(1, round(top / step) + 1)]


def _bars(bars: Sequence[Bar], top: float) -> list[str]:
    parts = []
    for bar in bars:
        if not bar.games:
            continue
        x, width = _FRAME.x(bar.left), _FRAME.x(bar.right) - _FRAME.x(bar.left)
        gap = min(1.0, width / 8)
        y = _FRAME.y(bar.games / top)
        parts.append(
            f'<rect class="bar" x="{x + gap:.1f}" y="{y:.1f}" width="{width - 2 * gap:.1f}" '
            f'height="{_FRAME.y(0) - y:.1f}"><title>{text(bar.label)}: {count(bar.games, "game")}'
            "</title></rect>"
        )
    return parts


@dataclass(frozen=True)
class LogScale:
    """Where scores are on a logarithmic axis; those below 1 share a bin at its left end."""

    edges: list[float]
    zero: float

    @classmethod
    def of(cls, scores: Sequence[float]) -> LogScale:
        """A scale that has room for all of `scores`."""
        positive = [score for score in scores if score >= 1]
        if not positive:
            return cls([], 1.0)
        first = math.floor(_BINS_PER_DECADE * math.log10(min(positive)) + 1e-9)
        last = math.floor(_BINS_PER_DECADE * math.log10(max(positive)) + 1e-9) + 1
        if last - first < 3:  # a bar or two should not fill the chart
            first, last = max(0, first - 1), last + 1
        edges = [10 ** (k / _BINS_PER_DECADE) for k in range(first, last + 1)]
        return cls(edges, 0.12 if len(positive) < len(scores) else 0.0)

    def at(self, score: float) -> float:
        """The place of a score, 0 to 1."""
        if not self.edges:
            return 0.5
        if score < 1:
            return 0.4 * self.zero
        return self.zero + (1 - self.zero) * LogAxis(self.edges[0], self.edges[-1]).at(score)

    def bars(self, scores: Sequence[float]) -> list[Bar]:
        """The games in each bin."""
        x = np.asarray(scores, np.float64)
        below = int(np.count_nonzero(x < 1))
        bars = []
        if below:
            left, right = (0.0, 0.8 * self.zero) if self.edges else (0.35, 0.65)
            bars.append(Bar(left, right, below, f"score {self.zero_label(scores)}"))
        if self.edges:
            edges = np.asarray(self.edges) * (1 + 1e-12)
            # Rounding must not lose a score that is an edge itself.
            counts, _ = np.histogram(np.clip(x[x >= 1], edges[0], edges[-1]), edges)
            for (low, high), games in zip(pairwise(self.edges), counts.tolist(), strict=True):
                label = f"score {math.ceil(low - 1e-9):,} to {math.ceil(high - 1e-9) - 1:,}"
                bars.append(Bar(self.at(low), self.at(high), games, label))
        return bars

    def zero_label(self, scores: Sequence[float]) -> str:
        """What the bin at the left end holds."""
        return "0" if all(score == 0 for score in scores if score < 1) else "below 1"

    def ticks(self, scores: Sequence[float]) -> list[tuple[float, str]]:
        """Round numbers, with room between them."""
        places = [(0.4 * self.zero if self.edges else 0.5, self.zero_label(scores))]
        if self.zero == 0.0:
            places = []
        if self.edges:
            low, high = self.edges[0], self.edges[-1]
            decades = math.log10(high / low)
            steps = (1, 2, 5) if decades < 2.5 else (1, 3) if decades < 4 else (1,)
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
                for value in (step * 10**power for step in steps):
                    if low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
                        label = f"{value:,}" if value < 1_000_000 else f"1e{power}"
                        places.append((self.at(value), label))
        return places


def score_chart(scores: Sequence[float], mean: float, median: float) -> Markup:
    """How scores are distributed, in bins of equal width on a logarithmic axis."""
    scale = LogScale.of(scores)
    bars = scale.bars(scores)
    top, ys = _count_axis(max(bar.games for bar in bars))
    marks = []
    for kind, value in (("mean", mean), ("median", median)):
        x = f"{_FRAME.x(scale.at(value)):.1f}"
        marks.append(
            f'<line class="{kind}" x1="{x}" x2="{x}" y1="{_FRAME.top - 6}" y2="{_FRAME.y(0):.1f}"/>'
        )
    names = [("mean", f"mean {number(mean)}"), ("median", f"median {number(median)}")]
    summary = (
        f"{count(len(scores), 'game')}: from {number(min(scores))} to {number(max(scores))}, "
        f"mean {number(mean)}, median {number(median)}. The axis is logarithmic."
    )
    body = _FRAME.axes(scale.ticks(scores), ys, "score", "games") + _bars(bars, top) + marks
    return _FRAME.figure("Scores", summary, body + _FRAME.legend(names))


def depth_chart(depths: Sequence[int]) -> Markup:
    """How many games got how deep."""
    low, high = min(depths), max(depths)
    width = 1 / (high - low + 1)
    thick = min(width, 0.2)
    counts = [depths.count(depth) for depth in range(low, high + 1)]
    bars = [
        Bar((i + 0.5) * width - thick / 2, (i + 0.5) * width + thick / 2, n, f"depth {low + i}")
        for i, n in enumerate(counts)
    ]
    step = max(1, math.ceil((high - low + 1) / 15))
    xs = [((i + 0.5) * width, f"{low + i}") for i in range(0, high - low + 1, step)]
    top, ys = _count_axis(max(counts))
    at_most = sum(depth <= 1 for depth in depths)
    summary = (
        f"Deepest level of each game: at most {high}. "
        f"{count(at_most, 'game')} of {len(depths):,} never left the first."
    )
    body = _FRAME.axes(xs, ys, "deepest level reached", "games") + _bars(bars, top)
    return _FRAME.figure("Depth", summary, body)


def survival_chart(curve: Survival, games: int) -> Markup:
    """A survival curve over game turns, with its interval and what was not seen to its end."""
    end = max(curve.end, 1.0)
    step = max(1.0, nice_step(end, 4))
    xs = [(i * step / end, f"{i * step:,.0f}") for i in range(int(end / step + 1e-9) + 1)]
    ys = [(share / 100, f"{share}") for share in (25, 50, 75, 100)]
    levels = [1.0, *curve.alive]

    def steps(values: Sequence[float]) -> list[tuple[float, float]]:
        points, last = [(0.0, 1.0)], 1.0
        for time, value in zip(curve.times, values, strict=True):
            points += [(time, last), (time, value)]
            last = value
        return [*points, (curve.end, last)]

    def path(points: Sequence[tuple[float, float]]) -> str:
        return _FRAME.path((x / end, y) for x, y in points)

    body = _FRAME.axes(xs, ys, "game turn", "% alive")
    if curve.times:
        band = path([*steps(curve.high), *reversed(steps(curve.low))])
        body.append(f'<path class="band" d="{band}Z"/>')
    body.append(f'<path class="curve" d="{path(steps(curve.alive))}"/>')
    for time in curve.censored[:_MOST_CENSORED]:
        level = levels[int(np.searchsorted(curve.times, time, side="right"))]
        x, y = _FRAME.x(time / end), _FRAME.y(level)
        body.append(
            f'<line class="censored" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 5:.1f}" y2="{y + 5:.1f}">'
            f"<title>broken off at turn {time:,.0f}</title></line>"
        )
    deaths = games - len(curve.censored)
    summary = f"{count(deaths, 'death')} in {count(games, 'game')}"
    if curve.median is not None:
        summary += f"; half are dead by turn {curve.median:,.0f}"
    summary += ". Kaplan-Meier, with a 95 % interval"
    if curve.censored:
        broken = "game that ended" if len(curve.censored) == 1 else "games that ended"
        summary += f"; the {len(curve.censored):,} {broken} otherwise are marked, and censored"
    return _FRAME.figure("Survival", f"{summary}.", body)
