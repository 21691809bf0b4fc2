"""Trains IMPALA to the end of its steps, from scratch or from an entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nhzoo.agents import registry
from nhzoo.envs.game import TTY, blank
from nhzoo.errors import InputError
from nhzoo.policy.checkpoint import Entry, load_entry
from nhzoo.policy.network import Policy
from nhzoo.training import distributed
from nhzoo.training.loop import Loop, run_in
from nhzoo.training.rl.config import ImpalaConfig
from nhzoo.training.rl.critic import Critic, load_critic
from nhzoo.training.rl.envs import WorldConfig
from nhzoo.training.rl.impala import Held, ImpalaRun
from nhzoo.training.training_log import Progress

_PROBED = 4, 2  # frames and games of an entry's self-test


@dataclass
class Played:
    """A run at its end, or (`finished` false) at a checkpoint on the way.

    `scores` are those of the latest games that its actors finished, while they learnt.
    """

    policy: Policy
    critic: Critic
    config: ImpalaConfig
    held: Held
    finished: bool
    updates: int
    steps: int
    flops: float
    games: int
    scores: list[float]
    seconds: float
    energy_joules: float | None
    device: torch.device

    @property
    def mean_score(self) -> float | None:
        """Of the latest games; None before the first has ended."""
        return float(np.mean(self.scores)) if self.scores else None

    @property
    def score_error(self) -> float | None:
        """The standard error of that; None of one game or of equal scores."""
        n = len(self.scores)
        return float(np.std(self.scores, ddof=1)) / math.sqrt(n) or None if n > 1 else None


def train(
    config: ImpalaConfig,
    folder: Path,
    held: Held | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    checkpoint: Callable[[Played], object] = lambda played: None,
    say: Callable[[str], None] = lambda text: None,
) -> Played:
    """Train to the end of the steps, or go on with the run that `folder` holds.

    `checkpoint` hears of each of `config.checkpoints`, `say` of what a user should know.
    """
    if distributed.world() > 1:
        raise InputError("train impala has one learner: start it without torchrun")
    given = held or Held()

    def measured(finished: bool) -> Played:
        return Played(
            policy=run.policy,
            critic=run.critic,
            config=config,
            held=given,
            finished=finished,
            updates=run.update,
            steps=run.frames,
            flops=run.flops,
            games=run.episodes,
            scores=run.scores,
            seconds=run.seconds,
            energy_joules=run.energy,
            device=run.device,
        )

    def make(stopped: Sequence[int]) -> ImpalaRun:
        return ImpalaRun(config, folder, given, say, lambda: bool(stopped))

    with run_in(folder, make) as (run, log, stopped):
        Loop(run, log, measured, progress, checkpoint).go(stopped)
        return measured(True)


def hold(config: ImpalaConfig, demonstrations: list[Path]) -> Held:
    """What a config names: the entry to start from and its critic, the teacher, demonstrations."""
    start, where = _entry("--start", config.start) if config.start else (None, None)
    critic = None
    if start and where:
        critic = Critic(start.policy.config.hidden)
        critic = critic if load_critic(where, critic) else None
    teacher, _ = _entry("--teacher", config.teacher) if config.teacher else (None, None)
    return Held(start, critic, teacher, tuple(demonstrations))


def probe(world: WorldConfig) -> dict[str, Any]:
    """Screens for an entry's self-test: the first frames of some games, with nothing pressed."""
    time, games = _PROBED
    screens = blank(TTY, games)
    seen: dict[str, list[Any]] = {name: [] for name in TTY}
    worlds = [
        world.make(number, {name: held[number] for name, held in screens.items()})
        for number in range(games)
    ]
    for number in range(time):
        for held in worlds:
            held.begin(number)
        for name in TTY:
            seen[name].append(screens[name].copy())
    for held in worlds:
        held.close()
    stacked = {name.removeprefix("tty_"): np.stack(frames) for name, frames in seen.items()}
    return stacked | {"previous": np.zeros((time, games), np.uint8)}


def _entry(option: str, source: str) -> tuple[Entry, Path]:
    path = registry.find(source) or Path(source)
    if not (path / "config.json").is_file():
        raise InputError(f"{option} {source}: is no zoo entry; give a name or a folder of one")
    try:
        return load_entry(path), path
    except InputError as error:
        raise InputError(f"{option} {source}: {error}") from None
