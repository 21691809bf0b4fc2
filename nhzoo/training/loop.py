"""The loop of every training: reports, checkpoints, saves and stops.

A training is beyond help when its loss is not finite, or has exploded and stays so.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

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

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as plain JSON."""
        return {"mean": self.mean, "high": self.high}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.mean, self.high = state["mean"], state["high"]


@dataclass
class RunCounters:
    """Where a run stands.

    It ends at `updates`, None while a time budget is still being measured. `losses` and `grad_norm`
    are those since the last report and of the last update; `energy` is in joules, None where it
    cannot be known. `stopping`: whether any process was asked to stop.
    """

    updates: int | None
    update: int = 0
    frames: int = 0
    seconds: float = 0.0
    energy: float | None = 0.0
    losses: list[float] = field(default_factory=list)
    grad_norm: float = math.nan
    stopping: bool = False
    alarm: DivergenceDetector = field(default_factory=DivergenceDetector)

    def add_loss(self, update: int, loss: float, grad_norm: float, folder: Path) -> None:
        """Take in those of an update; CheckFailed when the run is hopeless.

        `folder` keeps its states.
        """
        reason = self.alarm.see(loss, grad_norm)
        if reason:
            raise CheckFailed(
                f"update {update}: {reason}; the state of before is kept in {folder}, "
                "a smaller --lr with another --run may help"
            )
        self.losses.append(loss)
        self.grad_norm = grad_norm

    def state(self) -> dict[str, Any]:
        """What a resumed run of any kind needs, as plain JSON."""
        return {name: getattr(self, name) for name in _SAVED} | {"alarm": self.alarm.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`, from the counters of a `RunState`; others are left alone."""
        self.alarm.restore(state["alarm"])
        for name in _SAVED:
            setattr(self, name, state[name])


_SAVED = ("update", "frames", "seconds", "energy", "losses")

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

    @classmethod
    def of(cls, run: Run, finished: bool, **own: Any) -> Self:
        """The result of a run as it stands, with the fields `own` of its kind."""
        counters = run.counters
        return cls(
            policy=run.policy,
            config=run.config,
            finished=finished,
            updates=counters.update,
            frames=counters.frames,
            flops=run.flops,
            seconds=counters.seconds,
            energy_joules=counters.energy,
            device=run.device,
            **own,
        )


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
    policy: Policy
    optimizer: torch.optim.Optimizer
    counters: RunCounters

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
            log = (
                inner.enter_context(closing(TrainingLog(folder, run.counters.update)))
                if first
                else None
            )
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
        self.counters = counters = run.counters
        self.progress, self.checkpoint = progress, checkpoint
        self.began, self.before = time.monotonic(), counters.seconds
        one_machine = distributed.machines() == 1 and run.device.type == "cpu"
        self.meter = EnergyMeter() if one_machine else None  # of all the energy, or of none
        self.reported, self.counted = self.began, counters.frames
        self.timed = (
            counters.seconds
        )  # an interruption before update 50 begins the measurement anew

    def go(self, stopped: Sequence[int]) -> None:
        """Update until the budget is spent, or a signal is in `stopped` of any process."""
        run, config, counters = self.run, self.run.config, self.counters
        while counters.updates is None or counters.update < counters.updates:
            counters.stopping = bool(stopped)
            try:
                run.step()
            except Stopped:
                counters.seconds = self.before + time.monotonic() - self.began
                self.save(always=True)
                raise self.interrupted() from None
            self.tick()
            last = counters.update == counters.updates
            if counters.update % config.log_every == 0 or last:
                self.report(validate=not last)
            if self.at_checkpoint():
                measured = self.measured(False)
                if self.log:
                    self.checkpoint(measured)
            if counters.update % config.save_every == 0 or counters.stopping or last:
                self.save(always=last or counters.stopping)
            if counters.stopping and not last:
                raise self.interrupted()

    def save(self, always: bool = False) -> None:
        """Save the run, unless its loss is exploding: that is kept only when the run ends here.

        One high loss is no explosion yet, and the state before it is kept as well.
        """
        self.run.check()
        self.energy()
        if always or not self.counters.alarm.high:
            self.run.save()

    def interrupted(self) -> Interrupted:
        """What is raised once a run that was asked to stop has been saved."""
        return Interrupted(f"stopped after update {self.counters.update}; the same command resumes")

    def tick(self) -> None:
        """Take the time; turn a time budget into a number of updates once that can be done."""
        counters, minutes = self.counters, self.run.config.minutes
        if counters.updates is None and counters.update in (_TIMED_FROM, _TIMED_TO):
            self.run.check()  # waits for a GPU, which computes behind the clock
        counters.seconds = self.before + time.monotonic() - self.began
        if counters.update == _TIMED_FROM:
            self.timed = counters.seconds
        if counters.updates is None and counters.update == _TIMED_TO:
            assert minutes is not None
            each = (counters.seconds - self.timed) / (_TIMED_TO - _TIMED_FROM)
            left = int((minutes * 60 - counters.seconds) / each)
            counters.updates = distributed.from_first(max(_TIMED_TO, _TIMED_TO + left))

    def energy(self) -> None:
        """Add what the machine took since the last call; unknown once is unknown for good."""
        before, taken = self.counters.energy, self.meter.taken() if self.meter else None
        self.counters.energy = None if before is None or taken is None else before + taken

    def report(self, validate: bool) -> None:
        """Log the time since the last report, with a validation when one is due."""
        run, counters = self.run, self.counters
        run.check()
        now = time.monotonic()
        report = Progress(
            update=counters.update,
            updates=counters.updates,
            frames=counters.frames,
            flops=run.flops,
            loss=float(np.mean(counters.losses)) if counters.losses else None,
            lr=run.optimizer.param_groups[0]["lr"],
            grad_norm=counters.grad_norm if counters.losses else None,
            frames_per_second=(counters.frames - self.counted) / (now - self.reported),
            seconds=counters.seconds,
            metrics=run.metrics(),
        )
        if validate:
            report.validation = self.validate()
        self.energy()
        counters.losses, self.reported, self.counted = [], time.monotonic(), counters.frames
        if self.log:
            self.log.write(report)
            self.progress(report)

    def at_checkpoint(self) -> bool:
        """Whether the run is to be measured here, short of its end."""
        counters = self.counters
        if counters.updates is None or counters.update == counters.updates:
            return False
        shares = checkpoint_fractions(self.run.config.checkpoints)
        return counters.update in {max(1, round(share * counters.updates)) for share in shares}


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
