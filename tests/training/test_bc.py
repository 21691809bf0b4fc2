from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from nhzoo.agents.base import FrequencyAgent, RandomAgent
from nhzoo.agents.loading import load
from nhzoo.data import packing
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation.loss import measure_agent, measure_loss
from nhzoo.policy.checkpoint import Sampling
from nhzoo.policy.config import LAYERS, PolicyConfig
from nhzoo.runtime import files
from nhzoo.training import bc, feed, loop, outputs, run_table
from nhzoo.training.config import BCConfig, checkpoint_fractions, learning_rate
from nhzoo.training.loop import UPDATES, DivergenceDetector

SHAPE = PolicyConfig.for_params(20_000)
DEBUG = BCConfig(
    data="small",
    params=20_000,
    flops=60 * (SHAPE.train_flops * 2 * 8 + SHAPE.update_flops),
    batch=2,
    time=8,
    streams=4,
    log_every=5,
    save_every=10,
    validate_every=20,
    validation_frames=64,
    dropout=0.1,
)


@pytest.fixture(scope="module")
def games(small_set, tmp_path_factory):
    cache = tmp_path_factory.mktemp("packed")
    return [
        packing.pack(small_set, split=split, workers=2, cache=cache).games
        for split in ("train", "validation")
    ]


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def steady(folder):
    """The log without what a clock decides."""
    return [
        {k: v for k, v in row.items() if k not in ("frames_per_second", "seconds")}
        for row in lines(folder)
    ]


def test_a_debug_size_agent_trains_in_seconds_learns_and_is_published(games, tmp_path):
    config = replace(DEBUG, flops=DEBUG.flops * 5, checkpoints="1")
    table, entry = tmp_path / "ledger.jsonl", tmp_path / "agent"
    row = outputs.train_and_publish(
        *(config, *games, tmp_path / "run", entry, Sampling(), "nhzoo train", "debug"),
        append=lambda row: run_table.append_row(table, row),
    )
    assert row.flops <= config.flops
    assert row.loss < 4.0 < np.log(121)
    assert measure_agent(load(entry), games[1]).loss == pytest.approx(row.loss)
    half, whole = run_table.read_runs(table)
    assert (half.checkpoint, half.updates, half.flops_budget) == (True, 150, None)
    assert whole == row
    assert (row.run_id, row.updates, row.checkpoint) == ("agent", 300, False)
    assert (row.world_size, row.device, row.depth) == (1, "cpu", LAYERS)
    assert "held-out loss" in (entry / "README.md").read_text()
    assert (entry / "curve.csv").is_file()


def test_the_curve_can_be_read_by_tensorboard(games, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    bc.train_bc(DEBUG, *games, tmp_path)
    curve = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = [(event.step, event.value) for event in curve.Scalars("train/loss")]
    assert scalars == [(row["update"], pytest.approx(row["loss"])) for row in lines(tmp_path)]
    assert [event.step for event in curve.Scalars("validation/loss")] == [20, 40]


@pytest.mark.slow
def test_without_tensorboard_the_log_is_the_curve(games, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    bc.train_bc(DEBUG, *games, tmp_path)
    assert [row["update"] for row in lines(tmp_path)] and not (tmp_path / "tensorboard").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_interrupted_anywhere_it_ends_with_the_same_bits(games, tmp_path):
    whole = bc.train_bc(DEBUG, *games, tmp_path / "whole")
    for stop in (1, 10, 23, 59):
        folder = tmp_path / f"stopped-{stop}"
        run = bc.Run(DEBUG, games[0], folder)
        for _ in range(stop):
            run.step()
        run.save()
        (folder / "log.jsonl").write_text(
            '{"update": 5, "kept": true}\n{"update": 60, "after": "the saved state"}\n{"half'
        )
        resumed = bc.train_bc(DEBUG, *games, folder)
        for name, tensor in whole.policy.state_dict().items():
            np.testing.assert_array_equal(tensor, resumed.policy.state_dict()[name], err_msg=name)
        assert resumed.loss == whole.loss
        assert (resumed.updates, resumed.frames) == (whole.updates, whole.frames)
        assert steady(folder)[-1]["update"] == 60
        assert not any("after" in row for row in lines(folder))


_TRAIN = """
import sys
from dataclasses import replace
from pathlib import Path
from nhzoo.training import bc as training
from tests.training.test_bc import DEBUG
paths = [Path(p) for p in sys.argv[2:]]
config = replace(DEBUG, flops=DEBUG.flops * 6)
training.train_bc(config, paths[:2], paths[2:], Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def long_run(games, tmp_path_factory):
    """A configuration, the folder of a run of it that nobody disturbed, what that came to."""
    config, folder = replace(DEBUG, flops=DEBUG.flops * 6), tmp_path_factory.mktemp("long")
    return config, folder, bc.train_bc(config, *games, folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_goes_on_to_the_same_bits(games, long_run, tmp_path, number):
    config, undisturbed, whole = long_run
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", _TRAIN, os.fspath(folder), *map(str, games[0] + games[1])]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (folder / "state.safetensors").exists():
        time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode != 0
    if number != signal.SIGKILL:
        assert "the same command resumes" in errors
    resumed = bc.train_bc(config, *games, folder)
    for name, tensor in whole.policy.state_dict().items():
        np.testing.assert_array_equal(tensor, resumed.policy.state_dict()[name])
    assert steady(folder) == steady(undisturbed)


@pytest.mark.slow
def test_a_time_budget_becomes_a_number_of_updates(games, tmp_path):
    config = replace(DEBUG, flops=None, minutes=1 / 60)
    trained = bc.train_bc(config, *games, tmp_path)
    assert trained.updates >= 50
    assert trained.seconds < 30


def test_another_runs_folder_is_refused(games, tmp_path):
    bc.Run(DEBUG, games[0], tmp_path)
    with pytest.raises(InputError, match="another lr"):
        bc.Run(replace(DEBUG, lr=1.0), games[0], tmp_path)


def test_a_state_of_other_games_is_named(games, tmp_path):
    run = bc.Run(DEBUG, games[0], tmp_path)
    run.save()
    with pytest.raises(InputError, match="other games"):
        bc.Run(DEBUG, games[0][:1], tmp_path)


def test_a_loss_that_is_not_finite_stops_with_the_step_named(games, tmp_path):
    run = bc.Run(DEBUG, games[0], tmp_path)
    run.step()
    run.save()
    run.policy.head.bias.data[0] = float("nan")
    with pytest.raises(CheckFailed, match="update 1: the loss is nan"):
        run.step()
    assert bc.Run(DEBUG, games[0], tmp_path).counters.update == 1


def test_losses_that_are_read_late_name_their_update(games, tmp_path, monkeypatch):
    """As on a GPU, where they are read when they are logged or saved."""
    run, at_once = bc.Run(DEBUG, games[0], tmp_path / "a"), bc.Run(DEBUG, games[0], tmp_path / "b")
    read = run.check
    monkeypatch.setattr(run, "check", lambda: None)
    for _ in range(3):
        run.step()
        at_once.step()
    assert run.counters.losses == []
    read()
    assert (run.counters.losses, run.counters.grad_norm) == (
        at_once.counters.losses,
        at_once.counters.grad_norm,
    )
    run.step()
    run.policy.head.bias.data[0] = float("nan")
    run.step()
    run.step()
    monkeypatch.undo()
    with pytest.raises(CheckFailed, match="update 4"):
        run.save()
    assert not (tmp_path / "a" / "state.safetensors").exists()


def test_a_loss_that_explodes_stops_and_the_last_good_state_is_safe(games, tmp_path):
    config = replace(DEBUG, flops=DEBUG.flops * 10, lr=0.0001, save_every=1)
    run = bc.Run(config, games[0], tmp_path)
    for _ in range(5):
        run.step()
    run.save()
    run.policy.head.bias.data += 1e3 * (torch.arange(121) % 7)
    run.save = lambda: pytest.fail("a state whose loss explodes was saved")
    with pytest.raises(CheckFailed, match=rf"update {5 + UPDATES - 1}: the loss, [0-9.]+ before"):
        loop.Loop(run, None, print, print, print).go([])
    assert bc.Run(config, games[0], tmp_path).counters.update == 5


def test_the_alarm_knows_a_hard_stretch_from_the_end():
    alarm = DivergenceDetector()
    for loss in (4.9, 3.0, 1.0, 0.5) * 100 + (6.0,) * (UPDATES - 1) + (0.5,):
        assert alarm.see(loss, 1.0) is None  # high, but not for long
    restored = DivergenceDetector()
    restored.restore(json.loads(json.dumps(alarm.state())))
    said = [restored.see(40.0, 1.0) for _ in range(UPDATES)]
    assert said[:-1] == [None] * (UPDATES - 1)
    assert "was 40" in said[-1]
    assert "norm nan" in DivergenceDetector().see(1.0, float("nan"))


@pytest.mark.slow
def test_batches_accumulate_to_the_update_of_a_larger_batch(games, tmp_path):
    config = replace(DEBUG, flops=DEBUG.flops * 6, streams=8, batch=4, time=7, dropout=0.0)
    whole = bc.train_bc(config, *games, tmp_path / "whole")
    parts = replace(config, batch=1, accumulate=4)
    summed = bc.train_bc(parts, *games, tmp_path / "parts")
    assert (summed.updates, summed.frames) == (whole.updates, whole.frames)
    assert summed.flops == whole.flops
    assert (
        whole.frames < whole.updates * 4 * 7
    )  # rows ran out of frames: not all batches weigh the same
    for name, tensor in whole.policy.state_dict().items():
        np.testing.assert_allclose(tensor, summed.policy.state_dict()[name], atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("loaders", "others"), [(0, 0), (2, 1)])
def test_reading_ahead_changes_no_bit_and_resumes_exactly(games, tmp_path, loaders, others):
    plain = bc.Run(DEBUG, games[0], tmp_path / "plain")
    ahead = bc.Run(DEBUG, games[0], tmp_path / "ahead", ahead=3, loaders=loaders)
    for run in (plain, ahead):
        for _ in range(17):
            run.step()
        run.save()
        run.close()
    folder = tmp_path / "ahead"
    with closing(bc.Run(DEBUG, games[0], folder, ahead=2, loaders=others)) as again:
        for run in (plain, again):
            for _ in range(40):
                run.step()
        for name, tensor in plain.policy.state_dict().items():
            np.testing.assert_array_equal(tensor, again.policy.state_dict()[name])
        assert again.feed.streams.state() == plain.feed.streams.state()


@pytest.mark.slow
def test_loaders_that_are_killed_change_no_bit_of_a_training(games, tmp_path):
    plain, said = bc.Run(DEBUG, games[0], tmp_path / "plain"), []
    with closing(bc.Run(DEBUG, games[0], tmp_path / "killed", said.append, loaders=2)) as run:
        for update in range(20):
            if update == 7:
                for loader in run.feed._pool._loaders:
                    os.kill(loader.child.pid, signal.SIGKILL)
            run.step()
            plain.step()
    assert len(said) == 2 and "another takes its place" in said[0]
    for name, tensor in plain.policy.state_dict().items():
        np.testing.assert_array_equal(tensor, run.policy.state_dict()[name])


def test_a_gpu_has_a_loader_for_each_core_that_is_left(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(16))
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    found = [feed.default_loaders(gpu, trainers) for trainers in (1, 2, 8, 16, 32)]
    assert found == [15, 7, 1, 1, 1]
    assert feed.default_loaders(cpu, 1) == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(128))
    assert feed.default_loaders(gpu, 1) == feed.MOST_LOADERS


def test_a_time_budget_is_measured_when_the_device_has_done_its_work(games, tmp_path):
    config = replace(DEBUG, flops=None, minutes=1e-6, log_every=1_000, save_every=1_000)
    seen = []
    with closing(bc.Run(config, games[0], tmp_path)) as run:
        run.check = lambda: seen.append(run.counters.update)
        loop.Loop(run, None, print, print, print).go([])
    assert run.counters.update == run.counters.updates == 50
    assert [seen.count(update) for update in (9, 10, 11)] == [1, 2, 1]  # each update, and the clock


def test_what_goes_wrong_in_the_thread_that_reads_is_heard(games, tmp_path):
    with closing(bc.Run(DEBUG, games[0], tmp_path, ahead=2)) as run:
        run.feed._reader.next = lambda: 1 / 0
        with pytest.raises(ZeroDivisionError):
            run.step()


@pytest.mark.slow
def test_half_precision_learns_about_the_same(games, tmp_path):
    config = replace(DEBUG, dropout=0.0)
    whole = bc.train_bc(config, *games, tmp_path / "fp32")
    half = bc.train_bc(replace(config, precision="bf16"), *games, tmp_path / "bf16")
    assert half.loss.loss != whole.loss.loss
    assert half.loss.loss == pytest.approx(whole.loss.loss, rel=0.02)
    assert all(t.dtype == torch.float32 for t in half.policy.state_dict().values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch warns of its own doings
def test_a_compiled_run_gives_the_same(games, tmp_path):
    config = replace(DEBUG, flops=DEBUG.flops / 10, dropout=0.0)
    plain = bc.train_bc(config, *games, tmp_path / "plain")
    compiled = bc.train_bc(replace(config, compile=True), *games, tmp_path / "compiled")
    assert compiled.loss.loss == pytest.approx(plain.loss.loss, rel=1e-4)


@pytest.mark.slow
def test_checkpoints_are_measured_on_all_games_and_change_no_bit(games, tmp_path):
    plain = bc.train_bc(DEBUG, *games, tmp_path / "plain")
    config = replace(DEBUG, checkpoints="2")
    measured = []
    trained = bc.train_bc(config, *games, tmp_path / "run", checkpoint=measured.append)
    assert [part.updates for part in measured] == [15, 30]
    assert not any(part.finished for part in measured)
    assert all(part.loss.frames == trained.loss.frames for part in measured)
    assert measured[0].flops == trained.flops / 4
    assert trained.loss == plain.loss
    rows = [outputs.ledger_row(part, "x", games[0]) for part in (*measured, trained)]
    assert [row.checkpoint for row in rows] == [True, True, False]
    assert [row.flops_budget for row in rows] == [None, None, config.flops]
    assert len({row.config_hash for row in rows}) == 1


def test_checkpoints_are_shares_of_a_run():
    assert checkpoint_fractions("3") == (0.5, 0.25, 0.125)
    assert checkpoint_fractions("0.1,0.3") == (0.1, 0.3)
    assert checkpoint_fractions("") == ()
    assert len(checkpoint_fractions("100")) == 100
    for text in ("0", "101", "9" * 1_000_000, "0.1," * 1_000_000, "nan", "x"):
        with pytest.raises(InputError, match="give a number"):
            checkpoint_fractions(text)


def test_the_learning_rate_follows_from_the_size_unless_it_is_given():
    assert BCConfig(data="x", params=100_000, flops=1e9).lr == 5.7e-3
    assert BCConfig(data="x", params=1_000_000, flops=1e9).lr == 2.9e-3
    assert BCConfig(data="x", params=1_000_000, flops=1e9, lr=1e-4).lr == 1e-4


@pytest.mark.slow
def test_two_trainings_in_one_folder_do_not_mix(games, tmp_path):
    with files.lock(tmp_path), pytest.raises(InputError, match="another process is at work"):
        bc.train_bc(DEBUG, *games, tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"flops": None},
        {"minutes": 3},
        {"flops": -1},
        {"batch": 0},
        {"lr": -1e-3},
        {"lr": float("nan")},
        {"batch": 3},
        {"warmup": 0},
        {"flops": float("nan")},
        {"flops": float("inf")},
        {"seed": -1},
        {"validate_every": 0},
        {"clip": float("inf")},
        {"params": 5},
        {"accumulate": 0},
        {"device": "tpu"},
        {"device": "cpu:1"},
        {"precision": "fp16"},
        {"starts": "middle"},
        {"checkpoints": "0"},
        {"checkpoints": "0.5,1"},
        {"checkpoints": "half"},
    ],
)
def test_options_that_cannot_be(games, tmp_path, options):
    with pytest.raises(InputError):
        bc.Run(replace(DEBUG, **options), games[0], tmp_path)


def test_the_schedule_rises_and_falls():
    rates = [learning_rate(DEBUG, u, 1_000) for u in range(1_000)]
    assert rates[0] < rates[50] < rates[120]
    assert rates[120] > rates[500] > rates[999]
    assert rates[999] == pytest.approx(DEBUG.lr * DEBUG.final_lr, rel=0.01)


@pytest.mark.slow
def test_loss_counts_every_key_with_the_state_carried(games, tmp_path):
    """Against a plain loop: one game at a time, one frame at a time."""
    from nhzoo.data.frames import GameFrames
    from nhzoo.envs.actions import ACTION_OF_KEY
    from nhzoo.policy import features, memory
    from nhzoo.policy.network import to_tensors

    policy = bc.Run(DEBUG, games[0], tmp_path).policy.eval()
    measured = measure_loss(policy, games[1])
    total = frames = 0
    with torch.no_grad():
        for path in games[1]:
            game = GameFrames(path)
            state, recall = policy.initial_state(1), features.no_recall(1)
            shown = game.read(0, game.length)
            for i, key in enumerate(shown["keys"]):
                encoded = features.encode(
                    shown["tty_chars"][i : i + 1],
                    shown["tty_colors"][i : i + 1],
                    shown["tty_cursor"][i : i + 1],
                    recall,
                )
                logits, state = policy(to_tensors(encoded, 1, 1), state)
                total -= float(logits[0, 0].double().log_softmax(-1)[ACTION_OF_KEY[key]])
                memory.push_key(recall[0], key)
                frames += 1
    assert measured.frames == frames
    assert measured.loss == pytest.approx(total / frames, rel=1e-5)
    alone = [measure_loss(policy, [path], batch=1) for path in games[1]]
    assert alone[0].loss_se is None
    off = [(one.loss - measured.loss) * one.frames for one in alone]
    n = len(alone)
    expected = (n / (n - 1) * sum(x * x for x in off)) ** 0.5 / frames
    assert measured.loss_se == pytest.approx(expected, rel=1e-4)
    assert measure_agent(RandomAgent(), games[1]).loss == pytest.approx(np.log(121))
    with pytest.raises(InputError, match="not probabilities"):
        measure_agent(FrequencyAgent(), games[1])
