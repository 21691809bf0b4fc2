"""Sweeps worked off: here with a job that is killed, and on two machines of which one is lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from nhzoo.agents.base import RandomAgent
from nhzoo.agents.loading import load
from nhzoo.cli.app import cli
from nhzoo.data import packing
from nhzoo.data.frames import frames_in
from nhzoo.errors import InputError, NhzooError
from nhzoo.evaluation.evaluator import evaluate
from nhzoo.evaluation.loss import measure_agent, measure_loss
from nhzoo.policy.config import PolicyConfig, flop_model
from nhzoo.runtime import files
from nhzoo.scaling import cost, fitting, forecasting
from nhzoo.scaling.sweeps import running as sweep
from nhzoo.scaling.sweeps.measuring import _LossTask
from nhzoo.scaling.sweeps.plan import Cell, Plan, read_plan, write_plan
from nhzoo.training.run_table import read_runs
from tests.conftest import record
from tests.helpers.commands import run as nhzoo
from tests.helpers.synthetic_laws import Truth, runs


def budget(params: int, updates: int) -> float:
    shape = PolicyConfig.for_params(params)
    return float(f"{updates * (shape.train_flops * 256 + shape.update_flops):.4g}")


def plan_of(*cells: tuple[int, int, int]) -> Plan:
    """A plan of (params, updates, seed) each."""
    made = tuple(
        Cell(f"tiny-{n}-{params}-s{seed}", params, budget(params, updates), 0, seed, None, None)
        for n, (params, updates, seed) in enumerate(cells)
    )
    budgets = tuple(sorted({cell.flops for cell in made}))
    return Plan("tiny", "given", budgets, made, (), cost.proportional(6), None, None)


@pytest.fixture
def recipe(small_set, tmp_path):
    return sweep.Recipe(str(small_set), str(tmp_path / "state"))


@pytest.mark.slow
def test_a_sweep_leaves_rows_and_entries_and_trains_nothing_twice(recipe, tmp_path):
    plan = plan_of((12_000, 12, 0), (20_000, 8, 0), (20_000, 8, 1))
    write_plan(tmp_path / "plan.json", plan)
    plan = read_plan(tmp_path / "plan.json")
    ledger, out, told = tmp_path / "runs.jsonl", tmp_path / "entries", []
    first = replace(plan, cells=plan.cells[:1])
    sweep.run_sweep(first, recipe, ledger, out, progress=lambda row: told.append(row.run_id))
    rows = sweep.run_sweep(plan, recipe, ledger, out, 2, progress=told.append)
    assert [row.run_id for row in rows] == [cell.run_id for cell in plan.cells]
    assert read_runs(ledger)[0].run_id == plan.cells[0].run_id
    assert len(read_runs(ledger)) == 3
    assert told[0] == plan.cells[0].run_id
    assert rows[1].loss != rows[2].loss  # another seed
    for cell, row in zip(plan.cells, rows, strict=True):
        agent = load(out / cell.run_id)
        assert agent.entry.policy.config.params == row.params
        assert str(tmp_path) not in (out / cell.run_id / "config.json").read_text().replace(
            str(recipe.data), ""
        )
    before = ledger.read_bytes()
    again = sweep.run_sweep(plan, replace(recipe, data="no such"), ledger, out, 2)
    assert again == rows
    assert ledger.read_bytes() == before


@pytest.mark.slow
def test_the_held_out_games_can_be_another_dataset(recipe, tmp_path):
    other = record(tmp_path / "other", games=4, steps=120)
    given = replace(recipe, validation=str(other))
    (row,) = sweep.run_sweep(plan_of((12_000, 6, 0)), given, tmp_path / "t", tmp_path / "entries")
    games = packing.pack(other, split="validation", workers=1).games
    assert row.validation_frames == sum(frames_in(path) for path in games)
    assert row.validation == str(other)
    command = json.loads((tmp_path / "entries" / row.run_id / "config.json").read_text())
    assert f"--validation {other}" in command["training"]["command"]
    with pytest.raises(InputError, match="no usable game in split 'validation'"):
        sweep.pack(replace(given, validation=str(record(tmp_path / "lone", games=1, steps=50))))


@pytest.mark.slow
def test_runs_are_measured_anew_on_a_result_and_with_their_return(recipe, tmp_path):
    table, out = tmp_path / "runs.jsonl", tmp_path / "entries"
    sweep.run_sweep(plan_of((12_000, 6, 0), (12_000, 6, 1)), recipe, table, out)
    expert, results = tmp_path / "expert", tmp_path / "results"
    evaluate(RandomAgent(), "smoke-v1", episodes=3, workers=1, out=expert)
    shutil.copytree(expert, results / "tiny-0-12000-s0" / "smoke-v1")
    measured = tmp_path / "measured.jsonl"
    command = ["sweep", "measure", table, "--entries", out, "--data", expert, "--games", "2"]
    command += ["--results", results, "--protocol", "smoke-v1", "-o", measured, "--workers", "1"]
    done = CliRunner().invoke(cli, [str(word) for word in command], catch_exceptions=False)
    assert done.exit_code == 0
    before = {row.run_id: row for row in read_runs(table)}
    first, second = read_runs(measured)
    games = packing.pack(expert, workers=1, most=2).games
    assert first.loss == pytest.approx(
        measure_agent(load(out / first.run_id), games).loss, rel=1e-5
    )
    assert first.loss != before[first.run_id].loss
    assert first.loss_se > 0 and (first.n_episodes, second.n_episodes) == (3, None)
    assert (
        first.mean_return
        == json.loads((expert / "result.json").read_text())["summary"]["mean_score"]
    )
    assert first.flops == before[first.run_id].flops
    early = [*command, "--steps", "100"]
    early[early.index(measured)] = tmp_path / "early.jsonl"
    assert CliRunner().invoke(cli, [str(word) for word in early]).exit_code == 0
    start, _ = read_runs(tmp_path / "early.jsonl")
    assert start.validation_frames == sum(min(100, frames_in(path)) for path in games)
    policy = load(out / first.run_id).entry.policy
    assert start.loss == pytest.approx(measure_loss(policy, games, 100).loss, rel=1e-5)
    # What is there is not measured again; what is not there is asked for.
    shutil.rmtree(out / first.run_id)
    done = CliRunner().invoke(cli, [str(word) for word in command], catch_exceptions=False)
    assert done.exit_code == 0
    assert read_runs(measured) == [first, second]
    for changed, reason in (
        (["1" if word == "2" else word for word in command], "write to another table"),
        ([table if word is measured else word for word in command], "table of runs itself"),
    ):
        with pytest.raises(InputError, match=reason):
            CliRunner().invoke(cli, [str(word) for word in changed], catch_exceptions=False)
    assert len(read_runs(table)) == 2
    measured.unlink()
    with pytest.raises(InputError, match="no zoo entry of that run"):
        CliRunner().invoke(cli, [str(word) for word in command], catch_exceptions=False)


@pytest.mark.slow
def test_jobs_of_hours_tell_that_they_get_on(recipe):
    """So that one which is silent for hours is told from them."""
    (cell,) = plan_of((12_000, 6, 0)).cells
    packed, marks = sweep.pack(recipe), []
    trained = Path(recipe.folder) / cell.run_id / cell.run_id
    for task, item in (
        (sweep.CellTask(recipe, packed), cell),
        (_LossTask(packed.held_out, None), trained),
    ):
        marks.clear()
        task.start(0, item)
        task.advance(lambda *mark: marks.append(mark))
        assert len(marks) > 1


@pytest.mark.slow
def test_a_job_that_is_killed_goes_on_where_it_was(recipe, tmp_path):
    plan = plan_of((12_000, 1_200, 0))
    state = Path(recipe.folder) / plan.cells[0].run_id / "run"

    over = threading.Event()

    def kill_once():
        while not (state / "state.safetensors").exists() and not over.is_set():  # 1,000 updates
            time.sleep(0.02)
        for pid in spawned():
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_once)
    killer.start()
    try:
        (row,) = sweep.run_sweep(plan, recipe, tmp_path / "runs.jsonl", tmp_path / "out")
    finally:
        over.set()
        killer.join()
    assert row.updates == 1_200
    updates = [
        json.loads(line)["update"] for line in (state / "log.jsonl").read_text().splitlines()
    ]
    assert updates == sorted(updates)
    assert updates[-1] == 1_200


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NHZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_a_refused_game_is_left_out_and_not_packed_by_every_job(small_set, tmp_path, own_cache):
    folder = shutil.copytree(small_set, tmp_path / "one-is-bad")
    rows = [json.loads(line) for line in (folder / "games.jsonl").read_text().splitlines()]
    rows[0]["frame_hashes"] = ["0" * 16]
    (folder / "games.jsonl").write_bytes(files.dump_jsonl(rows))
    recipe = sweep.Recipe(str(folder), str(tmp_path / "state"))
    plan = plan_of((12_000, 8, 0), (12_000, 8, 1))
    trained = sweep.run_sweep(plan, recipe, tmp_path / "runs.jsonl", tmp_path / "out", 2)
    assert len(trained) == 2
    assert len(list(own_cache.rglob("*.frames"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_packed_games_that_vanish_under_a_job_are_packed_again(recipe, tmp_path, own_cache, damage):
    plan = plan_of((12_000, 300, 0))
    (cell,) = plan.cells
    state = Path(recipe.folder) / cell.run_id / "run"
    before = sweep.pack(recipe)

    def harm():
        """While the job is stopped in the middle of its training."""
        for path in (*before.training, *before.held_out):
            path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:1_000])

    with stopped_job(state / "log.jsonl", harm) as told:
        (row,) = sweep.run_sweep(plan, recipe, tmp_path / "runs.jsonl", tmp_path / "out")
    assert told == ["stopped"]
    assert row.updates > 290  # the budget is one of FLOPs
    assert all(path.exists() for path in (*before.training, *before.held_out))


@contextlib.contextmanager
def stopped_job(appears: Path, meanwhile):
    """Once a file is there, stop this process's job, call `meanwhile`, let the job go on."""
    over, told = threading.Event(), []

    def stop():
        while not (appears.exists() and appears.stat().st_size):
            if over.wait(0.01):
                return
        (pid,) = spawned()
        os.kill(pid, signal.SIGSTOP)
        try:
            meanwhile()
            told.append("stopped")
        finally:
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join()


def spawned() -> list[int]:
    """The worker processes that this one has now."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


@pytest.mark.slow
def test_a_table_with_another_run_of_that_name_is_refused(recipe, tmp_path):
    plan = plan_of((12_000, 4, 0))
    ledger = tmp_path / "runs.jsonl"
    (row,) = sweep.run_sweep(plan, recipe, ledger, tmp_path / "out")
    other = replace(plan, cells=(replace(plan.cells[0], seed=3),))
    with pytest.raises(InputError, match="another run than the plan's"):
        sweep.run_sweep(other, recipe, ledger, tmp_path / "out")
    ledger.write_text(json.dumps(asdict(row) | {"checkpoint": True}) + "\n")
    assert sweep.finished_rows(plan, ledger) == {}


def test_a_cluster_that_does_not_answer(recipe, tmp_path):
    pytest.importorskip("ray", reason="needs the extra cluster")
    with pytest.raises(InputError, match="no Ray cluster answers"):
        sweep.run_sweep(
            plan_of((12_000, 4, 0)),
            recipe,
            tmp_path / "runs.jsonl",
            tmp_path / "out",
            cluster="127.0.0.1:1",
        )


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_machine_that_is_lost_costs_only_time(recipe, tmp_path):
    """Two machines, one killed while both train: its job is done again on the other."""
    pytest.importorskip("ray", reason="needs the extra cluster")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    lost = cluster.add_node(num_cpus=1)
    plan = plan_of((12_000, 800, 0), (12_000, 800, 1))
    folders = [Path(recipe.folder) / cell.run_id / "run" for cell in plan.cells]

    over = threading.Event()

    def kill():
        while not all((folder / "log.jsonl").exists() for folder in folders) and not over.is_set():
            time.sleep(0.05)
        cluster.remove_node(lost, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        rows = sweep.run_sweep(
            plan, recipe, tmp_path / "runs.jsonl", tmp_path / "out", cluster=cluster.address
        )
    finally:
        over.set()
        killer.join()
        ray.shutdown()
        cluster.shutdown()
    assert all(row.updates > 790 for row in rows)
    assert len(read_runs(tmp_path / "runs.jsonl")) == 2


def test_a_job_that_fails_names_its_cell(small_set, tmp_path):
    recipe = sweep.Recipe(str(tmp_path / "nothing"), str(tmp_path / "state"))
    with pytest.raises(NhzooError, match="nothing"):
        sweep.run_sweep(plan_of((12_000, 4, 0)), recipe, tmp_path / "runs.jsonl", tmp_path / "out")


@pytest.mark.slow
def test_the_forecast_agent_is_trained_and_graded(small_set, tmp_path):
    """As a user would: `train next` takes size and FLOPs from the file, `grade` finds the run."""
    fitted = fitting.fit(runs(Truth(0.31, 0.37), 0.005, seed=3))
    said = replace(
        forecasting.forecast(fitted, 1e15),
        params=12_000,
        flops=budget(12_000, 20),
        flop_model=flop_model(),
    )
    forecasting.write_forecast(tmp_path / "said.json", said)
    folders = ("--run", tmp_path / "run", "--out", tmp_path / "agents/next")
    table = tmp_path / "runs.jsonl"
    done = nhzoo(
        "train", "next", tmp_path / "said.json", "--data", small_set, *folders, "--ledger", table
    )
    assert done.returncode == 0, done.stderr
    assert "12,000 parameters" in done.stderr
    (row,) = read_runs(table)
    assert row.flops_budget == said.flops
    assert row.params == pytest.approx(12_000, rel=0.02)
    config = json.loads((tmp_path / "agents/next/config.json").read_text())
    assert "train next" in config["training"]["command"]
    done = nhzoo("grade", tmp_path / "said.json", f"{table}:next", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["loss"]["observed"] == row.loss

    forecasting.write_forecast(tmp_path / "other.json", replace(said, flop_model="0" * 16))
    done = nhzoo("train", "next", tmp_path / "other.json", "--data", small_set, *folders)
    assert done.returncode == 2
    assert "another model" in done.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"params": "x"},
        {"params": -5},
        {"seed": -1},
        {"seed": 1.5},
        {"flops": -1.0},
        {"flops": "1e9"},
        {"run_id": "../x"},
        {"more": 1},
    ],
)
def test_plans_that_somebody_made(change, tmp_path):
    """The hash is no seal: it can be computed anew."""
    path = tmp_path / "plan.json"
    value = plan_of((12_000, 4, 0)).as_json()
    value["cells"][0] |= change
    del value["sha256"]
    path.write_text(json.dumps(value | {"sha256": files.content_hash(value)}))
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_plan(path)


def test_a_sweep_that_could_not_end_does_not_begin(tmp_path):
    plan = tmp_path / "plan.json"
    write_plan(plan, plan_of((12_000, 4, 0)))
    places = ("--ledger", tmp_path / "l", "--out", tmp_path / "o", "--runs", tmp_path / "r")
    done = nhzoo("sweep", "run", plan, *places, "--temperature", -3)
    assert (done.returncode, "temperature" in done.stderr) == (2, True)
