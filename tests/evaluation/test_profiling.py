"""What an agent costs: every figure is of the games that were played, and none of another size."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from nhzoo.errors import InputError
from nhzoo.evaluation.profiling import profile
from tests.helpers.commands import run


class Slow:
    """Takes 5 ms a call, and 50 ms every tenth; quits each game after 25 steps."""

    name, observation_keys, max_batch = "slow", ("blstats",), 4

    def __init__(self) -> None:
        self.calls = 0

    def initial_state(self, batch):
        return np.zeros(batch, np.int64)

    def act(self, observation, state, uniform):
        assert observation["blstats"].shape == (len(uniform), 27)
        self.calls += 1
        time.sleep(0.05 if self.calls % 10 == 0 else 0.005)
        return QUIT[np.maximum(state - 18, 0)], state + 1


class Failing(Slow):
    name = "failing"

    def act(self, observation, state, uniform):
        if state.max() > 20:
            raise KeyError("key")
        return np.zeros(len(uniform), np.int64), state + 1


def _quit():
    from nhzoo.envs.actions import ACTION_KEYS

    return np.array([list(ACTION_KEYS).index(key) for key in b"s\x1b#quit\ry"])


QUIT = _quit()


@pytest.mark.slow
def test_latency_and_speed_are_those_of_the_steps_that_were_timed():
    seen = []
    found = profile(Slow(), "smoke-v1", [1, 3], 40, lambda *at: seen.append(at))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert (found.agent, found.protocol) == ("slow", "smoke-v1")
    for batch, size in zip(found.batches, (1, 3), strict=True):
        assert (batch.batch, batch.calls) == (size, 40)
        assert 5 <= batch.p50_ms <= batch.p99_ms and batch.p99_ms >= 50
        assert 0 < batch.steps_per_second < size * 40 / (36 * 0.005 + 4 * 0.05)
        assert batch.raw_steps_per_second > batch.steps_per_second
        assert batch.share == batch.steps_per_second / batch.raw_steps_per_second
        assert 20 < batch.memory_mb < 4_000
    with pytest.raises(InputError, match=r"failing, batch 1: game 0.*KeyError"):
        profile(Failing(), "smoke-v1", [1], 40)


def test_sizes_that_cannot_be_played_are_refused():
    for batches, calls in (([5], 10), ([0], 10), ([1], 0), ([], 1)):
        with pytest.raises(InputError, match="batches from 1 to 4 for slow on smoke-v1"):
            profile(Slow(), "smoke-v1", batches, calls)


@pytest.mark.slow
def test_the_command_shows_a_table_or_one_document(shared_entry):
    command = ("profile", shared_entry, "--protocol", "smoke-v1", "--batch", 2, "--steps", 20)
    document = json.loads(run(*command, "--json").stdout)
    (batch,) = document["batches"]
    assert batch["batch"] == 2 and document["environment"]["machine"]
    assert "raw NLE" in run(*command[:-1], 5).stdout
    blind = json.loads(run("profile", "random", "--steps", 10, "--json").stdout)
    assert [row["batch"] for row in blind["batches"]] == [256]
