"""Reading and packing demonstrations, against `nle.dataset` and raw NLE.

make bench    # or: pytest tests/benchmarks/bench_data.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import nle.dataset
import numpy as np
import pytest
import torch
from nle import nethack

from nhzoo.data import frames, packing
from nhzoo.data.batches import Streams, count_frames, read_games
from nhzoo.data.traces import Trace, TraceSet, open_traces, replay
from nhzoo.data.ttyrec import write_ttyrecs
from nhzoo.envs.actions import TTY
from nhzoo.envs.game import Game
from nhzoo.evaluation.loss import tensors_of
from nhzoo.training import bc
from nhzoo.training.config import BCConfig

BATCH, TIME = 4, 64  # of `train bc`
GAMES = ("1000001", "1000015", "2000030", "2000062")  # held-out games, 240,000 keys


@pytest.fixture(scope="session")
def games(tmp_path_factory) -> tuple[list[Path], TraceSet, str]:
    """The same games packed, as traces, and the index of their ttyrecs."""
    whole = open_traces("autoascend-monk-v1")
    chosen = TraceSet("few", whole.folder, tuple(t for t in whole.traces if t.game in GAMES))
    folder = tmp_path_factory.mktemp("ttyrecs")
    write_ttyrecs(chosen, folder / "nle_data")
    database = str(folder / "ttyrecs.db")
    nle.dataset.db.create(database)
    nle.dataset.add_nledata_directory(str(folder / "nle_data"), "nhzoo", database)
    cache = tmp_path_factory.mktemp("packed")
    paths = []
    for trace in chosen.traces:
        paths.append(cache / f"{trace.game}.frames")
        frames.write_game(paths[-1], replay(trace, Game()), TTY, {"game": trace.game})
    return paths, chosen, database


def test_reading(games, side_by_side, note):
    """Frames per second of one thread: what the policy reads, dense screens, `nle.dataset`."""
    packed, _, database = games
    total = count_frames(packed)

    def view(name: str) -> float:
        return sum(batch.valid for batch, _ in read_games(packed, BATCH, TIME, view=name))

    def theirs() -> float:
        dataset = nle.dataset.TtyrecDataset(
            "nhzoo",
            batch_size=BATCH,
            seq_length=TIME,
            dbfilename=database,
            shuffle=False,
        )
        return sum(int(np.count_nonzero(minibatch["gameids"])) for minibatch in dataset)

    side_by_side(
        "frames/s, one thread",
        3,
        policy=lambda: view("policy"),
        screens=lambda: view("screens"),
        ttyrec_dataset=theirs,
    )
    size = sum(path.stat().st_size for path in packed)
    note("packed size", {"bytes a frame": size / total}, f"{total:,} frames")


def step_raw(trace: Trace) -> int:
    """Step a bare `nle.nethack.Nethack` through a game, with the observations that are packed."""
    spec = trace.spec
    env = nethack.Nethack(
        observation_keys=TTY, playername=spec.name, ttyrec=None, fix_moon_phase=True
    )
    env.set_initial_seeds(spec.core, spec.disp, False, spec.lgen)
    env.reset()
    keys = trace.keys()
    for key in keys:
        _, done = env.step(key)
        if done:
            break
    env.close()
    return len(keys)


def test_packing(games, side_by_side):
    """Steps per second of one core: packing a game against stepping raw NLE through its keys."""
    _, traces, _ = games
    trace, game = traces.traces[0], Game()
    path = games[0][0].with_suffix(".again")
    side_by_side(
        "steps/s, one core",
        5,
        pack=lambda: frames.write_game(path, replay(trace, game), TTY, {"game": trace.game}),
        raw_nle=lambda: step_raw(trace),
    )


def test_packing_on_all_cores(side_by_side, tmp_path):
    """`nhzoo data pack` of the nine held-out games, workers and all, against raw NLE in a pool."""
    traces = open_traces("autoascend-monk-v1").select("validation")
    caches = iter(range(100))

    def pack() -> float:
        cache = tmp_path / str(next(caches))
        return packing.pack("autoascend-monk-v1", split="validation", cache=cache).frames

    def raw() -> float:
        with get_context("spawn").Pool(os.cpu_count()) as pool:
            return sum(pool.imap_unordered(step_raw, traces))

    side_by_side("steps/s, all cores", 2, pack=pack, raw_nle=raw)


def test_training_does_not_wait_for_data(games, note):
    """Share of the time of updates of a `bc-lstm-1m` that goes into getting batches."""
    packed, _, _ = games
    config = BCConfig(data="few", params=1_000_000, flops=1e15, batch=BATCH, time=TIME, streams=512)
    torch.set_num_threads(1)
    run = bc.Run(config, packed, Path(packed[0].parent / "run"))
    for _ in range(160):  # once round all streams: their first chunks are read
        run.step()
    began = time.perf_counter()
    for _ in range(40):
        run.step()
    step = (time.perf_counter() - began) / 40
    streams = Streams(packed, config.streams, BATCH, TIME)
    for _ in range(160):
        streams.next()
    began = time.perf_counter()
    for _ in range(160):
        tensors_of(streams.next()[0])
    read = (time.perf_counter() - began) / 160
    note(
        "waiting for data", {"percent of a step": 100 * read / step}, f"{1e3 * step:.1f} ms a step"
    )


_MEMORY = """
import resource, sys
from pathlib import Path
from nhzoo.data.batches import Streams
games = [Path(name) for name in sys.argv[2:]]
streams = Streams(games, 512, 4, 64)
streams.next()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(int(sys.argv[1])):
    streams.next()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, before)
"""


def test_memory_of_a_reader(games, note):
    """Peak memory of 512 open streams over one game and over four: it follows the streams."""
    packed, _, _ = games

    def peak(paths: list[Path]) -> float:
        command = [sys.executable, "-c", _MEMORY, "600", *map(str, paths)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return int(out.split()[0]) / 1024

    values = {"four games": peak(packed), "one game": peak(packed[:1])}
    note("memory of 512 streams", values, "MB, Python and its libraries included")
