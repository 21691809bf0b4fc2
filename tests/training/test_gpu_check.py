"""The script for the first minutes on a GPU, at debug sizes on a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace

import pytest

from nhzoo.agents.loading import load
from nhzoo.training.run_table import read_runs
from tests import ROOT

SCRIPT = ROOT / "training" / "gpu_check.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu_check"]


@pytest.fixture
def check(script, small_set, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "DATA", os.fspath(small_set))
    plan = replace(
        script.QUICK,
        sizes=(20_000,),
        product=64,
        seconds=0.05,
        loaders=(2,),
        games=(2,),
        played=0.2,
        cell=20_000,
        minutes=0.02,
    )
    for folder in ("out", "work"):
        (tmp_path / folder).mkdir()
    return script.Check("cpu", plan, tmp_path / "out", tmp_path / "work")


@pytest.mark.slow
def test_every_part_finds_what_it_is_for_and_the_report_shows_it(script, check, monkeypatch):
    monkeypatch.setattr(script, "cores", lambda: 2)
    for name in ("machine", "pack", "sizes", "feed", "train", "impala"):
        found = {"status": "done", "seconds": 1.0}
        for part in script.PARTS[name][0](check):
            found |= part
        check.results[name] = json.loads(json.dumps(found))
    results = check.results
    assert results["machine"]["bf16_product"] > 0 < results["machine"]["fp32_product"]
    assert results["pack"]["train_frames"] > 500
    assert set(script.measured(results, "sizes")) == {"20000 fp32", "20000 bf16"}
    assert results["sizes"]["20000 fp32"]["mfu"] > 0
    assert results["feed"]["2"]["frames_per_second"] > 0
    assert results["impala"]["steps_per_second"] > 0
    (row,) = read_runs(check.out / "rows.jsonl")
    assert (row.loss, row.run_id) == (results["train"]["loss"], "bc-cpu-check")
    with tarfile.open(check.out / "entry.tar.gz") as archive:
        archive.extractall(check.work / "again", filter="data")
    assert load(check.work / "again" / "bc-cpu-check").entry.policy.config.params == row.params
    text = script.report(results)
    for shown in (f"| {row.params:,} | fp32 |", "| 2 | ", "train: ", "impala: ", "bf16_product"):
        assert shown in text
    assert all(line.count("|") in (0, 4, 8) for line in text.splitlines())


@pytest.mark.slow
def test_a_part_that_takes_too_long_is_killed_and_the_next_begins(tmp_path):
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--quick", "--parts"]
    folders = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    env = {k: v for k, v in os.environ.items() if k != "NHZOO_CACHE"}
    ended = subprocess.run(
        [*command, "machine,pack", *folders, "--minutes", "0.001"],
        **{"env": env, "capture_output": True, "text": True, "timeout": 300},
    )
    assert ended.returncode == 1, ended.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [results[name]["status"][:6] for name in ("machine", "pack")] == ["killed"] * 2
    again = subprocess.run(
        [*command, "machine", *folders],
        **{"env": env, "capture_output": True, "text": True, "timeout": 300},
    )
    assert again.returncode == 0, again.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["machine"]["status"] == "done" and "fp32_product" in results["machine"]
    assert results["pack"]["status"].startswith("killed")  # of the run before
    assert "| machine | done |" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.slow
def test_a_bundle_that_is_none_is_said_in_one_line(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--work", str(tmp_path / "w")]
    command += ["--site", str(tmp_path / "none.tar.xz")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1 and "make gpu-bundle" in ended.stderr
