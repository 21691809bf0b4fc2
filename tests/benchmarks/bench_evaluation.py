"""Evaluation and verification beside raw NLE and gymnasium's AsyncVectorEnv.

make bench    # or: pytest tests/benchmarks/bench_evaluation.py

Raw NLE is a bare loop over `nle.nethack.Nethack` with the same observations, one process a core,
through the same keys of the same games. Rates are those of work under way: runs over few and over
many games are subtracted, which leaves out the start of processes (given apart) and the last games.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from nle import nethack

from nhzoo import evaluate, get_protocol, load, verify
from nhzoo.agents.base import set_row
from nhzoo.envs.actions import TTY
from nhzoo.envs.gym import NetHackEnv
from nhzoo.envs.nle_library import Library
from nhzoo.envs.protocols import GameSpec, Protocol
from nhzoo.evaluation import results
from nhzoo.runtime import files
from tests import ROOT

CORES = os.cpu_count() or 1
NETWORK = ROOT / "agents" / "bc-lstm-1m"
ACCOUNTING = ("blstats", "program_state", "internal")
SHORT = replace(get_protocol("monk-v1"), id="bench-v0", step_cap=1_000)
"""Games of about the same length, so that few are needed."""

Games = Sequence[tuple[GameSpec, bytes]]
Run = Callable[[int], tuple[int, float]]


def step_raw(games: Games, names: Sequence[str]) -> tuple[int, float, float]:
    """Step through games; returns the steps, and when it began and ended."""
    env = nethack.Nethack(
        observation_keys=names, playername=games[0][0].name, ttyrec=None, fix_moon_phase=True
    )
    library = Library(env.dlpath)
    began = time.monotonic()
    for spec, keys in games:
        env.set_initial_seeds(spec.core, spec.disp, False, spec.lgen)
        env.reset()
        library.prepare(spec.ubirthday)  # or the keys would belong to another game
        for key in keys:
            _, done = env.step(key)
            if done:
                break
    return sum(len(keys) for _, keys in games), began, time.monotonic()


def raw_rate(games: Games, names: Sequence[str]) -> float:
    """Steps a second of raw NLE on all cores, the games shared out evenly."""
    shares: list[list[tuple[GameSpec, bytes]]] = [[] for _ in range(CORES)]
    for game in sorted(games, key=lambda game: -len(game[1])):
        min(shares, key=lambda share: sum(len(keys) for _, keys in share)).append(game)
    with get_context("spawn").Pool(CORES) as pool:
        done = pool.starmap(step_raw, [(share, names) for share in shares])
    return sum(steps for steps, _, _ in done) / (max(d[2] for d in done) - min(d[1] for d in done))


def under_way(run: Run, few: int, many: int) -> tuple[float, float]:
    """Steps a second of work under way, and the seconds before. `run` takes a number of games."""
    (less, early), (more, late) = run(few), run(many)
    rate = (more - less) / (late - early)
    return rate, early - less / rate


def games_of(folder: Path, protocol: Protocol) -> Games:
    """What decides the games of a result, and their keys."""
    rows = results.read_episodes(folder)
    return [(protocol.game(r["index"]), results.read_trace(folder, r["index"])) for r in rows]


def timed(work: Callable[[], int]) -> tuple[int, float]:
    began = time.monotonic()
    amount = work()
    return amount, time.monotonic() - began


def played(agent: str | Path, protocol: Protocol, games: int, out: Path | None, batch: int) -> int:
    """Steps of an evaluation."""
    done = evaluate(agent, protocol, games, CORES, out, batch)
    return sum(row["steps"] for row in done.episodes)


def test_evaluating_the_random_agent(note, tmp_path):
    """Games of its usual length, about 2,200 steps; with results written, and without."""
    protocol, (few, many) = get_protocol("monk-v1"), (64, 1_024)
    folders = iter(range(100))

    def run(games: int, write: bool) -> tuple[int, float]:
        out = tmp_path / str(next(folders)) if write else None
        return timed(lambda: played("random", protocol, games, out, 16))

    run(many, True)
    games = games_of(tmp_path / "0", protocol)
    best = {"evaluate": 0.0, "evaluate, written": 0.0, "raw NLE": 0.0}
    start = 0.0
    for _ in range(3):
        rate, start = under_way(lambda games: run(games, False), few, many)
        best["evaluate"] = max(best["evaluate"], rate)
        rate, _ = under_way(lambda games: run(games, True), few, many)
        best["evaluate, written"] = max(best["evaluate, written"], rate)
        best["raw NLE"] = max(best["raw NLE"], raw_rate(games, ACCOUNTING))
    note("random agent", best, f"steps/s, {CORES} workers; started within {start:.1f} s")


@pytest.mark.parametrize("batch", [16, 32, 64])
def test_evaluating_a_network(note, tmp_path, batch):
    """bc-lstm-1m, every worker with a full batch of games of 1,000 steps."""
    few, many = CORES * batch, 3 * CORES * batch
    played(NETWORK, SHORT, many, tmp_path / "out", batch)
    games = games_of(tmp_path / "out", SHORT)
    best, start = {"evaluate": 0.0, "raw NLE": 0.0}, 0.0
    for _ in range(2):
        rate, start = under_way(
            lambda games: timed(lambda: played(NETWORK, SHORT, games, None, batch)), few, many
        )
        best["evaluate"] = max(best["evaluate"], rate)
        best["raw NLE"] = max(best["raw NLE"], raw_rate(games, (*TTY, *ACCOUNTING)))
    note(
        f"bc-lstm-1m, batch {batch}",
        best,
        f"steps/s, {CORES} workers; started within {start:.1f} s",
    )


@pytest.mark.parametrize("agent", ["random", "bc-lstm-1m"])
def test_verifying(note, tmp_path, agent):
    """A published result: all its games, less the time that the first few take alone."""
    whole = ROOT / "leaderboard" / "results" / agent / "monk-lite-v1"
    folders = {4: tmp_path / "few", 128: whole}
    shutil.copytree(whole, folders[4])
    rows = results.read_episodes(whole)
    files.atomic_write(folders[4] / "episodes.jsonl", files.dump_jsonl(rows[:4]))
    games = games_of(whole, get_protocol("monk-lite-v1"))

    def run(count: int) -> tuple[int, float]:
        def work() -> int:
            assert verify(folders[count], CORES).verified == count
            return sum(len(keys) for _, keys in games[:count])

        return timed(work)

    best, start = {"verify": 0.0, "raw NLE": 0.0}, 0.0
    for _ in range(2):
        rate, start = under_way(run, 4, 128)
        best["verify"] = max(best["verify"], rate)
        best["raw NLE"] = max(best["raw NLE"], raw_rate(games, ACCOUNTING))
    note(f"verify {agent}", best, f"keys/s, {CORES} workers; started within {start:.1f} s")


class InTurn(gymnasium.Wrapper):
    """Plays given games of a protocol, one after another, as AsyncVectorEnv resets it."""

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__(NetHackEnv(observation_keys=TTY))
        self._indices = iter(indices)

    def reset(self, *, seed=None, options=None):
        spec = SHORT.game(next(self._indices))
        self.env._limits = SHORT.step_cap, SHORT.no_progress
        return self.env.reset(options={"game": spec})


def vector_rate(agent, envs: int, steps: int) -> float:
    """Steps a second of a plain loop over an AsyncVectorEnv, the network in between."""
    order = [list(range(first, SHORT.games, envs)) for first in range(envs)]
    vector = gymnasium.vector.AsyncVectorEnv([lambda mine=mine: InTurn(mine) for mine in order])
    try:
        turns = [iter(mine) for mine in order]
        streams = [SHORT.uniforms(next(turn)) for turn in turns]
        seen, _ = vector.reset()
        state = agent.initial_state(envs)
        over = np.zeros(envs, bool)
        total, began = 0, 0.0
        for step in range(-100, steps):
            if step == 0:
                total, began = 0, time.monotonic()
            uniform = np.array([stream.random() for stream in streams])
            actions, state = agent.act(seen, state, uniform)
            seen, _, terminated, truncated, _ = vector.step(actions)
            total += int(envs - over.sum())
            for row in np.flatnonzero(over):  # this step was its reset
                set_row(state, row, agent.initial_state(1))
                streams[row] = SHORT.uniforms(next(turns[row]))
            over = terminated | truncated
        return total / (time.monotonic() - began)
    finally:
        vector.close()


def test_against_async_vector_env(note):
    """The same network and games in gymnasium's vector environment, the best of five sizes."""
    agent = load(NETWORK)
    torch.set_num_threads(1)
    best = {"evaluate": 0.0} | {f"AsyncVectorEnv, {n} envs": 0.0 for n in (2, 4, 8, 16, 32)}
    for _ in range(2):
        rate, _ = under_way(
            lambda games: timed(lambda: played(NETWORK, SHORT, games, None, 16)),
            16 * CORES,
            32 * CORES,
        )
        best["evaluate"] = max(best["evaluate"], rate)
        for envs in (2, 4, 8, 16, 32):
            name = f"AsyncVectorEnv, {envs} envs"
            best[name] = max(best[name], vector_rate(agent, envs, 16_000 // envs))
    rivals = sorted((rate, name) for name, rate in best.items() if name != "evaluate")
    ordered = {"evaluate": best["evaluate"]} | {name: rate for rate, name in rivals}
    note("against AsyncVectorEnv", ordered, "steps/s; ratios are to its best")


_MEMORY = """
import sys, tempfile
from nhzoo import get_protocol, load
from nhzoo.evaluation.playing import PlayTask
with tempfile.TemporaryDirectory() as tempfile.tempdir:
    task = PlayTask(load(sys.argv[1]), get_protocol("monk-v1"), int(sys.argv[2]))
    for index in range(task.slots):
        task.start(index, None)
    for _ in range(300):
        list(task.advance(lambda *mark: None))
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("Pss:")))
    tempfile.tempdir = None
"""


def test_memory_of_an_environment(note):
    """Proportional set size of a worker with 64 games, less that of one with a single game."""

    def pss(games: int) -> int:
        command = [sys.executable, "-c", _MEMORY, os.fspath(NETWORK), str(games)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    one, many = pss(1), pss(64)
    copy = os.path.getsize(nethack.nethack.DLPATH) / 1e6
    note(
        "memory of an environment",
        {"of a process": (many - one) / 63 / 1024},
        f"MB; NLE's copy of its library on top: {copy:.1f} MB, worker {one / 1024:.0f} MB",
    )
