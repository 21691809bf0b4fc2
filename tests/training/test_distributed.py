"""Many processes: one update of the whole batch, one voice, no hang, any number goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from nhzoo.cli.train import train_bc
from nhzoo.data import packing
from nhzoo.errors import InputError
from nhzoo.policy.config import PolicyConfig
from nhzoo.training import bc, distributed, outputs
from nhzoo.training.config import BCConfig
from nhzoo.training.run_state import STATE

UPDATES = 150


@pytest.fixture(scope="module")
def config(small_set):
    """Rows end in the middle of a batch, so that processes have unlike numbers of frames."""
    shape = PolicyConfig.for_params(20_000)
    flops = UPDATES * (shape.train_flops * 4 * 7 + shape.update_flops)
    return BCConfig(os.fspath(small_set), 20_000, flops, batch=4, time=7, streams=8, save_every=25)


@pytest.fixture(scope="module")
def games(small_set, tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "cache"  # where the processes look for them
    return [
        packing.pack(small_set, split=split, workers=2, cache=cache).games
        for split in ("train", "validation")
    ]


@pytest.fixture(scope="module")
def whole(config, games, tmp_path_factory):
    """What one process that nobody disturbs comes to."""
    return bc.train_bc(config, *games, tmp_path_factory.mktemp("whole"))


def torchrun(processes, config, folder, restarts=0, loaders=0, **options):
    """`train bc` under torchrun; `options` are environment variables."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
    command += ["-m", "nhzoo", "train", "bc"]
    for name in ("data", "params", "flops", "batch", "time", "streams", "save_every"):
        command += [f"--{name.replace('_', '-')}", str(getattr(config, name))]
    command += ["--run-folder", str(folder), "--out", str(folder.parent / "agent")]
    command += ["--ledger", str(folder.parent / "runs.jsonl"), "--loaders", str(loaders)]
    env = os.environ | {"OMP_NUM_THREADS": "1"} | options
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=env, text=True, **pipes)


def workers(process):
    """The process of each rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(re.sub(r".*\) \S ", "", (folder / "stat").read_text()).split()[0])
            rank = re.search(rb"\0RANK=(\d+)\0", (folder / "environ").read_bytes())
        except (OSError, ValueError):
            continue
        if parent == process.pid and rank:
            found[int(rank.group(1))] = int(folder.name)
    return found


def ours(errors):
    """What nhzoo said, of all that torchrun and its children wrote."""
    return [line for line in errors.splitlines() if re.match(r"nhzoo: |stopped|terminated", line)]


def same_weights(agent, policy):
    held = safetensors.numpy.load_file(agent / "model.safetensors")
    for name, tensor in policy.state_dict().items():
        np.testing.assert_allclose(held[name], tensor, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_where_one_was(config, games, whole, tmp_path):
    assert whole.frames < UPDATES * 4 * 7  # or rows that run out would not be tested
    folder = tmp_path / "run"
    alone = bc.Run(config, games[0], folder)
    for _ in range(40):
        alone.step()
    alone.save()
    process = torchrun(2, config, folder, loaders=2)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert out.count("held-out loss") == 1  # one process speaks
    same_weights(tmp_path / "agent", whole.policy)
    row = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert len(row) == 1
    assert f'"samples": {whole.frames}' in row[0]
    expected = outputs.ledger_row(whole, "agent", games[0])
    assert f'"unique_samples": {expected.unique_samples}' in row[0]
    assert '"world_size": 2' in row[0]
    assert "--nproc-per-node 2 -m nhzoo train bc" in (tmp_path / "agent/README.md").read_text()
    assert len((folder / "log.jsonl").read_text().splitlines()) == 2
    again = bc.train_bc(config, *games, folder)
    assert again.frames == whole.frames
    assert again.loss.loss == pytest.approx(whole.loss.loss, rel=1e-5)


def until_saved(process, folder):
    while not (folder / STATE).exists():
        time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "restarts"), [(0, 0), (1, 1)])
def test_a_process_that_dies_ends_the_run_in_one_line_and_it_goes_on(
    config, games, whole, tmp_path, victim, restarts
):
    """In one process, or started again by torchrun."""
    folder = tmp_path / "run"
    process = torchrun(2, config, folder, restarts)
    until_saved(process, folder)
    os.kill(workers(process)[victim], signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert (process.returncode == 0) == (restarts == 1), errors
    said = ours(errors)
    assert len(said) == 1, errors
    assert "one of the 2 processes died; the same command resumes" in said[0]
    assert (tmp_path / "agent").exists() == (restarts == 1)
    resumed = bc.train_bc(config, *games, folder)
    for name, tensor in whole.policy.state_dict().items():
        np.testing.assert_allclose(tensor, resumed.policy.state_dict()[name], atol=1e-5)


@pytest.mark.slow
def test_a_process_that_falls_silent_is_not_waited_for(config, tmp_path):
    folder = tmp_path / "run"
    process = torchrun(2, config, folder, NHZOO_TIMEOUT="10")
    until_saved(process, folder)
    silent = workers(process)[1]
    os.kill(silent, signal.SIGSTOP)
    line = next(line for line in process.stderr if line.startswith("nhzoo: "))
    assert "one of the 2 processes was silent for 10 s" in line
    os.kill(silent, signal.SIGKILL)  # torchrun would give it half a minute to obey
    process.communicate(timeout=300)
    assert process.returncode != 0


@pytest.mark.slow
def test_all_processes_stop_after_one_update_when_one_is_asked_to(config, games, tmp_path):
    folder = tmp_path / "run"
    process = torchrun(2, config, folder)
    until_saved(process, folder)
    os.kill(workers(process)[1], signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    (said,) = ours(errors)
    update = int(re.fullmatch(r"stopped after update (\d+); the same command resumes", said)[1])
    assert bc.Run(config, games[0], folder).counters.update == update


@pytest.mark.slow
def test_what_cannot_be_is_said_once(config, tmp_path):
    process = torchrun(3, config, tmp_path / "run")
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert ours(errors) == ["nhzoo: a batch of 4 rows does not divide among 3 processes"]


def test_torchrun_takes_none_of_our_options_for_its_own():
    from torch.distributed.run import get_args_parser

    theirs = [name for action in get_args_parser()._actions for name in action.option_strings]
    for option in train_bc.params:
        free = [o for o in option.opts if not any(name.startswith(o) for name in theirs)]
        assert free, f"torchrun takes {option.opts} for an abbreviation of its own"


def test_alone_everything_is_ones_own():
    assert (distributed.rank(), distributed.world(), distributed.machines()) == (0, 1, 1)
    assert distributed.total([1, 2.5]) == [1, 2.5]
    assert distributed.from_first("x") == "x"
    assert distributed.local_first(lambda: 7, "work") == 7
    part = torch.arange(6.0).reshape(1, 2, 3)
    assert torch.equal(distributed.gathered(part, 1), part)
    distributed.wait_for_all()
    with distributed.joined():
        assert distributed.world() == 1


@pytest.mark.parametrize("name", ["tpu", "cpu:0", "cuda:x", "auto:1", ""])
def test_devices_that_are_none(name):
    with pytest.raises(InputError, match="--device"):
        distributed.pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_without_a_gpu_the_remedy_is_named():
    assert distributed.pick_device("auto") == distributed.pick_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match=r"sees 0 GPUs.*--device cpu"):
        distributed.pick_device("cuda")


def test_a_timeout_that_is_no_number_is_named(monkeypatch):
    monkeypatch.setenv("NHZOO_TIMEOUT", "soon")
    with pytest.raises(InputError, match="NHZOO_TIMEOUT must be a whole number"):
        distributed._timeout()
