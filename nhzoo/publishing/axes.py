"""The frame of a chart as inline SVG: its box, axes, ticks, legend, and the words beside it.

Charts need no script: colours come from the style sheet, marks have titles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nhzoo.publishing.html import text

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

    def figure(self, title: str, summary: str, body: Iterable[str], more: str = "") -> str:
        """The chart with its title above and its summary below; `more` is markup after that."""
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}"'
        return (
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
