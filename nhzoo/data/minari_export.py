"""Trace sets as Minari datasets: every game replayed, each step's screen, action and reward.

An episode has the observations that a terminal shows (`tty_chars`, `tty_colors`, `tty_cursor`), the
indices of NetHackChallenge's 121 actions, and the increase of the score at each step as reward.
Needs the extra `minari`.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from nle import nethack

from nhzoo import __version__
from nhzoo.data.catalog import open_demonstrations
from nhzoo.data.traces import Trace, TraceSet, replay
from nhzoo.envs.actions import ACTION_OF_KEY, TTY
from nhzoo.envs.game import Game
from nhzoo.errors import InputError
from nhzoo.runtime.console import ProgressCallback, no_progress

_STEP_BYTES = 24 * 80 * 2 + 2 + 8 + 8 + 2
"""Bytes of a step in the file: Minari compresses nothing."""


@dataclass(frozen=True)
class MinariExport:
    """A dataset that was written: `minari.load_dataset(name)` with MINARI_DATASETS_PATH=`root`."""

    name: str
    root: Path
    games: int
    steps: int


def export_minari(
    source: str | Path,
    root: Path,
    games: int | None = None,
    split: str | None = None,
    progress: ProgressCallback = no_progress,
) -> MinariExport:
    """Write the first `games` games of a trace set (all by default) below the folder `root`.

    `source` is what `nhzoo data list` names, a folder of traces, or a result folder; with `split`,
    only its games. Each game is replayed and checked on the way, 3.9 kB a step in the file. An
    episode's options are the game's name, seeds and character. InputError for a set without traces,
    for a key that is no action, and where the disk has not the room. `progress` gets the steps.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import h5py  # noqa: F401
            import minari
    except ImportError as error:
        raise InputError(f"{error.name} is missing: pip install 'nhzoo[minari]'") from None
    data = open_demonstrations(source)
    if not isinstance(data, TraceSet):
        raise InputError(f"{source}: has screens, not traces; Minari is written from traces")
    chosen = data.select(split)[:games]
    if not chosen:
        raise InputError(f"{source}: has no game of the split {split!r}")
    root = Path(root).resolve()
    name = dataset_id(data.name)
    if (root / name).exists():
        raise InputError(f"{root / name}: is there already; delete it, or give another --out")
    root.mkdir(parents=True, exist_ok=True)
    steps = sum(trace.length for trace in chosen)
    free = shutil.disk_usage(root).free
    if steps * _STEP_BYTES > free:
        raise InputError(
            f"{root}: {steps:,} steps take {steps * _STEP_BYTES / 1e9:,.1f} GB, and "
            f"{free / 1e9:,.1f} GB are free; give fewer games by --games"
        )
    env = gymnasium.spec(f"nhzoo/{_environment(chosen)}-v1")
    env.kwargs = env.kwargs | {"observation_keys": list(TTY)}
    with _datasets_in(root), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about facts that a trace set does not have
        try:
            minari.create_dataset_from_buffers(
                name,
                _episodes(chosen, minari.data_collector.EpisodeBuffer, progress),
                env=env,
                algorithm_name=str(chosen[0].agent or data.name),
                author="nhzoo",
                description=f"Games of {data.name}, replayed by nhzoo {__version__} in NLE 1.3.",
                requirements=[f"nhzoo=={__version__}", "nle==1.3.*"],
                jpeg_encoding=False,
            )
        except BaseException:
            shutil.rmtree(root / name, ignore_errors=True)  # half a dataset is none
            raise
    return MinariExport(name, root, len(chosen), steps)


def dataset_id(name: str) -> str:
    """The id of a set in Minari: "nhzoo/autoascend-monk-v1"; version 0 where the name has none."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "traces"
    return f"nhzoo/{plain if re.search(r'-v[0-9]+$', plain) else f'{plain}-v0'}"


def _environment(traces: Sequence[Trace]) -> str:
    return (
        "Monk" if {trace.spec.character for trace in traces} == {"mon-hum-neu-mal"} else "AllRoles"
    )


@contextmanager
def _datasets_in(root: Path) -> Iterator[None]:
    """Have Minari write below a folder."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def _episodes(traces: Sequence[Trace], buffer: Any, progress: ProgressCallback) -> Iterator[Any]:
    """One game after the other: only one is in memory."""
    total, done = sum(trace.length for trace in traces), 0
    game = Game(TTY)
    try:
        for trace in traces:
            yield buffer(**_episode(trace, game))
            done += trace.length
            progress(done, total)
    finally:
        game.close()


def _episode(trace: Trace, game: Game) -> dict[str, Any]:
    """The fields of an episode: one observation more than steps, as Minari has it."""
    steps = trace.length
    seen = {
        "tty_chars": np.empty((steps + 1, 24, 80), np.uint8),
        "tty_colors": np.empty((steps + 1, 24, 80), np.int8),
        "tty_cursor": np.empty((steps + 1, 2), np.uint8),
    }
    actions = np.empty(steps, np.int64)
    rewards = np.zeros(steps)
    before = None
    for step, (frame, key) in enumerate(replay(trace, game)):
        for name, array in seen.items():
            array[step] = frame[name]
        actions[step] = ACTION_OF_KEY[key]
        if actions[step] < 0:
            raise InputError(f"game {trace.game}: key {key} at step {step + 1:,} is no action")
        score = int(frame["blstats"][nethack.NLE_BL_SCORE])
        if before is not None:
            rewards[step - 1] = score - before
        before = score
    for name, array in seen.items():
        array[steps] = game.observation[name]
    assert before is not None  # a trace has a key at least
    if not game.over:
        rewards[-1] = int(game.observation["blstats"][nethack.NLE_BL_SCORE]) - before
    ended = np.zeros((2, steps), bool)
    ended[0 if game.over else 1, -1] = True
    spec = trace.spec
    return {
        "options": {
            "game": trace.game,
            "core": spec.core,
            "disp": spec.disp,
            "character": spec.character,
            "ubirthday": spec.ubirthday,
        },
        "observations": seen,
        "actions": actions,
        "rewards": rewards,
        "terminations": ended[0],
        "truncations": ended[1],
    }
