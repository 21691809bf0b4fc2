"""What all pages of the site share: templates, navigation, boards.

Every page is text, a style sheet and scripts beside it; none asks anything of another host. What
comes from outside is text in a page, never markup.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment

from nhzoo import __version__
from nhzoo.evaluation.results import fault_lines
from nhzoo.evaluation.statistics import summary_ci95
from nhzoo.hub.repos import HUB_URL as HUB
from nhzoo.hub.repos import ORGANISATION
from nhzoo.leaderboard.board import TIERS, BoardRow, Reference
from nhzoo.publishing import html
from nhzoo.publishing.charts import nice_step, short
from nhzoo.publishing.html import asset

TEMPLATES: Final = Path(__file__).parent / "templates"
STYLES: Final = ("report.css", "site.css")
SCRIPTS: Final = ("tables.js", "filter.js", "player.js", "beside.js", "copy.js")
NAVIGATION: Final = (
    ("index.html", "Leaderboard"),
    ("scaling.html", "Scaling"),
    ("protocols.html", "Protocols"),
    ("log.html", "Log"),
    ("submit.html", "Submit"),
)

# `file:` is for pages opened from a disk: some browsers do not count that as 'self'.
POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'self' file:; script-src 'self' file:; "
    "base-uri 'none'; form-action 'none'"
)
KINDS: Final = {
    "bc": "cloned",
    "rl": "learnt by playing",
    "bot": "program",
    "other": "other",
}
TIER_TEXT: Final = {
    "reported": "Somebody says so. Listed as claimed, never ranked.",
    "replayed": (
        "Every game was replayed here, key by key, without the agent, and came to the score. Who "
        "pressed the keys is not known from that."
    ),
    "audited": (
        "Replayed, and every key is what the published weights would have pressed: computed anew."
    ),
    "re-run": (
        "The weights were played by us, on seeds drawn after the submission from a secret whose "
        "hash had been published before."
    ),
}
_CHECKED: Final = {
    "P": "read in the paper",
    "C": "read in published code or data",
    "M": "measured again by us",
    "2": "second hand",
}
"""How a published figure was read: the codes of `references.json`."""


@cache
def templates() -> Environment:
    """The environment of the site's templates."""
    env = html.environment(TEMPLATES)
    env.filters["short"] = short
    env.globals |= {
        "policy": POLICY,
        "navigation": NAVIGATION,
        "version": __version__,
        "hub": f"{HUB}/{ORGANISATION}",
        "kinds": KINDS,
        "tiers": TIERS,
        "tier_text": TIER_TEXT,
    }
    return env


@dataclass(frozen=True)
class Page:
    """One page: its place in the site, its template, and the values that the template needs."""

    path: str
    template: str
    values: Mapping[str, Any]

    def write(self) -> bytes:
        """The file."""
        root = "../" * self.path.count("/")
        template = templates().get_template(self.template)
        return template.render(self.values, path=self.path, root=root).encode()


def style() -> str:
    """The style sheet of the site: a report's, and what only the site has."""
    return "\n".join(asset(name) for name in STYLES)


@dataclass(frozen=True)
class Scale:
    """The common scale of a board's intervals: places go with the square root of the score.

    Scores go over four powers of ten with zero among them. A straight scale would show one agent,
    and a logarithmic one has no zero.
    """

    top: float

    @classmethod
    def of(cls, summaries: Iterable[Mapping[str, Any]]) -> Scale:
        """A scale that has room for all intervals."""
        tops = [(summary_ci95(one) or (0.0, float(one["mean_score"])))[1] for one in summaries]
        return cls(max([1.0, *tops]))

    def at(self, score: float) -> float:
        """The place of a score, 0 to 1."""
        return math.sqrt(min(1.0, max(0.0, score / self.top)))

    def ticks(self) -> list[float]:
        """Round scores, with room between them."""
        step = nice_step(self.top, 4)
        wanted = [step / 20, step / 4, *(step * i for i in range(1, 5))]
        found: list[float] = [0.0]
        for value in wanted:
            if value <= self.top and self.at(value) - self.at(found[-1]) >= 0.17:
                found.append(value)
        return found


BOARD_HEAD: Final = (
    *("Rank", "<Agent", "Score", "95 % interval", "", "<Tier", "Of AutoAscend", "Progression"),
    *("Depth", "Parameters", "Training FLOPs, as said", "Samples, as said", "<Date", "<Revision"),
)
"""The columns of a board; "" is the one of the bars."""


def board_table(name: str, rows: Sequence[BoardRow], role: str | None = None) -> dict[str, Any]:
    """What `boards.html` shows of a protocol, best first; with `role`, of that role's games."""
    chosen = [(row, row.summary if role is None else row.roles[role]) for row in rows]
    scale = Scale.of(summary for _, summary in chosen)
    return {
        "name": name,
        "head": ["Games" if role and title == "Depth" else title for title in BOARD_HEAD],
        "scale": scale,
        "lines": [_board_line(row, summary, role) for row, summary in chosen],
    }


def _board_line(row: BoardRow, summary: Mapping[str, Any], role: str | None) -> dict[str, Any]:
    faults = row.summary.get("faults", ()) if role is None else ()
    return {
        "row": row,
        "summary": summary,
        "ends": summary_ci95(summary),
        "claimed": row.claimed["mean_score"] if row.claimed and not role else None,
        "faults": fault_lines(faults, row.summary["episodes"]),
        "shares": [
            _cell(None if role else row.normalized, lambda x: f"{100 * x:.1f} %"),
            _cell(summary.get("mean_progression"), lambda x: f"{100 * x:.2f} %"),
        ],
        "depth": summary["games"] if role else f"{summary['mean_depth']:.2f}",
        "sizes": [
            _cell(row.params, short),
            _cell(row.flops, lambda x: f"{x:.1e}".replace("e+", "e")),
            _cell(row.samples, lambda x: f"{x / 1e6:,.1f}M" if x >= 1e6 else f"{x:,.0f}"),
        ],
    }


def _cell(value: Any, shown: Callable[[Any], str]) -> tuple[Any, str]:
    """What a column is sorted by, and what it shows."""
    return (None, "–") if value is None else (value, shown(value))


def agent_path(row: BoardRow) -> str:
    """The page of a row, from the site's root."""
    return f"agents/{row.id}.html"


def reference_groups(references: Sequence[Reference]) -> list[dict[str, Any]]:
    """Published figures, by source and protocol of their own; none is ranked."""
    groups: dict[tuple[str, ...], list[Reference]] = {}
    for one in references:
        groups.setdefault((one.source, one.url, one.protocol, one.checked), []).append(one)
    return [
        {
            "source": source,
            "link": url if url.startswith("https://") else "",
            "protocol": protocol,
            "how": ", ".join(_CHECKED.get(code, code) for code in checked.split(", ") if code),
            "figures": figures,
        }
        for (source, url, protocol, checked), figures in groups.items()
    ]
