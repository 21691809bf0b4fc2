"""The demonstration of the whole loop, with a trainer that takes no time in place of minutes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest

from nhzoo.runtime import files
from nhzoo.training.run_table import read_runs
from tests import ROOT

LAW = (
    "import json, sys; n, d, seed = map(int, sys.argv[1:4]); "
    "loss = 0.3 + 20 * n**-0.5 + 40 * d**-0.4; wobble = 1 + 0.004 * (hash((n, d, seed)) % 7 - 3); "
    "json.dump(dict(loss=loss * wobble), open(sys.argv[4], 'w'))"
)
TRAINER = (
    f"{shlex.quote(sys.executable)} -c {shlex.quote(LAW)} {{params}} {{samples}} {{seed}} {{row}}"
)
SMALL = ("--budgets", "1e8:1e9:3", "--center", "2000@1e9^0.4", "--sizes", "5", "--step", "2")


def demo(out, *words) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(ROOT / "training/scaling_demo.py"), "--out", str(out)]
    return subprocess.run([*script, *words], capture_output=True, text=True, timeout=580)


@pytest.mark.slow
def test_the_loop_ends_in_a_page_of_what_was_forecast_and_what_came(tmp_path):
    words = (*SMALL, "--target", "4e9", "--command", TRAINER)
    done = demo(tmp_path / "demo", *words)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for command in ("sweep plan", "sweep run", "fit", "forecast", "train next", "grade", "plot"):
        assert f"$ nhzoo {command} " in done.stdout
    rows = read_runs(tmp_path / "demo" / "runs.jsonl")
    assert len(rows) == 16 and rows[-1].run_id == "next"
    grade = json.loads((tmp_path / "demo" / "grade.json").read_text())
    assert grade["loss"]["observed"] == rows[-1].loss
    said = files.read_json(tmp_path / "demo" / "forecast.json")
    page = (tmp_path / "demo" / "index.html").read_text()
    assert f"{said['params']:,}" in page and f"{rows[-1].loss:.3f}" in page
    assert said["sha256"][:16] in page
    assert page.count("data:image/png;base64,") == 3 and "http" not in page.split("<body>")[1]
    again = demo(tmp_path / "demo", *words)  # resumes: nothing is trained or forecast again
    assert again.returncode == 0, again.stderr[-2000:]
    assert "$ nhzoo forecast" not in again.stdout
    assert (tmp_path / "demo" / "forecast.json").read_text() == files.dump_json(said).decode()


@pytest.mark.slow
def test_a_step_that_fails_ends_the_loop_with_its_code(tmp_path):
    done = demo(tmp_path, *SMALL, "--command", "false {row}")
    assert done.returncode == 2
    assert "the same command resumes" in done.stderr
