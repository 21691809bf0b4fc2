"""The loop of every training: reports, checkpoints, saves and stops.

A training is beyond help when its loss is not finite, or has exploded and stays so.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.errors import CheckFailed, Stopped
from nhzoo.evaluation.loss import Loss
from nhzoo.policy.network import Policy
from nhzoo.runtime import files
from nhzoo.runtime.system import EnergyMeter
from nhzoo.training import distributed
from nhzoo.training.config import checkpoint_fractions
from nhzoo.training.run_state import Progress, TrainingLog

TIMES = 3.0
UPDATES = 30
_UNIFORM = math.log(len(ACTION_KEYS))
_MEMORY = 200.0  # updates that the running mean looks back


class DivergenceDetector:
    """Watches the loss of every update.

    A loss has exploded when for 30 updates in a row it is above three times its running mean and
    above that of guessing (ln 121 = 4.80): one hard stretch of a game is neither. The mean waits
    while the loss is that high.
    """

    def __init__(self) -> None:
        self.mean: float | None = None
        self.high = 0  # updates in a row

    def see(self, loss: float, grad_norm: float) -> str | None:
        """Take in an update; the reason to stop, if it is one."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return f"the loss is {loss:.4g} and the gradient's norm {grad_norm:.4g}"
        if self.mean is not None and loss > max(_UNIFORM, TIMES * self.mean):
            self.high += 1
            if self.high < UPDATES:
                return None
            return f"the loss, {self.mean:.3g} before, was {loss:.3g} or so for {UPDATES} updates"
        self.high = 0
        self.mean = loss if self.mean is None else self.mean + (loss - self.mean) / _MEMORY
        return None

    def check(self, update: int, loss: float, grad_norm: float, folder: Path) -> None:
        """`see`, with a reason as CheckFailed; `folder` keeps the states of the run."""
        reason = self.see(loss, grad_norm)
        if reason:
            raise CheckFailed(
                f"update {update}: {reason}; the state of before is kept in {folder}, "
                "a smaller --lr with another --run may help"
            )

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as plain JSON."""
        return {"mean": self.mean, "high": self.high}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.mean, self.high = state["mean"], state["high"]


# A time budget becomes a number of updates by the speed of updates 10 to 50: the first compile.
_TIMED_FROM, _TIMED_TO = 10, 50

_Result = TypeVar("_Result")


@dataclass
class TrainResult:
    """A run at its end, or (`finished` false) at a checkpoint on the way.

    `frames` are those it was trained on: of demonstrations, or of games played.
    """

    policy: Policy
    config: Any
    finished: bool
    updates: int
    frames: int
    flops: float
    seconds: float
    energy_joules: float | None
    device: torch.device


class LoopConfig(Protocol):
    """Of what a run is asked to be, what the loop needs: counts of updates, and a time budget."""

    @property
    def minutes(self) -> float | None:
        """The budget, where it is one in time."""

    @property
    def checkpoints(self) -> str:
        """See `config.checkpoint_fractions`."""

    @property
    def log_every(self) -> int:
        """Updates from report to report."""

    @property
    def save_every(self) -> int:
        """Updates from save to save."""


class Run(Protocol):
    """A run as the loop sees it: counters that `step` moves on and `save` keeps."""

    device: torch.device
    optimizer: torch.optim.Optimizer
    alarm: DivergenceDetector
    update: int
    updates: int | None
    frames: int
    losses: list[float]
    grad_norm: float
    seconds: float
    energy: float | None
    stopping: bool

    @property
    def config(self) -> LoopConfig:
        """What it is asked to be."""

    @property
    def flops(self) -> float:
        """Training FLOPs so far."""

    def step(self) -> None:
        """One update. `Stopped`, with nothing changed, when a stop ended a wait in it."""

    def check(self) -> None:
        """CheckFailed when it is hopeless."""

    def save(self) -> None:
        """Write all that a resume needs."""

    def metrics(self) -> dict[str, float]:
        """What a report says of it besides, since the last one."""

    def close(self) -> None:
        """Free what it holds."""


class Interrupted(Exception):
    """Stopped by Ctrl-C or SIGTERM after saving; the same command resumes."""


@contextmanager
def run_in(
    folder: Path, make: Callable[[Sequence[int]], Run]
) -> Iterator[tuple[Any, Any, Sequence[int]]]:
    """The run that `make(stopped)` gives, its log (of process 0) and `stopped`.

    That fills with the signals that ask to stop. `folder` is held for this run alone.
    """
    first = distributed.rank() == 0
    with contextlib.ExitStack() as stack:
        if first:
            stack.enter_context(files.lock(folder))
            files.sweep(folder)
        with _stop_signals() as stopped, contextlib.ExitStack() as inner:
            run = inner.enter_context(closing(make(stopped)))
            log = inner.enter_context(closing(TrainingLog(folder, run.update))) if first else None
            yield run, log, stopped


class Loop(Generic[_Result]):
    """A run under way: its clocks, and who hears of it.

    `measured(finished)` says what it has come to, at each checkpoint. `validate()` is asked at each
    report but the last for a loss on held-out data, when one is due.
    """

    def __init__(
        self,
        run: Run,
        log: TrainingLog | None,
        measured: Callable[[bool], _Result],
        progress: Callable[[Progress], None],
        checkpoint: Callable[[_Result], object],
        validate: Callable[[], Loss | None] = lambda: None,
    ) -> None:
        self.run, self.log, self.measured, self.validate = run, log, measured, validate
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
            try:
                run.step()
            except Stopped:
                run.seconds = self.before + time.monotonic() - self.began
                self.save(always=True)
                raise self.interrupted() from None
            self.tick()
            last = run.update == run.updates
            if run.update % config.log_every == 0 or last:
                self.report(validate=not last)
            if self.at_checkpoint():
                measured = self.measured(False)
                if self.log:
                    self.checkpoint(measured)
            if run.update % config.save_every == 0 or run.stopping or last:
                self.save(always=last or run.stopping)
            if run.stopping and not last:
                raise self.interrupted()

    def save(self, always: bool = False) -> None:
        """Save the run, unless its loss is exploding: that is kept only when the run ends here.

        One high loss is no explosion yet, and the state before it is kept as well.
        """
        self.run.check()
        self.energy()
        if always or not self.run.alarm.high:
            self.run.save()

    def interrupted(self) -> Interrupted:
        """What is raised once a run that was asked to stop has been saved."""
        return Interrupted(f"stopped after update {self.run.update}; the same command resumes")

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
        run = self.run
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
            metrics=run.metrics(),
        )
        if validate:
            report.validation = self.validate()
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
