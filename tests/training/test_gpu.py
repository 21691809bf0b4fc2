"""Training on a GPU. None was at hand when this was written: what it says has not been seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nhzoo.agents.loading import load
from nhzoo.errors import CheckFailed
from nhzoo.evaluation.loss import measure_agent
from nhzoo.policy.checkpoint import Sampling
from nhzoo.training import bc, outputs
from tests.training.test_bc import DEBUG, games  # noqa: F401

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
GPU = replace(DEBUG, device="cuda", dropout=0.0)


def test_a_gpu_trains_to_about_what_a_cpu_does(games, tmp_path):  # noqa: F811
    on_cpu = bc.train_bc(replace(GPU, device="cpu"), *games, tmp_path / "cpu")
    on_gpu = bc.train_bc(GPU, *games, tmp_path / "gpu")
    assert on_gpu.loss.loss == pytest.approx(on_cpu.loss.loss, rel=1e-3)
    outputs.publish(on_gpu, tmp_path / "agent", *games, Sampling(), "", "")
    assert measure_agent(load(tmp_path / "agent"), games[1]).loss == pytest.approx(
        on_gpu.loss.loss, rel=1e-3
    )


def test_half_precision_learns_about_the_same(games, tmp_path):  # noqa: F811
    whole = bc.train_bc(GPU, *games, tmp_path / "fp32")
    half = bc.train_bc(replace(GPU, precision="bf16"), *games, tmp_path / "bf16")
    assert half.loss.loss == pytest.approx(whole.loss.loss, rel=0.02)


def test_a_gpu_run_goes_on_where_it_was(games, tmp_path):  # noqa: F811
    whole = bc.train_bc(GPU, *games, tmp_path / "whole")
    run = bc.Run(GPU, games[0], tmp_path / "run")
    for _ in range(23):
        run.step()
    run.save()
    run.close()
    resumed = bc.train_bc(GPU, *games, tmp_path / "run")
    assert resumed.frames == whole.frames
    assert resumed.loss.loss == pytest.approx(whole.loss.loss, rel=1e-3)


def test_a_loss_that_is_not_finite_is_seen_before_the_next_save(games, tmp_path):  # noqa: F811
    run = bc.Run(GPU, games[0], tmp_path)
    run.step()
    run.save()
    run.policy.head.bias.data[0] = float("nan")
    run.step()  # nothing is read back yet
    with pytest.raises(CheckFailed, match="update 1"):
        run.save()
    run.close()
    assert bc.Run(GPU, games[0], tmp_path).counters.update == 1
