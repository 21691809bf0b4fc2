"""What AutoAscend's games came to: a reference beside agents, not a protocol."""

from __future__ import annotations

from typing import Any

import numpy as np

from nhzoo.data.traces import open_traces
from nhzoo.evaluation.statistics import mean_ci95


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
