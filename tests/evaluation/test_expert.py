"""Scores as a share of AutoAscend's."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nhzoo.data.traces import open_traces
from nhzoo.evaluation.expert import (
    LEAST_GAMES,
    REFERENCE,
    expert_scores,
    normalize_rows,
    normalize_scores,
)
from nhzoo.evaluation.statistics import mean_ci95
from nhzoo.runtime import files


def test_the_expert_itself_is_one():
    experts = expert_scores("Mon")
    found = normalize_scores(experts, "Mon")
    assert found.ratio is not None and found.expert_mean is not None
    assert found.ratio.estimate == 1
    assert found.ratio.low < 1 < found.ratio.high
    assert found.expert_games == len(experts) == len(open_traces("autoascend-monk-v1").traces)
    assert found.expert_mean.estimate == pytest.approx(np.mean(experts))
    assert found.reason == "" and found.reference == REFERENCE
    json.dumps(found.as_json(), allow_nan=False)


def test_both_samples_are_in_the_interval():
    experts = expert_scores("Mon")
    scores = [500.0, 700.0, 900.0, 1500.0] * 32
    found = normalize_scores(scores, "Mon").ratio
    assert found is not None
    low, high = (value / np.mean(experts) for value in mean_ci95(scores))
    assert found.low < low < found.estimate < high < found.high
    exact = normalize_scores([1000.0] * 5, "Mon").ratio  # all that is uncertain is the expert
    assert exact is not None
    low, high = (1000 / value for value in reversed(mean_ci95(experts)))
    assert (exact.low, exact.high) == pytest.approx((low, high), rel=0.02)


def test_a_role_without_enough_games_has_a_reason():
    found = normalize_scores([1.0], "Val")
    games = len(expert_scores("Val"))
    assert found.ratio is None and found.agent_games == 1 and found.expert_games == games < 50
    assert f"has {games} games of AutoAscend with the role Val; {LEAST_GAMES}" in found.reason
    nobody = normalize_scores([1.0], "Xyz")
    assert nobody.ratio is None and nobody.expert_mean is None and nobody.expert_games == 0
    assert normalize_scores([1.0], "Val", "autoascend-monk-v1").expert_games == 0
    with pytest.raises(ValueError, match="no scores"):
        normalize_scores([], "Mon")


def test_rows():
    monk = {"character": "mon-hum-neu-mal", "score": 159.6}
    assert normalize_rows([monk] * 3).role == "Mon"
    drawn = {"character": "@", "score": 1.0}
    assert "several roles" in normalize_rows([drawn]).reason
    assert normalize_rows([drawn], role="Mon").ratio is not None
    assert normalize_rows([monk, {**monk, "character": "val-hum-law-fem"}]).ratio is None


def test_only_the_experts_own_games_count(tmp_path):
    """Games of other agents, of other roles, without a score or stopped early are no reference."""
    games = (open_traces("autoascend-monk-v1").folder / "games.jsonl").read_text()
    base = json.loads(games.splitlines()[0])
    rows = [base | {"game": i, "env_score": 100.0} for i in range(49)]
    rows += [
        base | {"game": 100, "agent": "bc-lstm-1m@1", "env_score": 1.0},
        base | {"game": 101, "role": "Val", "env_score": 1.0},
        base | {"game": 102, "env_score": None},
        base | {"game": 104, "env_score": 1.0, "max_steps": 30_000},
    ]
    files.atomic_write(tmp_path / "few" / "games.jsonl", files.dump_jsonl(rows))
    found = normalize_scores([50.0], "Mon", str(tmp_path / "few"))
    assert found.ratio is None and found.expert_games == 49
    rows.append(base | {"game": 103, "agent": "autoascend@0.37.3", "env_score": 100.0})
    files.atomic_write(tmp_path / "enough" / "games.jsonl", files.dump_jsonl(rows))
    found = normalize_scores([50.0, 150.0], "Mon", str(tmp_path / "enough"))
    assert found.ratio is not None and found.ratio.estimate == 1 and found.expert_games == 50
    rows = [base | {"game": i, "env_score": 0.0} for i in range(60)]
    files.atomic_write(tmp_path / "zeros" / "games.jsonl", files.dump_jsonl(rows))
    found = normalize_scores([50.0], "Mon", str(tmp_path / "zeros"))
    assert found.ratio is None and "zeros" in found.reason
