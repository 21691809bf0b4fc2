"""Trains a run to the end of its budget: reports, checkpoints, saves, and stops when asked to."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nhzoo import distributed, files
from nhzoo.bc import Run
from nhzoo.losses import Loss, measure_loss
from nhzoo.policy import Policy
from nhzoo.provenance import EnergyMeter
from nhzoo.recipe import BCConfig, checkpoint_fractions
from nhzoo.training_log import Progress, TrainingLog

# A time budget becomes a number of updates by the speed of updates 10 to 50: the first compile.
_TIMED_FROM, _TIMED_TO = 10, 50


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


class Interrupted(Exception):
    """Stopped by Ctrl-C or SIGTERM after saving; the same command goes on."""


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
    first = distributed.rank() == 0
    with contextlib.ExitStack() as stack:
        if first:
            stack.enter_context(files.lock(folder))
            files.sweep(folder)
        with _stop_signals() as stopped, contextlib.ExitStack() as inner:
            run = inner.enter_context(closing(Run(config, training_games, folder, say)))
            log = inner.enter_context(closing(TrainingLog(folder, run.update))) if first else None
            under_way = _Training(run, log, validation_games, progress, checkpoint)
            under_way.go(stopped)
        return under_way.measured(finished=True)


class _Training:
    """A run under way: its clocks, and who hears of it."""

    def __init__(
        self,
        run: Run,
        log: TrainingLog | None,
        validation_games: list[Path],
        progress: Callable[[Progress], None],
        checkpoint: Callable[[Trained], object],
    ) -> None:
        self.run, self.log, self.validation_games = run, log, validation_games
        self.progress, self.checkpoint = progress, checkpoint
        self.began, self.before = time.monotonic(), run.seconds
        one_machine = distributed.machines() == 1 and run.device.type == "cpu"
        self.meter = EnergyMeter() if one_machine else None  # of all the energy, or of none
        self.reported, self.counted = self.began, run.frames
        self.timed = run.seconds  # an interruption before update 50 begins the measurement anew

    def go(self, stopped: Sequence[int]) -> None:
        """Update until the budget is spent, or a signal is in `stopped` of any process."""
        run, config = self.run, self.run.config
        while run.updates is None or run.update < run.updates:
            run.stopping = bool(stopped)
            run.step()
            self.tick()
            last = run.update == run.updates
            if run.update % config.log_every == 0 or last:
                self.report(validate=not last)
            if self.at_checkpoint():
                measured = self.measured(finished=False)
                if self.log:
                    self.checkpoint(measured)
            if run.update % config.save_every == 0 or run.stopping or last:
                run.check()
                self.energy()
                if last or not run.alarm.high:  # a loss that is exploding is not to be kept
                    run.save()
            if run.stopping and not last:
                raise Interrupted(f"stopped after update {run.update}; the same command goes on")

    def tick(self) -> None:
        """Take the time; turn a time budget into a number of updates once that can be done."""
        run = self.run
        run.seconds = self.before + time.monotonic() - self.began
        if run.update == _TIMED_FROM:
            self.timed = run.seconds
        if run.updates is None and run.update == _TIMED_TO:
            assert run.config.minutes is not None
            each = (run.seconds - self.timed) / (_TIMED_TO - _TIMED_FROM)
            left = int((run.config.minutes * 60 - run.seconds) / each)
            run.updates = distributed.from_first(max(_TIMED_TO, _TIMED_TO + left))

    def energy(self) -> None:
        """Add what the machine took since the last call; unknown once is unknown for good."""
        taken = self.meter.taken() if self.meter else None
        known = taken is not None and self.run.energy is not None
        self.run.energy = self.run.energy + taken if known else None  # type: ignore[operator]

    def report(self, validate: bool) -> None:
        """Log the time since the last report, with a validation when one is due."""
        run, config = self.run, self.run.config
        run.check()
        now = time.monotonic()
        report = Progress(
            update=run.update,
            updates=run.updates,
            frames=run.frames,
            flops=run.flops,
            loss=float(np.mean(run.losses)),
            lr=run.optimizer.param_groups[0]["lr"],
            grad_norm=run.grad_norm,
            frames_per_second=(run.frames - self.counted) / (now - self.reported),
            seconds=run.seconds,
        )
        if validate and run.update % config.validate_every < config.log_every:
            report.validation = _measure(run, self.validation_games, config.validation_frames)
        self.energy()
        run.losses, self.reported, self.counted = [], time.monotonic(), run.frames
        if self.log:
            self.log.write(report)
            self.progress(report)

    def at_checkpoint(self) -> bool:
        """Whether the run is to be measured here, short of its end."""
        run = self.run
        if run.updates is None or run.update == run.updates:
            return False
        shares = checkpoint_fractions(run.config.checkpoints)
        return run.update in {max(1, round(share * run.updates)) for share in shares}

    def measured(self, finished: bool) -> Trained:
        """The run as it stands, with its loss on all of the validation games."""
        run = self.run
        loss = _measure(run, self.validation_games)
        return Trained(
            policy=run.policy,
            config=run.config,
            finished=finished,
            updates=run.update,
            frames=run.frames,
            unique_frames=run.feed.streams.unique_frames,
            flops=run.flops,
            loss=loss,
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


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that fills when Ctrl-C or SIGTERM asks to stop; the update under way is finished."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        received.append(number)

    old = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
