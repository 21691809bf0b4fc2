"""The road of GPUs, on a CPU: networks in float64 take it too, see `scan` and `table_sum`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from nhzoo.policy.config import PolicyConfig
from nhzoo.policy.features import Features
from nhzoo.policy.network import Policy, to_tensors
from nhzoo.training import bc
from nhzoo.training.rl.impala import ImpalaRun
from tests.helpers.waits import Waits
from tests.training.rl.test_impala import TINY
from tests.training.test_bc import DEBUG, games  # noqa: F401

TOLERANCE = 1e-3
"""Relative, of the losses of 50 updates by float32 and by other operations."""


def on_the_road(run):
    """The run, its network in float64, whose losses are read when they are asked for."""
    run.policy.double()
    run.state = run.state.double()
    read, run.check = run.check, lambda: None
    return read


def test_both_roads_give_the_losses_of_one_training(games, tmp_path):  # noqa: F811
    config = replace(DEBUG, dropout=0.0)
    found = []
    for name, wide in (("float32", False), ("float64", True)):
        with closing(bc.Run(config, games[0], tmp_path / name)) as run:
            read = on_the_road(run) if wide else run.check
            for _ in range(50):
                run.step()
            read()
            found.append(run.counters.losses)
    assert len(found[0]) == 50 and found[0][-1] < found[0][0]
    np.testing.assert_allclose(found[1], found[0], rtol=TOLERANCE)


def test_an_update_waits_for_nothing(games, tmp_path):  # noqa: F811
    config = replace(DEBUG, accumulate=2)
    with closing(bc.Run(config, games[0], tmp_path, ahead=1)) as run:
        read = on_the_road(run)
        run.step()  # the optimizer's first makes its moments
        with Waits() as waits:
            run.step()
        assert waits.found == []
        with Waits() as waits:
            read()
        assert waits.found == ["tolist"]  # all of them at once
        assert len(run.counters.losses) == 2


@pytest.mark.parametrize("advantages", ["scaled", "raw"])
def test_an_update_of_impala_waits_once_for_the_weights(tmp_path, advantages):
    with closing(ImpalaRun(replace(TINY, advantages=advantages), tmp_path)) as run:
        run.policy.double()
        run.critic.double()
        run.step()
        unrolls = run.pool.collect(1)
        run.pool.collect = lambda count: unrolls  # what actors do is on the CPU
        with Waits() as waits:
            run.step()
        assert waits.found == ["cpu", "numpy"]
        assert np.isfinite(run.metrics()["explained"])


def test_no_value_is_needed_to_learn():
    """A tensor on "meta" has a shape alone: whatever asks for its values fails."""
    config = PolicyConfig.for_params(300_000)
    with torch.device("meta"):
        policy = Policy(config)
    policy.to("meta")
    empty = Features(**{k: np.zeros_like(v) for k, v in vars(Features.empty(6, 3)).items()})
    inputs = {name: tensor.to("meta") for name, tensor in to_tensors(empty, 6, 3).items()}
    logits, state = policy(inputs, policy.initial_state(3))
    assert (logits.shape, state.device.type) == ((6, 3, 121), "meta")
    targets = torch.zeros(18, dtype=torch.int64, device="meta")
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, ignore_index=-1)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    assert all(parameter.grad is not None for parameter in policy.parameters())
