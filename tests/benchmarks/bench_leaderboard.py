"""`leaderboard check` beside raw NLE: the whole of a check, of 128 games that stand on no board.

make bench    # or: pytest tests/benchmarks/bench_leaderboard.py

Wall time of both from start to end, processes and all: reading, hashing, comparing with the rows
that are on the board, replaying. Raw NLE is as in bench_evaluation, through the same keys.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from nhzoo import get_protocol
from nhzoo.leaderboard.board import read_board
from nhzoo.leaderboard.checks import check
from nhzoo.leaderboard.claims import candidate_of
from nhzoo.leaderboard.submitting import make
from nhzoo.runtime import files
from tests.benchmarks.bench_evaluation import ACCOUNTING, CORES, ROOT, games_of, raw_rate


@pytest.mark.parametrize("agent", ["random", "bc-lstm-1m"])
def test_checking(note, tmp_path, agent):
    """A published result as somebody's submission; its own row is taken off the board."""
    whole = ROOT / "leaderboard" / "results" / agent / "monk-lite-v1"
    played = shutil.copytree(whole, tmp_path / "played")
    (played / "evaluation.json").unlink()
    result = files.read_json(played / "result.json") | {"weights_sha256": None, "params": None}
    files.atomic_write(played / "result.json", files.dump_json(result))
    package = make(played, tmp_path, "bench", "MIT", name="benched")
    rows = read_board(ROOT / "leaderboard", ROOT / "agents").rows
    others = [row for row in rows if row.agent != agent]
    games = games_of(whole, get_protocol("monk-lite-v1"))
    keys = sum(len(keys) for _, keys in games)
    seconds = {"check": float("inf"), "raw NLE": float("inf")}
    for _ in range(2):
        began = time.monotonic()
        assert check(candidate_of(Path(package)), others, workers=CORES).tier == "replayed"
        seconds["check"] = min(seconds["check"], time.monotonic() - began)
        began = time.monotonic()
        raw_rate(games, ACCOUNTING)
        seconds["raw NLE"] = min(seconds["raw NLE"], time.monotonic() - began)
    note(f"check of {agent}, {keys:,} keys", seconds, f"seconds, {CORES} workers; less is better")
