from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from nhzoo import bc, files, packing
from nhzoo.agents import RandomAgent, load
from nhzoo.errors import CheckFailed, InputError
from nhzoo.losses import measure_agent, measure_loss
from nhzoo.policy import PolicyConfig

DEBUG = bc.BCConfig(
    data="small",
    params=20_000,
    flops=PolicyConfig.for_params(20_000).train_flops * 2 * 8 * 60,
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


def test_a_debug_size_agent_trains_in_seconds_and_learns(games, tmp_path):
    config = replace(DEBUG, flops=DEBUG.flops * 5)
    trained = bc.train(config, *games, tmp_path / "run")
    assert trained.updates == 300
    assert trained.flops <= config.flops
    assert trained.loss.loss < 4.0 < np.log(121)
    row = bc.publish(
        trained, tmp_path / "agent", *games, 1.0, "debug", "nhzoo train", tmp_path / "ledger.jsonl"
    )
    agent = load(tmp_path / "agent")
    assert measure_agent(agent, games[1]).loss == pytest.approx(row["loss"])
    assert files.read_jsonl(tmp_path / "ledger.jsonl") == [row]
    assert "held-out loss" in (tmp_path / "agent" / "README.md").read_text()
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_interrupted_anywhere_it_ends_with_the_same_bits(games, tmp_path):
    whole = bc.train(DEBUG, *games, tmp_path / "whole")
    for stop in (1, 10, 23, 59):
        folder = tmp_path / f"stopped-{stop}"
        run = bc.Run(DEBUG, games[0], folder)
        for _ in range(stop):
            run.step()
        run.save()
        (folder / "log.jsonl").write_text(
            '{"update": 5, "kept": true}\n{"update": 60, "after": "the saved state"}\n{"half'
        )
        resumed = bc.train(DEBUG, *games, folder)
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
from nhzoo import bc
from tests.test_bc import DEBUG
paths = [Path(p) for p in sys.argv[2:]]
config = replace(DEBUG, flops=DEBUG.flops * 6)
bc.train(config, paths[:2], paths[2:], Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_goes_on_to_the_same_bits(games, tmp_path, number):
    config = replace(DEBUG, flops=DEBUG.flops * 6)
    whole = bc.train(config, *games, tmp_path / "whole")
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
        assert "the same command goes on" in errors
    resumed = bc.train(config, *games, folder)
    for name, tensor in whole.policy.state_dict().items():
        np.testing.assert_array_equal(tensor, resumed.policy.state_dict()[name])
    assert steady(folder) == steady(tmp_path / "whole")


def test_a_time_budget_becomes_a_number_of_updates(games, tmp_path):
    config = replace(DEBUG, flops=None, minutes=1 / 60)
    trained = bc.train(config, *games, tmp_path)
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


def test_a_damaged_state_is_named(games, tmp_path):
    run = bc.Run(DEBUG, games[0], tmp_path)
    run.step()
    run.save()
    path = tmp_path / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot go on from it"):
        bc.Run(DEBUG, games[0], tmp_path)


def test_a_loss_that_is_not_finite_stops_with_the_step_named(games, tmp_path):
    run = bc.Run(DEBUG, games[0], tmp_path)
    run.step()
    run.save()
    run.policy.head.bias.data[0] = float("nan")
    with pytest.raises(CheckFailed, match="update 1"):
        run.step()
    assert bc.Run(DEBUG, games[0], tmp_path).update == 1


@pytest.mark.parametrize(
    "options",
    [
        {"flops": None},
        {"minutes": 3},
        {"flops": -1},
        {"batch": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"batch": 3},
        {"warmup": 0},
        {"flops": float("nan")},
        {"flops": float("inf")},
        {"seed": -1},
        {"validate_every": 0},
        {"clip": float("inf")},
        {"params": 5},
    ],
)
def test_options_that_cannot_be(games, tmp_path, options):
    with pytest.raises(InputError):
        bc.Run(replace(DEBUG, **options), games[0], tmp_path)


def test_the_schedule_rises_and_falls():
    rates = [bc.learning_rate(DEBUG, u, 1_000) for u in range(1_000)]
    assert rates[0] < rates[50] < rates[120]
    assert rates[120] > rates[500] > rates[999]
    assert rates[999] == pytest.approx(DEBUG.lr * DEBUG.final_lr, rel=0.01)


def test_loss_counts_every_key_with_the_state_carried(games, tmp_path):
    """Against a plain loop: one game at a time, one frame at a time."""
    import torch

    from nhzoo import features
    from nhzoo.demonstrations import ACTION_OF_KEY
    from nhzoo.frames import GameFrames
    from nhzoo.policy import to_tensors

    policy = bc.Run(DEBUG, games[0], tmp_path).policy.eval()
    measured = measure_loss(policy, games[1])
    total = frames = 0
    with torch.no_grad():
        for path in games[1]:
            game = GameFrames(path)
            state, previous = policy.initial_state(1), 0
            shown = game.read(0, game.length)
            for i, key in enumerate(shown["keys"]):
                encoded = features.encode(
                    shown["tty_chars"][i : i + 1],
                    shown["tty_colors"][i : i + 1],
                    shown["tty_cursor"][i : i + 1],
                    np.array([previous], np.uint8),
                )
                logits, state = policy(to_tensors(encoded, 1, 1), state)
                total -= float(logits[0, 0].double().log_softmax(-1)[ACTION_OF_KEY[key]])
                previous = key
                frames += 1
    assert measured.frames == frames
    assert measured.loss == pytest.approx(total / frames, rel=1e-5)
    assert measure_agent(RandomAgent(), games[1]).loss == pytest.approx(np.log(121))
