"""Cells that are anybody's commands: filled in, watched, tried again, never run twice."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nhzoo.errors import InputError, NhzooError
from nhzoo.runtime.processes import wait_for_end
from nhzoo.scaling import cost
from nhzoo.scaling.sweeps.commands import Command, run_cell, run_commands
from nhzoo.scaling.sweeps.plan import Cell, Plan
from nhzoo.training.run_table import read_runs
from tests import ROOT
from tests.helpers.commands import run as nhzoo

CELL = Cell("mine-1", 1_000, 6e6, 1_000, 3, None, None)
PLAN = Plan(
    "mine", "given", (6e6,), (CELL, replace(CELL, run_id="mine-2", params=2_000, samples=500)),
    (), cost.proportional(6), None, None,
)  # fmt: skip

TRAINER = """
import json, os, pathlib, sys
size, samples, seed, row, folder = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
count = pathlib.Path(folder, "count")
tries = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(tries))
print("begins", flush=True)
exec(os.environ.get("MISCHIEF", ""))
pathlib.Path(row).write_text(json.dumps({"loss": 1 / size, "note": "of mine", "seed": 99}))
"""


@pytest.fixture
def command(tmp_path) -> Command:
    (tmp_path / "train it.py").write_text(TRAINER)
    places = "{params} {samples} {seed} {row} {folder}"
    text = f"{sys.executable} '{tmp_path}/train it.py' {places}"
    return Command(text, str(tmp_path / "runs"))


def tries(command: Command, cell: Cell = CELL) -> int:
    return int(Path(command.folder, cell.run_id, "count").read_text())


@pytest.mark.slow
def test_each_cell_is_run_once_and_its_row_is_in_the_table(command, tmp_path):
    table, told = tmp_path / "runs.jsonl", []
    first = replace(PLAN, cells=PLAN.cells[:1])
    run_commands(first, command, table)
    rows = run_commands(PLAN, command, table, jobs=2, progress=lambda row: told.append(row.run_id))
    assert rows == read_runs(table)
    assert sorted(told) == ["mine-1", "mine-2"]
    for row, cell in zip(rows, PLAN.cells, strict=True):
        assert (row.run_id, row.params, row.samples) == (cell.run_id, cell.params, cell.samples)
        assert (row.loss, row.flops, row.flops_budget) == (1 / cell.params, 6e6, 6e6)
        assert row.seed == cell.seed  # the plan's, whatever the command says
        assert tries(command, cell) == 1
    # One that had ended when its sweep was killed is not run again.
    table.write_text("")
    assert run_commands(PLAN, command, table) == rows
    assert tries(command) == 1


def test_what_fails_is_told_with_its_last_line(command, monkeypatch):
    monkeypatch.setenv("MISCHIEF", "print('no such data'); sys.exit(3)")
    with pytest.raises(NhzooError, match=r"mine-1: its command failed \(exit code 3\): no such da"):
        run_cell(CELL, command)
    monkeypatch.setenv("MISCHIEF", "sys.exit(0)")
    with pytest.raises(NhzooError, match=r"has ended and written no .*row.json"):
        run_cell(CELL, command)


def test_one_that_is_killed_is_tried_again(command, monkeypatch):
    monkeypatch.setenv("MISCHIEF", "tries < 3 and os.kill(os.getpid(), 9)")
    assert run_cell(CELL, command)["loss"] == 1e-3
    assert tries(command) == 3
    monkeypatch.setenv("MISCHIEF", "os.kill(os.getpid(), 9)")
    with pytest.raises(NhzooError, match="killed 3 times, signal 9"):
        run_cell(replace(CELL, run_id="other"), command)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("true {rows}", "cannot be filled in"),
        ("true {", "cannot be filled in"),
        ("true 'x", "cannot be filled in"),
        ("true {params.real.nothing}", "cannot be filled in"),
        ("true {0}", "cannot be filled in"),
        ("true --size {params}", "says nowhere that it is to write its row to {row}"),
        ("no-such-command {row}", "there is no command 'no-such-command' here"),
    ],
)
def test_commands_that_cannot_be(text, says, tmp_path):
    with pytest.raises(InputError) as raised:
        Command(text, str(tmp_path))
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{}", "column loss: is missing"),
        ('{"loss": "low"}', "column loss: must be a number"),
        ('{"loss": 1, "params": 3000}', "its row says 3,000 parameters, the plan 1,000"),
        ("loss 0.3", "row.json"),
        ("[1]", "row.json"),
    ],
)
def test_rows_that_are_none(command, tmp_path, row, says):
    folder = Path(command.folder, CELL.run_id)
    folder.mkdir(parents=True)
    (folder / "row.json").write_text(row)
    with pytest.raises(NhzooError) as raised:
        run_commands(replace(PLAN, cells=(CELL,)), command, tmp_path / "runs.jsonl")
    assert says in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "runs.jsonl").exists()


@pytest.mark.slow
def test_commands_end_with_the_sweep_that_is_killed(command, tmp_path):
    code = (
        "import sys; from tests.scaling.sweeps.test_commands import *; "
        "run_commands(PLAN, Command(sys.argv[1], sys.argv[2]), Path(sys.argv[3]), 2)"
    )
    given = [command.text, command.folder, tmp_path / "runs.jsonl"]
    mischief = "pathlib.Path(folder, 'pid').write_text(str(os.getpid())); "
    mischief += "import time; time.sleep(600)"
    sweep = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, given)],
        cwd=ROOT,
        env=os.environ | {"MISCHIEF": mischief},
    )
    try:
        places = [Path(command.folder, cell.run_id, "pid") for cell in PLAN.cells]
        for _ in range(1_200):
            if all(place.exists() and place.read_text() for place in places):
                break
            time.sleep(0.1)
        pids = [int(place.read_text()) for place in places]
    finally:
        sweep.send_signal(signal.SIGKILL)
        sweep.wait()
    assert all(wait_for_end(pid, 60) for pid in pids)
    rows = run_commands(PLAN, command, tmp_path / "runs.jsonl")  # goes on
    assert len(rows) == 2 and tries(command) == 2


@pytest.mark.slow
def test_the_documented_example_from_plan_to_grade(tmp_path, monkeypatch):
    """The commands of SCALING.md, with a smaller grid."""
    text = (ROOT / "training" / "SCALING.md").read_text().split("## Your own trainer")[1]
    block = text.split("```sh\n")[1].split("```")[0].replace("\\\n", " ")
    lines = [line for line in block.splitlines() if line.startswith("nhzoo ")]
    assert [line.split()[1] for line in lines] == [
        *("sweep", "sweep", "fit", "forecast", "train", "grade")
    ]
    monkeypatch.chdir(tmp_path)
    for line in lines:
        words = [
            word.replace("python training", f"{sys.executable} {ROOT}/training").replace(
                "1e8:1e10:5", "1e8:1e9:3"
            )
            for word in shlex.split(line)[1:]
        ]
        if words[0] == "forecast":
            words[words.index("1e11")] = "3e9"
        if "plan" in words:
            words += ["--sizes", "5"]
        done = nhzoo(*words)
        assert done.returncode == 0, done.stderr
    assert "held-out" not in done.stdout and "loss" in done.stdout
    (tmp_path / "plan.json").write_text("{}")
    rows = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert rows[-1]["run_id"] == "next" and len(rows) == 20
    failed = nhzoo("sweep", "run", "plan.json", "--ledger", "runs.jsonl", "--runs", "runs")
    assert failed.returncode == 2 and "either --out for the entries, or --command" in failed.stderr
