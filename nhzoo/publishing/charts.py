"""The charts of a result: how scores are spread, how long games last, how deep they go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nhzoo.evaluation.survival import Survival
from nhzoo.publishing.axes import Frame, nice_step
from nhzoo.publishing.html import count, number, text

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
        low, high = math.log10(self.edges[0]), math.log10(self.edges[-1])
        place = (math.log10(score) - low) / (high - low)
        return self.zero + (1 - self.zero) * min(1.0, max(0.0, place))

    def bars(self, scores: Sequence[float]) -> list[Bar]:
        """The games in each bin."""
        x = np.asarray(scores, np.float64)
        below = int(np.count_nonzero(x < 1))
        bars = []
        if below:
            left, right = (0.0, 0.8 * self.zero) if self.edges else (0.35, 0.65)
            bars.append(Bar(left, right, below, f"score {self.zero_label(scores)}"))
        bins = np.searchsorted(np.asarray(self.edges) * (1 + 1e-12), x[x >= 1], side="right")
        # Rounding must not lose a score that is an edge itself.
        bins = np.clip(bins, 1, max(1, len(self.edges) - 1))
        for k in range(1, len(self.edges)):
            low, high = self.edges[k - 1], self.edges[k]
            label = f"score {math.ceil(low - 1e-9):,} to {math.ceil(high - 1e-9) - 1:,}"
            games = int(np.count_nonzero(bins == k))
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


def score_chart(scores: Sequence[float], mean: float, median: float) -> str:
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


def depth_chart(depths: Sequence[int]) -> str:
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


def survival_chart(curve: Survival, games: int) -> str:
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
