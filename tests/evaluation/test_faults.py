"""Games that failed are shown wherever a score is, and crashes alone are no score."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from nhzoo import evaluate, verify
from nhzoo.cli.app import cli
from nhzoo.errors import CheckFailed
from nhzoo.evaluation import results
from nhzoo.evaluation.comparison import compare
from nhzoo.evaluation.evaluator import _finish
from nhzoo.evaluation.verification import summary_problems
from nhzoo.leaderboard import board as board_export
from nhzoo.leaderboard.board import read_board
from nhzoo.leaderboard.site.page import board_table, templates
from nhzoo.leaderboard.submitting import make
from nhzoo.publishing.report import write_report
from nhzoo.runtime import console, files
from tests import ROOT
from tests.conftest import read_rows
from tests.helpers.fuzz_submissions import FUZZ, PROTOCOLS
from tests.helpers.saboteurs import Raiser, Stubborn, Typist


@pytest.fixture(scope="module")
def useless(tmp_path_factory):
    """Three games of an agent that raises at its first step, under a protocol of three games."""
    folder = tmp_path_factory.mktemp("useless") / "stubborn"
    evaluate(Stubborn(), FUZZ, workers=1, out=folder)
    return folder


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Four games, of which one crashed."""
    folder = tmp_path_factory.mktemp("half") / "raiser"
    evaluate(Raiser(), "smoke-v1", episodes=4, workers=1, out=folder)
    return folder


def test_crashes_alone_are_no_score(useless, tmp_path):
    result = json.loads((useless / "result.json").read_text())
    summary = result["summary"]
    nothing = ("mean_score", "mean_score_ci95", "median_score", "iqm_score", "std_score")
    assert {summary[name] for name in (*nothing, "mean_progression")} == {None}
    reason = "agent raised ValueError: no"
    assert summary["crashed"] == 3
    assert summary["faults"] == [{"end_status": "crashed", "games": [0, 1, 2], "reason": reason}]
    said = f"all 3 games crashed, so there is no score; the first: {reason}"
    report = verify(useless, workers=1, protocol=FUZZ)
    assert (report.ok, report.verified, report.problems) == (False, 3, [said])
    with pytest.raises(CheckFailed, match="there is no score"):
        make(useless, tmp_path / "out", "me", "MIT", protocols=PROTOCOLS)


def test_a_claimed_score_of_crashes_is_caught(useless, tmp_path):
    folder = shutil.copytree(useless, tmp_path / "claimed")
    result = json.loads((folder / "result.json").read_text())
    result["summary"] |= {"mean_score": 0.0, "mean_score_ci95": [0.0, 0.0]}
    found = summary_problems(result, read_rows(folder))
    assert any("mean_score is 0.0, its games give None" in line for line in found)


def command(*words) -> int:
    """The command in this process; its error is told as the entry point tells it."""
    try:
        return cli.main([str(word) for word in words], standalone_mode=False) or 0
    except CheckFailed as error:
        console.say(f"nhzoo: {error}")
        return 1


@pytest.mark.slow
def test_the_command_line_says_so_and_fails(tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        "evaluate",
        "tests.helpers.saboteurs:Stubborn",
        "--protocol",
        "smoke-v1",
        "--episodes",
        "2",
    ]
    words += ["--workers", "1", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "nhzoo", *words], capture_output=True, text=True, cwd=ROOT
    )
    reason = "all 2 games crashed, so there is no score; the first: agent raised ValueError: no"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"nhzoo: {out}: {reason}\n"
    assert command(*words, "--json") == 1  # all is there: it plays nothing
    told = capsys.readouterr()
    assert json.loads(told.out)["summary"]["mean_score"] is None
    assert told.err == done.stderr
    for again in (["verify", out], ["compare", out, out]):
        assert command(*again) == 1
        assert reason in capsys.readouterr().err


@pytest.mark.slow
def test_a_demo_of_crashes_shows_the_others_and_fails(tmp_path, capsys):
    assert command("demo", "tests.helpers.saboteurs:Stubborn", "--out", tmp_path) == 1
    told = capsys.readouterr()
    assert "\tno score\t-\t" in told.out and "AutoAscend" in told.out
    assert "all 8 games crashed, so there is no score" in told.err.splitlines()[-1]


@pytest.mark.slow
def test_some_crashes_are_named_beside_the_score(half, capsys, tmp_path):
    row = read_rows(half)[2]
    line = f"1 of 4 games crashed (2): {row['cause']}"
    assert row["cause"].startswith("agent raised RuntimeError: out of")
    assert command(*["verify", str(half), "--workers", "1"]) == 0
    assert line in capsys.readouterr().err
    assert command(*["verify", str(half), "--workers", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"][0]["games"] == [2]
    merged = tmp_path / "merged"
    assert command(*["merge", str(half), "--out", str(merged)]) == 0
    told = capsys.readouterr()
    assert line in told.err
    head, values = (text.split("\t") for text in told.out.splitlines())
    assert dict(zip(head, values, strict=True))["crashed"] == "1" and "voided" not in head
    page = write_report(half, tmp_path / "page.html", workers=1).read_text()
    assert "1 of 4 games crashed (2): agent raised RuntimeError: out of" in page
    assert f"a: {line}" in compare(half, merged).notes


def test_voided_games_are_named_too(tmp_path):
    folder = tmp_path / "typist"
    done = evaluate(Typist(b"#exploremode\r\ry"), "smoke-v1", episodes=2, workers=1, out=folder)
    reason = {"end_status": "voided", "games": [0, 1], "reason": "explore mode"}
    assert done.result["summary"]["faults"] == [reason]
    lines = results.fault_lines(done.result["summary"]["faults"], 2)
    assert lines == ["2 of 2 games were voided (0, 1): explore mode"]
    assert done.result["summary"]["mean_score"] == 0.0  # a score, and it is 0


def test_a_page_without_a_score(useless, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "get_protocol", lambda name: FUZZ)
    page = write_report(useless, tmp_path / "page.html", workers=1).read_text()
    assert "3 games, no score: all of them crashed." in page
    assert "3 of 3 games crashed (0, 1, 2): agent raised ValueError: no" in page


def test_many_failed_games_are_one_line():
    rows = [{"index": i, "end_status": "stalled", "cause": "slow"} for i in range(40)]
    rows += [{"index": 40, "end_status": "stalled", "cause": ""}]  # by the protocol's own limit
    (line,) = results.fault_lines(results.faults(rows), len(rows))
    named = "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 30 more"
    assert line == f"40 of 41 games went beyond the agent's time ({named}): slow"


def test_results_of_before_stay_as_they_are(half, tmp_path):
    folder = shutil.copytree(half, tmp_path / "old")
    path = folder / "result.json"
    old = json.loads(path.read_text())
    del old["summary"]["voided"], old["summary"]["faults"]
    files.atomic_write(path, files.dump_json(old))
    before = path.read_bytes()
    rows = read_rows(folder)
    assert summary_problems(old, rows) == [] and verify(folder, workers=1).ok
    new = (half / "result.json").read_text()
    _finish(folder, json.loads(new), rows, played=False)
    assert path.read_bytes() == before
    other = json.loads(new)
    other["summary"]["crashed"] = 7
    _finish(folder, other, rows, played=False)
    assert json.loads(path.read_bytes())["summary"]["crashed"] == 7


def test_the_board_names_them():
    """AutoAscend's row has 16 games in which the bot failed."""
    board = read_board(ROOT / "leaderboard", ROOT / "agents")
    rows = [row for row in board.rows if row.protocol == "monk-lite-v1"]
    show = templates().get_template("boards.html").module.board
    page = show(board_table("board", rows))
    assert page.count("16 of 128 games crashed") == 2  # with its reason
    listed = {row["id"]: row for row in board_export.as_json(board)["rows"]}
    assert listed["autoascend-monk-lite-v1"]["crashed"] == 16
    assert {row["voided"] for row in listed.values()} == {0}
