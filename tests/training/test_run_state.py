"""The state of a run: two generations, damage, full disks."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from nhzoo.data import packing
from nhzoo.errors import InputError
from nhzoo.training import bc
from nhzoo.training.rl.impala import ImpalaRun
from nhzoo.training.run_state import (
    BEFORE,
    STATE,
    Progress,
    RunState,
    TrainingLog,
    optimizer_state,
    read_state,
    restore_optimizer,
    write_state,
)
from tests.helpers import commands
from tests.training.rl.test_impala import TINY
from tests.training.test_bc import DEBUG, games  # noqa: F401


def state(update):
    return RunState({"policy.w": torch.full((3, 2), float(update))}, {"update": update})


@pytest.fixture
def two_saved(tmp_path):
    write_state(tmp_path, state(1))
    write_state(tmp_path, state(2))
    return tmp_path


def test_the_last_two_states_are_kept(two_saved):
    write_state(two_saved, state(3))
    assert {path.name for path in two_saved.iterdir()} == {STATE, BEFORE}
    latest = read_state(two_saved, pytest.fail)
    assert latest.counters == {"update": 3}
    np.testing.assert_array_equal(latest.group("policy")["w"], np.full((3, 2), 3.0))
    (two_saved / STATE).unlink()  # as a kill between the two renames leaves it
    assert read_state(two_saved, pytest.fail).counters == {"update": 2}


_COUNTERS = {
    **{"update": 3, "frames": 99, "seconds": 1.5, "energy": None, "losses": [4.5, 4.25]},
    "alarm": {"mean": 4.4, "high": 2},
}


def check_counters(make, own, given):
    """A run's state has `_COUNTERS` and its kind's `own`; gives those of one with `given`."""
    with closing(make()) as run:
        run.save()
    saved = read_state(run.folder, pytest.fail)
    assert saved.counters.keys() == _COUNTERS.keys() | own
    write_state(run.folder, RunState(saved.tensors, saved.counters | _COUNTERS | given))
    with closing(make()) as again:
        assert again.counters.state() == _COUNTERS
        assert (again.counters.alarm.mean, again.counters.alarm.high) == (4.4, 2)
        return again.counters


def test_a_state_has_the_counters_that_it_always_had(games, tmp_path):  # noqa: F811
    own = {"updates", "games", "streams"}
    again = check_counters(lambda: bc.Run(DEBUG, games[0], tmp_path / "bc"), own, {"updates": 40})
    assert again.updates == 40
    own = {"episodes", "sums", "scale", "advantage", "recent", "since", "actors", "demonstrations"}
    again = check_counters(lambda: ImpalaRun(TINY, tmp_path / "rl"), own, {})
    assert again.updates == TINY.updates  # follows from the options, which may ask for more


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "counters"])
def test_a_damaged_state_falls_back_to_the_one_before(two_saved, damage):
    path = two_saved / STATE
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        del data[-5:]
    elif damage == "flipped":
        data[-5] ^= 1
    elif damage == "empty":
        data.clear()
    else:
        data = data.replace(b'update\\": 2', b'update\\": 9')
        assert bytes(data) != path.read_bytes()
    path.write_bytes(data)
    said = []
    assert read_state(two_saved, said.append).counters == {"update": 1}
    assert len(said) == 1 and STATE in said[0] and "went back" in said[0]
    assert read_state(two_saved, pytest.fail).counters == {"update": 1}  # and stays there
    write_state(two_saved, state(2))
    (two_saved / STATE).write_bytes(b"damaged again")
    assert read_state(two_saved, said.append).counters == {"update": 1}


def test_no_state_to_fall_back_to_is_one_line(tmp_path):
    assert read_state(tmp_path, pytest.fail) is None
    write_state(tmp_path, state(1))
    (tmp_path / STATE).write_bytes(b"what")
    with pytest.raises(InputError, match="cannot go on from it"):
        read_state(tmp_path, pytest.fail)


def test_an_optimizer_comes_back_with_all_it_knew():
    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]
    optimizer = torch.optim.AdamW(weights, lr=0.1)
    for _ in range(3):
        (weights[0].sum() + (weights[1] ** 2).sum()).backward()
        optimizer.step()
    other = torch.optim.AdamW([torch.nn.Parameter(w.detach().clone()) for w in weights], lr=0.7)
    restore_optimizer(other, optimizer_state(optimizer))
    assert other.param_groups[0]["lr"] == 0.7
    for mine, theirs in zip(
        optimizer.state_dict()["state"].values(), other.state_dict()["state"].values(), strict=True
    ):
        assert mine.keys() == theirs.keys()
        for name in mine:
            torch.testing.assert_close(mine[name], theirs[name], rtol=0, atol=0)


@pytest.mark.slow
def test_a_run_goes_on_from_the_state_before_a_damaged_one_to_the_same_bits(
    games,  # noqa: F811
    tmp_path,
):
    whole = bc.train_bc(DEBUG, *games, tmp_path / "whole")
    folder = tmp_path / "run"
    run = bc.Run(DEBUG, games[0], folder)
    for _ in range(2):
        for _ in range(12):
            run.step()
        run.save()
    (folder / STATE).write_bytes((folder / STATE).read_bytes()[:-100])
    said = []
    resumed = bc.train_bc(DEBUG, *games, folder, say=said.append)
    assert len(said) == 1
    assert resumed.loss == whole.loss
    for name, tensor in whole.policy.state_dict().items():
        np.testing.assert_array_equal(tensor, resumed.policy.state_dict()[name])


@pytest.mark.slow
def test_a_full_disk_stops_with_one_line_and_there_it_goes_on(
    games,  # noqa: F811
    small_set,
    tmp_path,
):
    """A limit on file sizes stands for the full disk: the state is larger, its temporary too."""
    config = replace(DEBUG, data=os.fspath(small_set), dropout=0.0, log_every=100)
    config = replace(config, validate_every=2_000, validation_frames=2_048)
    for split in ("train", "validation"):  # where the command will look, so that it need not pack
        packing.pack(small_set, split=split, workers=1)
    whole = bc.train_bc(config, *games, tmp_path / "whole")
    folder = tmp_path / "run"
    run = bc.Run(config, games[0], folder)
    for _ in range(3):
        run.step()
    run.save()
    held = (folder / STATE).read_bytes()
    assert len(held) > 150_000
    command = [sys.executable, "-m", "nhzoo", "train", "bc", "--out", tmp_path / "agent"]
    for name in ("data", "params", "flops", "batch", "time", "streams", "save_every"):
        command += [f"--{name.replace('_', '-')}", str(getattr(config, name))]

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    command += ["--run", folder]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, preexec_fn=limited)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"{folder / STATE}: cannot be written" in done.stderr
    assert (folder / STATE).read_bytes() == held
    assert not list(folder.glob(".*"))
    done = commands.run(*command[3:])
    assert done.returncode == 0, done.stderr
    resumed = read_state(folder, pytest.fail).group("policy")
    for name, tensor in whole.policy.state_dict().items():
        np.testing.assert_array_equal(tensor, resumed[name])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("which", ["lines", "events"])
def test_a_log_that_cannot_be_written_is_named(tmp_path, which):
    log = TrainingLog(tmp_path, 0)
    if which == "lines":
        log._lines.close()
        log._lines = open("/dev/full", "w")
    else:
        log._events.close()
        log._events._file = log._events._record._writer = open("/dev/full", "wb")
    report = Progress(1, 2, 3, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    with pytest.raises(InputError, match=r"log\.jsonl: cannot be written"):
        log.write(report)
    with pytest.raises(InputError):
        log.close()
