"""How an entry samples, tried on games of no protocol: temperature, cut-off, patience.

The games are those of `TUNING`: their seeds belong to no protocol and to no dataset, so that a
choice made on them says nothing of the games that are ranked. All samplings play the same games.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from nhzoo.agents.base import PolicyAgent
from nhzoo.agents.loading import load
from nhzoo.envs.protocols import Protocol
from nhzoo.errors import InputError
from nhzoo.evaluation.evaluator import Progress, evaluate
from nhzoo.evaluation.outcomes import CauseRow, breakdown
from nhzoo.evaluation.statistics import Interval, paired_difference
from nhzoo.policy.checkpoint import Sampling

TUNING = Protocol("tuning-v1", "mon-hum-neu-mal", 1_024, 100_000, 1_000)
"""Monks under the limits of `monk-v1`, on seeds of their own. It is no protocol to be ranked by."""


@dataclass(frozen=True)
class Tuned:
    """What one way of sampling scored. `ahead` is the difference to the first, by game."""

    sampling: Sampling
    mean_score: Interval
    median_score: float
    mean_steps: float
    stalled: int
    causes: list[CauseRow]
    ahead: Interval | None


def tune(
    agent: str | Path,
    samplings: Sequence[Sampling],
    games: int,
    out: Path,
    workers: int | None = None,
    progress: Callable[[Sampling, Progress], None] = lambda sampling, progress: None,
) -> list[Tuned]:
    """Play the first `games` tuning games with each sampling; results are kept in `out`.

    InputError for an agent that is no zoo entry. A second call resumes where the first stopped.
    """
    loaded = load(agent)
    if not isinstance(loaded, PolicyAgent):
        raise InputError(f"agent '{agent}' is no zoo entry: there is no sampling to tune")
    found: list[Tuned] = []
    first = np.empty(0)
    for sampling in samplings:
        player = PolicyAgent(replace(loaded.entry, sampling=sampling), loaded.source)
        played = evaluate(
            player,
            TUNING,
            games,
            workers,
            out / label(sampling),
            progress=partial(progress, sampling),
        )
        scores = np.array([row["score"] for row in played.episodes])
        ends, summary = breakdown(played.episodes), played.result["summary"]
        ahead = paired_difference(scores, first) if found else None
        first = first if found else scores
        found.append(
            Tuned(
                sampling,
                Interval.of(summary["mean_score"], summary["mean_score_ci95"]),
                summary["median_score"],
                summary["mean_steps"],
                ends.end_statuses.get("stalled", 0),
                ends.causes,
                ahead,
            )
        )
    return found


def label(sampling: Sampling) -> str:
    """A folder's name for a sampling: "t0.8-m0.05-p64"."""
    return f"t{sampling.temperature:g}-m{sampling.min_p:g}-p{sampling.patience}"
