"""Normalised scores: 1.0 is AutoAscend's mean score with the same role.

A reference, not a result under a protocol: AutoAscend's bundled games have seeds of their own, and
more than half of them other limits, so the share says how far an agent is from its expert, not
which of two agents is better. For that there is `nhzoo.evaluation.comparison`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nhzoo.data.traces import Trace, open_traces
from nhzoo.evaluation import statistics
from nhzoo.evaluation.outcomes import UNKNOWN, RoleRow, breakdown, role_of_character, row_role
from nhzoo.evaluation.results import Row
from nhzoo.evaluation.statistics import Interval, mean_ci95


def expert_summary(name: str) -> dict[str, Any]:
    """Mean, interval and median of the scores of the games called expert-monk, and mean turns.

    These are the games of `name` that `nhzoo data record` has not added to it.
    """
    traces = [trace for trace in open_traces(name).traces if trace.agent is None]
    scores = [trace.score for trace in traces if trace.score is not None]
    turns = [trace.turns for trace in traces if trace.turns is not None]
    return {
        "episodes": len(scores),
        "mean_score": float(np.mean(scores)),
        "mean_score_ci95": mean_ci95(scores),
        "median_score": float(np.median(scores)),
        "mean_turns": float(np.mean(turns)) if turns else None,
    }


MONKS, ALL_ROLES = "autoascend-monk-v1", "autoascend-allroles-v1"
"""The bundled games of monks and of the other roles."""

LEAST_GAMES = 50
"""Expert games of a role without which its mean is too uncertain to divide by."""

REFERENCE = (
    "reference, not a result under the protocol: AutoAscend's bundled games have seeds of their own"
)


@dataclass(frozen=True)
class Normalized:
    """An agent's mean score over AutoAscend's mean score with the same role.

    `ratio` (1.0: as AutoAscend) has a 95 % interval that carries both samples' uncertainty: both
    are resampled (BCa bootstrap, 10,000 times); below five games it has no ends. It is None when
    `reason` says why there is none.
    `reference` has to be shown wherever the ratio is.
    """

    role: str
    ratio: Interval | None
    reason: str
    agent_games: int
    expert_games: int
    expert_mean: Interval | None
    dataset: str
    reference: str = REFERENCE

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def expert_scores(role: str, dataset: str | None = None) -> list[float]:
    """Scores of AutoAscend's games with a role ("Mon"), in the order of the trace set they are in.

    Without `dataset` it is the bundled one that is for that role. All of them count, however they
    ended: games that a limit or the bot's own failure cut short are part of how the expert scores.
    Only those recorded under limits that the protocol does not have do not.
    """
    return [
        float(trace.score)
        for trace in open_traces(dataset or _dataset_of(role)).traces
        if trace.score is not None
        and not trace.limited
        and _is_expert(trace)
        and _role(trace) == role
    ]


def normalize_scores(scores: Sequence[float], role: str, dataset: str | None = None) -> Normalized:
    """Normalise the scores of one agent's games with one role ("Mon")."""
    if not len(scores):
        raise ValueError("no scores")
    dataset = dataset or _dataset_of(role)
    experts = expert_scores(role, dataset)
    expert_mean = None
    if experts:
        expert_mean = Interval.of(float(np.mean(experts)), statistics.mean_ci95(experts))
    ratio, reason = None, ""
    if len(experts) < LEAST_GAMES:
        reason = (
            f"{dataset} has {len(experts)} games of AutoAscend with the role {role}; "
            f"{LEAST_GAMES} are needed"
        )
    else:
        try:
            ratio = statistics.ratio_of_means(scores, experts)
        except ValueError as error:
            reason = f"{dataset}: {error}"
    return Normalized(role, ratio, reason, len(scores), len(experts), expert_mean, dataset)


def normalize_rows(
    rows: Sequence[Row], role: str | None = None, dataset: str | None = None
) -> Normalized:
    """Normalise the games of a result: rows of `episodes.jsonl`, all with one role.

    `role` is by default the rows' own. With several roles there is no ratio: see `by_role`.
    """
    if role is None:
        roles = {row_role(row) for row in rows}
        role = roles.pop() if len(roles) == 1 else None
    if role is None:
        reason = "the games have several roles, or roles that are not known"
        return Normalized("", None, reason, len(rows), 0, None, dataset or "")
    return normalize_scores([float(row["score"]) for row in rows], role, dataset)


def by_role(rows: Sequence[Row]) -> list[tuple[RoleRow, Normalized]]:
    """The roles of a result, most games first, and each one's share of AutoAscend's mean score."""
    return [
        (
            role,
            normalize_rows([r for r in rows if (row_role(r) or UNKNOWN) == role.role], role.role),
        )
        for role in breakdown(rows).roles
    ]


def _dataset_of(role: str) -> str:
    return MONKS if role == "Mon" else ALL_ROLES


def _is_expert(trace: Trace) -> bool:
    """Games of the set without an agent's name were recorded before names were kept."""
    return trace.agent is None or trace.agent.partition("@")[0] == "autoascend"


def _role(trace: Trace) -> str | None:
    return trace.role or role_of_character(trace.spec.character)
