"""Training on a GPU. None was at hand when this was written: what it says has not been seen."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from nhzoo.agents.loading import load
from nhzoo.errors import CheckFailed
from nhzoo.evaluation.loss import measure_agent
from nhzoo.policy.checkpoint import Sampling
from nhzoo.policy.table_sums import table_sum
from nhzoo.training import bc, outputs
from nhzoo.training.rl import impala
from nhzoo.training.rl.impala import ImpalaRun
from tests.training.rl.test_impala import TINY
from tests.training.test_bc import DEBUG, games  # noqa: F401
from tests.training.test_gpu_road import TOLERANCE

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


@contextmanager
def waits_are_errors():
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_losses_are_those_of_a_cpu_update_by_update(games, tmp_path, precision):  # noqa: F811
    found = []
    for device in ("cpu", "cuda"):
        config = replace(GPU, device=device, precision=precision)
        with closing(bc.Run(config, games[0], tmp_path / device)) as run:
            for _ in range(50):
                run.step()
            run.check()
            found.append(run.counters.losses)
    tolerance = TOLERANCE if precision == "fp32" else 0.02
    np.testing.assert_allclose(found[1], found[0], rtol=tolerance)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_update_waits_for_nothing(games, tmp_path, precision):  # noqa: F811
    config = replace(GPU, precision=precision, dropout=0.1, accumulate=2)
    with closing(bc.Run(config, games[0], tmp_path)) as run:
        for _ in range(3):
            run.step()
        with waits_are_errors():
            for _ in range(5):
                run.step()
        run.check()
        assert len(run.counters.losses) == 8


def test_an_update_of_impala_waits_only_for_the_weights(tmp_path):
    with closing(ImpalaRun(replace(TINY, device="cuda"), tmp_path)) as run:
        run.step()
        unrolls = run.pool.collect(1)
        arrays = impala.joined(unrolls)
        batch = impala.to_device(arrays, run.device)
        with waits_are_errors():
            learnt = run._learn(batch, unrolls)
        assert torch.isfinite(learnt).all()


def test_loaders_give_a_gpu_what_it_would_read_itself(games, tmp_path):  # noqa: F811
    with (
        closing(bc.Run(GPU, games[0], tmp_path / "a", loaders=0)) as alone,
        closing(bc.Run(GPU, games[0], tmp_path / "b", loaders=2)) as run,
    ):
        for _ in range(12):
            ours, theirs = run.feed.next(), alone.feed.next()
            assert ours.actions.is_cuda and ours.rows == theirs.rows
            assert torch.equal(ours.actions, theirs.actions)
            assert torch.equal(ours.not_first, theirs.not_first)
            for name, tensor in theirs.inputs.items():
                assert torch.equal(ours.inputs[name], tensor), name


def test_sums_of_a_large_batch_are_right_to_the_last_row():
    """More additions than 32 bits count, as a batch of maps has at a width of 64."""
    table = torch.randn(1_153, 64, device="cuda", requires_grad=True)
    indices = torch.randint(-1, 1_153, (3_000_000, 12), device="cuda", dtype=torch.int32)
    table_sum(table, indices)[-1_000:].sum().backward()
    expected = torch.bincount(indices[-1_000:].flatten().long() + 1, minlength=1_154)[1:]
    torch.testing.assert_close(table.grad, expected[:, None].expand(-1, 64).float())
