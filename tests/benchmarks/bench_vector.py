"""`make_vec("nhzoo/Monk-v1")` beside gymnasium's own vector environments of the same games.

make bench    # or: pytest tests/benchmarks/bench_vector.py

64 games, random keys, all observations of NetHackChallenge, copies. AsyncVectorEnv steps the same
`NetHackEnv`, without gymnasium's checker, in a process for each game, with shared memory. Its many
processes get more of a busy machine than our few: compare the CPU time there.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from multiprocessing import active_children
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import nhzoo  # noqa: F401
from nhzoo.envs.gym import NetHackEnv

GAMES, STEPS = 64, 150


def cpu_seconds(pids: list[int]) -> float:
    """What these processes have used of the CPU."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_vector_environments(side_by_side, note):
    with ExitStack() as stack:
        made = {
            "ours": lambda: gymnasium.make_vec("nhzoo/Monk-v1", num_envs=GAMES),
            "AsyncVectorEnv": lambda: gymnasium.vector.AsyncVectorEnv([NetHackEnv] * GAMES),
        }
        works, used = {}, {}
        for name, make in made.items():
            env = make()
            stack.callback(env.close)
            env.reset(seed=0)
            before = {pid for pids, _, _ in used.values() for pid in pids}
            pids = [child.pid for child in active_children() if child.pid not in before]
            used[name] = pids, [], []
            keys = np.random.default_rng(0)

            def work(env=env, keys=keys, used=used[name]):
                pids, seconds, steps = used
                began = cpu_seconds([*pids, os.getpid()])
                for _ in range(STEPS):
                    env.step(keys.integers(0, 121, GAMES))
                seconds.append(cpu_seconds([*pids, os.getpid()]) - began)
                steps.append(GAMES * STEPS)
                return GAMES * STEPS

            works[name] = work
        rates = side_by_side(f"steps/s, {GAMES} games", 3, **works)
    cpu = {name: 1e6 * sum(seconds) / sum(steps) for name, (_, seconds, steps) in used.items()}
    note("vector environments", cpu, "CPU us a step, all processes")
    assert all(rates.values())
