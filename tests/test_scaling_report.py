"""training/REPORT.md says what the tables, results and forecasts say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINING = ROOT / "training"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("report_script", TRAINING / "report.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def report(script):
    return script.Report.read()


def test_the_page_is_what_make_report_writes(script, report):
    assert (TRAINING / "REPORT.md").read_text() == script.words(report)
    for name in (*script.LAW_FIGURES, "loss-return"):
        assert (TRAINING / "figures" / "report" / f"{name}.svg").is_file()


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


def test_the_figures_can_be_drawn_without_the_papers_points(script, report, tmp_path):
    pytest.importorskip("matplotlib")
    script.draw(report, tmp_path, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("isoflop.svg", "loss-return.svg", "loss.svg", "optimum.svg")
    ]


def test_a_name_that_the_template_lacks_or_that_nobody_fills_is_an_error(script):
    assert script.fill("a {{b}}", {"b": "c"}) == "a c"
    for text, values in (("a", {"b": "c"}), ("{{a}} {{b}}", {"b": "c"})):
        with pytest.raises(KeyError):
            script.fill(text, values)
