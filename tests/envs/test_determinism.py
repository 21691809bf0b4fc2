"""The determinism study on a few games, and what it says of a game that does differ."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from nhzoo.data.traces import open_traces
from tests import ROOT
from tests.helpers import determinism
from tests.helpers.determinism import PASSES, Pass

pytestmark = pytest.mark.slow


def test_the_passes_cover_clocks_workers_and_orders():
    assert {way.ahead for way in PASSES} == {0, determinism.MONTH}
    assert {way.workers for way in PASSES} == {1, 2}
    assert {way.backwards for way in PASSES} == {False, True}


def test_games_are_the_same_in_every_pass():
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler to build the shifted clock with")
    traces = open_traces("autoascend-monk-v1").traces
    assert determinism.study(sorted(traces, key=lambda trace: trace.length)[:4]) == {}


def test_make_determinism_runs():
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler to build the shifted clock with")
    command = [sys.executable, "-m", "tests.helpers.determinism", "autoascend-monk-v1", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 of 1 games are the same in every pass" in done.stdout


def test_a_game_that_differs_is_named_with_its_first_frame():
    """A deep game under two birthdays: ants and shopkeepers are others."""
    games = [trace for trace in open_traces("autoascend-monk-v1").traces if trace.game == "1000019"]
    ways = [Pass(0, 1, False, ubirthday) for ubirthday in (1_000_000_000, 1_700_000_000)]
    differing = determinism.study(games, ways)
    assert list(differing) == ["1000019"]
    at, first, second = re.search(
        r"first at frame ([\d,]+);.*\n    (.*)\n    (.*)", differing["1000019"]
    ).groups()
    frame = int(at.replace(",", ""))
    assert first != second
    before, after = (
        [determinism.run(way, games, range(t, t + 1))[0].seen for way in ways]
        for t in (frame - 1, frame)
    )
    assert before[0] == before[1] and after[0] != after[1]
