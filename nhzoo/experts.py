"""What the bundled expert games came to: a reference beside agents, not a protocol."""

from __future__ import annotations

from typing import Any

import numpy as np

from nhzoo.statistics import mean_ci95
from nhzoo.traces import open_traces


def expert_summary(name: str) -> dict[str, Any]:
    """Mean, interval and median of the scores of a trace set, and its mean turns and depth."""
    traces = open_traces(name).traces
    scores = [trace.score for trace in traces if trace.score is not None]
    turns = [trace.turns for trace in traces if trace.turns is not None]
    return {
        "episodes": len(scores),
        "mean_score": float(np.mean(scores)),
        "mean_score_ci95": list(mean_ci95(scores)),
        "median_score": float(np.median(scores)),
        "mean_turns": float(np.mean(turns)) if turns else None,
    }


def dataset_row(name: str) -> dict[str, Any]:
    """One line of `nhzoo data list`."""
    traces = open_traces(name)
    held_out = traces.select("validation")
    return {
        "name": name,
        "games": len(traces.traces),
        "steps": sum(trace.length for trace in traces.traces),
        "held_out_games": len(held_out),
        "held_out_steps": sum(trace.length for trace in held_out),
        "mean_score": expert_summary(name)["mean_score"],
    }
