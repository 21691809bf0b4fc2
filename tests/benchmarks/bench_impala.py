"""Training by playing beside raw NLE: steps a second, and CPU time a step.

make bench    # or: pytest tests/benchmarks/bench_impala.py

A network of 100,000 parameters, two actors and a learner on this machine. Raw NLE is a bare loop
over `nle.nethack.Nethack` with the same observations, one process an actor, through the keys that
the actors pressed in the same games. They are measured in turns: other work on the machine slows
both.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from nle import nethack

from nhzoo.envs.actions import ACTION_KEYS, TTY
from nhzoo.envs.nle_library import Library
from nhzoo.envs.protocols import UBIRTHDAY, seeds_of
from nhzoo.training.rl.config import ImpalaConfig
from nhzoo.training.rl.impala import ImpalaRun
from nhzoo.training.rl.training import load_warm_start

ACTORS = min(2, len(os.sched_getaffinity(0)))
START = os.environ.get("NHZOO_BENCH_ENTRY", "")  # a clone plays longer games than who knows nothing
UPDATES, TURNS = 60, 3


def raw(games):
    """Steps, seconds and CPU seconds of stepping through games, opening keys and all."""
    env = nethack.Nethack(
        observation_keys=(*TTY, "blstats", "program_state", "internal"),
        playername="Agent-mon-hum-neu-mal",
        ttyrec=None,
        fix_moon_phase=True,
    )
    library = Library(env.dlpath)
    steps, began, used = 0, time.monotonic(), time.process_time()
    for (core, disp), keys in games:
        env.set_initial_seeds(core, disp, False, None)
        seen = env.reset()
        library.prepare(UBIRTHDAY)
        while not seen[4][3]:  # program_state: the opening text is shown
            seen, _ = env.step(32)
            steps += 1
        for key in keys:
            _, done = env.step(key)
            steps += 1
            if done:
                break
    return steps, time.monotonic() - began, time.process_time() - used


def cpu_of(pids):
    """CPU seconds that processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def played(states, seed):
    """The games that actors are in, of each: what decides them and the keys pressed."""
    return [
        [
            (seeds_of(f"nhzoo:play:{seed}:{actor}:{n}"), ACTION_KEYS[list(keys)].tolist())
            for n, keys in zip(state.numbers, state.actions, strict=True)
            if keys
        ]
        for actor, state in sorted(states.items())
    ]


@pytest.mark.slow
def test_training_against_raw_nle(tmp_path, note):
    chosen = {"start": START} if START else {"params": 100_000}
    config = ImpalaConfig(steps=1e9, actors=ACTORS, **chosen)
    rates = []
    with closing(ImpalaRun(config, tmp_path, load_warm_start(config, []))) as run:
        pids = [hand.child.pid for hand in run.pool._hands] + [os.getpid()]
        for _ in range(10):
            run.step()
        for _ in range(TURNS):
            before, used, began = run.counters.frames, cpu_of(pids), time.monotonic()
            for _ in range(UPDATES):
                run.step()
            steps = run.counters.frames - before
            training = steps / (time.monotonic() - began), (cpu_of(pids) - used) / steps
            games = played(run.pool.states(), config.seed)
            time.sleep(2.0)  # the actors' unrolls under way end
            with get_context("spawn").Pool(ACTORS) as pool:
                done = pool.map(raw, games)
            stepped = sum(d[0] for d in done)
            bare = stepped / max(d[1] for d in done), sum(d[2] for d in done) / stepped
            rates.append((*training, *bare))
        metrics = run.metrics()
    rate, cpu, raw_rate, raw_cpu = np.median(rates, 0)
    name, cores = "training by playing, 100,000 parameters", f"raw NLE on {ACTORS} cores"
    note(f"{name}; lag {metrics['lag']:.1f}", {"training": rate, cores: raw_rate}, "steps/s")
    note(name, {"training": 1e6 * cpu, cores: 1e6 * raw_cpu}, "CPU us a step")
    assert rate > 0
