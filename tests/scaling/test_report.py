"""training/REPORT.md says what the tables, results and forecasts say."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest

from tests import ROOT

TRAINING = ROOT / "training"
FIGURES = ["isoflop", "loss", "loss-return", "optimum", "playing"]


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TRAINING)
        yield importlib.import_module("report")


@pytest.fixture(scope="module")
def report(script):
    return script.Report.read()


@pytest.mark.slow
def test_the_page_is_what_make_report_writes(script, report):
    assert (TRAINING / "REPORT.md").read_text() == script.words(report)
    for name in FIGURES:
        assert (TRAINING / "figures" / "report" / f"{name}.svg").is_file()


@pytest.mark.slow
def test_agents_are_measured_on_the_games_of_the_sweep_and_scored_as_published(script, report):
    sweep = script.sweep_rows(script.SWEEP)
    assert {row.validation_frames for row in (*sweep, *report.agents)} == {
        sweep[0].validation_frames
    }
    for row in report.agents:
        result = ROOT / "leaderboard" / "results" / row.run_id / "monk-lite-v1" / "result.json"
        assert row.mean_return == json.loads(result.read_text())["summary"]["mean_score"]
        entry = json.loads((ROOT / "agents" / row.run_id / "config.json").read_text())
        assert (row.params, row.flops) == (entry["params"], entry["training"]["flops"])


@pytest.mark.slow
def test_the_figures_can_be_drawn_without_the_papers_points(script, report, tmp_path):
    pytest.importorskip("matplotlib")
    script.draw(report, tmp_path, None)
    assert sorted(path.stem for path in tmp_path.iterdir()) == FIGURES


def test_a_name_that_the_template_lacks_or_that_nobody_fills_is_an_error(script):
    assert script.fill("a {{b}}", {"b": "c"}) == "a c"
    for text, values in (("a", {"b": "c"}), ("{{a}} {{b}}", {"b": "c"})):
        with pytest.raises(KeyError):
            script.fill(text, values)


@pytest.mark.slow
def test_a_backend_of_a_notebook_that_is_not_there_stops_no_plot():
    code = (
        "import os; from nhzoo.scaling.plot_style import matplotlib; "
        "print(matplotlib().figure.Figure, os.environ['MPLBACKEND'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"MPLBACKEND": "module://of_a_notebook.backend"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "module://of_a_notebook.backend"
