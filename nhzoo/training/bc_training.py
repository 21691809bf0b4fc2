"""Trains behavioural cloning to the end of its budget, validating on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from nhzoo.evaluation.loss import Loss, measure_loss
from nhzoo.policy.network import Policy
from nhzoo.training import distributed
from nhzoo.training.bc import Run
from nhzoo.training.config import BCConfig
from nhzoo.training.loop import Interrupted as Interrupted
from nhzoo.training.loop import Loop, run_in
from nhzoo.training.training_log import Progress


@dataclass
class Trained:
    """A run at its end, or (`finished` false) at a checkpoint on the way."""

    policy: Policy
    config: BCConfig
    finished: bool
    updates: int
    frames: int
    unique_frames: int
    flops: float
    loss: Loss
    seconds: float
    energy_joules: float | None
    device: torch.device


def train(
    config: BCConfig,
    training_games: list[Path],
    validation_games: list[Path],
    folder: Path,
    progress: Callable[[Progress], None] = lambda progress: None,
    checkpoint: Callable[[Trained], object] = lambda trained: None,
    say: Callable[[str], None] = lambda text: None,
) -> Trained:
    """Train to the end of the budget, or go on with the run that `folder` holds.

    Process 0 alone writes, and calls `progress`, `checkpoint` (at each of `config.checkpoints`,
    after measuring all of `validation_games`) and `say` (what a user should know).
    """
    with run_in(folder, lambda _: Run(config, training_games, folder, say)) as (run, log, stopped):

        def validate() -> Loss | None:
            if run.update % config.validate_every >= config.log_every:
                return None
            return _measure(run, validation_games, config.validation_frames)

        def measured(finished: bool) -> Trained:
            return _measured(run, validation_games, finished)

        Loop(run, log, measured, progress, checkpoint, validate).go(stopped)
    return measured(True)


def _measured(run: Run, validation_games: list[Path], finished: bool) -> Trained:
    """The run as it stands, with its loss on all of the validation games."""
    return Trained(
        policy=run.policy,
        config=run.config,
        finished=finished,
        updates=run.update,
        frames=run.frames,
        unique_frames=run.feed.streams.unique_frames,
        flops=run.flops,
        loss=_measure(run, validation_games),
        seconds=run.seconds,
        energy_joules=run.energy,
        device=run.device,
    )


def _measure(run: Run, games: list[Path], max_frames: int | None = None) -> Loss:
    """`measure_loss`, the games shared out among the processes; in fp32."""
    mine = games[distributed.rank() :: distributed.world()]
    part = measure_loss(run.policy, mine, max_frames) if mine else Loss(0.0, 0.0, 0, 0)
    run.policy.train()
    if distributed.world() == 1:
        return part
    sums = part.loss * part.frames, part.accuracy * part.frames, part.frames, part.unscored
    loss, correct, frames, unscored = distributed.total(sums)
    count = max(1.0, frames)
    return Loss(loss / count, correct / count, int(frames), len(games), int(unscored))
