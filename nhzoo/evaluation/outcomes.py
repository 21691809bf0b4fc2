"""Breakdowns of a result: causes of death, ends, roles and survival curves.

Everything is computed from rows of `episodes.jsonl`, nothing is replayed.

Survival curves say how long games last when not every game was seen to its end.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy

from nhzoo.evaluation.results import Row
from nhzoo.evaluation.statistics import Interval, iqm, mean_ci95


@dataclass(frozen=True)
class Survival:
    """A survival curve: one entry for each time at which something died.

    From `times[i]` on, up to the next, a fraction `alive[i]` is alive, with a 95 % interval from
    `low[i]` to `high[i]`; `at_risk[i]` were watched just before and `deaths[i]` of them died.
    Before `times[0]` all are alive. `censored` are the times at which others went out of sight.
    """

    times: list[float]
    at_risk: list[int]
    deaths: list[int]
    alive: list[float]
    low: list[float]
    high: list[float]
    censored: list[float]
    end: float

    @property
    def median(self) -> float | None:
        """The first time at which half or fewer are alive; None if more always are."""
        for time, alive in zip(self.times, self.alive, strict=True):
            if alive <= 0.5 + 1e-12:
                return time
        return None


def kaplan_meier(times: Sequence[float], died: Sequence[bool]) -> Survival:
    """The product-limit estimate (Kaplan & Meier 1958, doi 10.2307/2281868).

    `times[i]` is how long i was watched, `died[i]` whether that ended with its death; otherwise it
    is censored, and a censoring at the time of a death counts as just after it. The interval is
    Greenwood's variance on the log(-log) scale, so it stays within 0 and 1; where the estimate is 0
    that has no value, and the interval is given as the last one's, reaching down to 0.
    """
    time, event = np.asarray(times, np.float64), np.asarray(died, bool)
    if time.shape != event.shape or time.ndim != 1 or not len(time):
        raise ValueError("as many times as outcomes are needed, at least one")
    moments, deaths = np.unique(time[event], return_counts=True)
    alive = low = high = np.empty(0)
    if len(moments):
        curve = scipy.stats.ecdf(scipy.stats.CensoredData.right_censored(time, ~event)).sf
        with warnings.catch_warnings():  # where nobody is alive there is no interval
            warnings.simplefilter("ignore")
            ends: Any = curve.confidence_interval(method="log-log")
        kept = np.searchsorted(curve.quantiles, moments)
        alive, low, high = (part.probabilities[kept] for part in (curve, ends.low, ends.high))
        if alive[-1] <= 0:
            alive[-1], low[-1], high[-1] = 0, 0, high[-2] if len(high) > 1 else 1
    return Survival(
        times=moments.tolist(),
        at_risk=[int(np.count_nonzero(time >= moment)) for moment in moments],
        deaths=deaths.tolist(),
        alive=alive.tolist(),
        low=low.tolist(),
        high=high.tolist(),
        censored=sorted(time[~event].tolist()),
        end=float(time.max()),
    )


UNKNOWN = "unknown"
MAX_CAUSE = 60
"""Characters of a cause that are kept: what a crashed bot said is as long as it likes."""

_WAYS = {
    "choked on ": "choked",
    "drowned in ": "drowned",
    "burned by ": "burned",
    "dissolved in ": "dissolved",
    "crushed to death by ": "crushed",
    "petrified by ": "petrified",
    "turned to slime by ": "turned to slime",
    "died of starvation": "starved",
    "killed himself by ": "own doing",
    "caught himself in ": "own doing",
    "caught herself in ": "own doing",
    "killed herself by ": "own doing",
}
"""How NetHack's log begins the deaths that are known by how they came, not by what did it."""

_ARTICLE = re.compile(r"(an?|the) ")
_SEEMING = re.compile(r"(invisible|hallucinogen-distorted|saddled|peaceful|tame) ")
_OF_SOMEONE = re.compile(r"(.+?) of (?=[A-Z])")


@dataclass(frozen=True)
class CauseRow:
    """Games that ended in one way. `share` is of all games; `mean_score` of these."""

    cause: str
    games: int
    share: float
    mean_score: float


@dataclass(frozen=True)
class RoleRow:
    """Games of one role ("Mon", or "unknown"). `mean_progression` is 0 to 1."""

    role: str
    games: int
    mean_score: Interval
    median_score: float
    iqm_score: float
    mean_progression: float
    mean_turns: float
    max_depth: int


@dataclass(frozen=True)
class Breakdown:
    """The games of one result, by cause, end status and role; most games first.

    `survival` is by game turn: games that no death ended were out of sight from then on. None of no
    games.
    """

    games: int
    end_statuses: dict[str, int]
    causes: list[CauseRow]
    roles: list[RoleRow]
    survival: Survival | None

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def breakdown(rows: Sequence[Row], role_of: Callable[[Row], str | None] | None = None) -> Breakdown:
    """Group the games of a result by cause, end and role.

    `role_of` gives the role of a row where `row_role` cannot.
    """
    causes = _grouped(rows, lambda row: cause_group(row["cause"], row["end_status"]))
    roles = _grouped(rows, lambda row: row_role(row, role_of) or UNKNOWN)
    return Breakdown(
        games=len(rows),
        end_statuses={s: len(g) for s, g in _grouped(rows, lambda r: r["end_status"]).items()},
        causes=[
            CauseRow(cause, len(group), len(group) / len(rows), _mean(group, "score"))
            for cause, group in causes.items()
        ],
        roles=[_role_row(role, group) for role, group in roles.items()],
        survival=_survival(rows) if rows else None,
    )


def cause_group(cause: str, end_status: str = "death") -> str:
    """The short name under which a game's end is counted.

    "killed by a jackal" is "jackal", "choked on a food ration" "choked", "poisoned by a rotted newt
    corpse" "rotted food". Who was killed by someone with a name of his own is counted under what
    that one is: "shopkeeper", "minion of a god". Games that no death ended are named by their end
    status, a failed agent's by that.
    """
    cause = " ".join(cause.split())
    if end_status == "crashed" and cause:
        return "NLE failed" if cause.startswith("NLE ") else "agent failed"
    if end_status == "stalled" and cause:
        return "agent out of time"
    if end_status != "death":
        return end_status.replace("_", " ")
    cause = cause.partition(", while ")[0]
    for beginning, way in _WAYS.items():
        if cause.startswith(beginning):
            return way
    if cause.startswith("poisoned by "):
        return "rotted food" if "rotted " in cause else "poisoned"
    if cause.startswith("killed by "):
        return _killer(cause.removeprefix("killed by "))[:MAX_CAUSE]
    return cause[:MAX_CAUSE] or UNKNOWN


def role_of_character(character: str) -> str | None:
    """The role of a NetHack character option: "Mon" of "mon-hum-neu-mal", None of "@"."""
    role = character.partition("-")[0]
    return role.capitalize() if re.fullmatch(r"[A-Za-z]{3}", role) else None


def row_role(row: Row, role_of: Callable[[Row], str | None] | None = None) -> str | None:
    """The role of one game: the row's own `role`, its character's, or what `role_of` says."""
    own = row.get("role")
    if isinstance(own, str) and own:
        return own
    return role_of_character(row["character"]) or (role_of(row) if role_of else None)


def _killer(text: str) -> str:
    """What killed, without articles, looks and names."""
    text = _ARTICLE.sub("", text, count=1) if _ARTICLE.match(text) else text
    if text.endswith("; the shopkeeper"):
        return "shopkeeper"
    while _SEEMING.match(text):
        text = _SEEMING.sub("", text, count=1)
    text = text.partition(" imitating ")[0].partition(" called ")[0]
    someone = _OF_SOMEONE.match(text)
    if someone is None:
        return text
    what = someone[1]
    if what == "wrath":
        return "wrath of a god"
    if what in ("ghost", "priest", "priestess", "high priest", "high priestess"):
        return what
    minion = what[0].islower() or what in ("Aleax", "Angel", "Archon")
    return "minion of a god" if minion else text  # "Wizard of Yendor"


def _survival(rows: Sequence[Row]) -> Survival:
    return kaplan_meier(
        [row["turns"] for row in rows], [row["end_status"] == "death" for row in rows]
    )


def _grouped(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return {name: groups[name] for name in _ordered({n: len(g) for n, g in groups.items()})}


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _role_row(role: str, rows: Sequence[Row]) -> RoleRow:
    scores = [float(row["score"]) for row in rows]
    return RoleRow(
        role=role,
        games=len(rows),
        mean_score=Interval.of(float(np.mean(scores)), mean_ci95(scores)),
        median_score=float(np.median(scores)),
        iqm_score=iqm(scores),
        mean_progression=_mean(rows, "progression"),
        mean_turns=_mean(rows, "turns"),
        max_depth=max(row["max_depth"] for row in rows),
    )
