"""The options of a training run, and what follows from them: schedule and learning rate."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from nhzoo.errors import InputError
from nhzoo.policy.config import PolicyConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PRECISIONS = ("fp32", "bf16")
STARTS = ("first", "anywhere")

HORIZON = 24_576
"""Default steps that a stream's state is carried: longer than clones of the zoo live, and the same
for every budget, so that a law does not take a longer horizon for the worth of more samples."""
STREAMS = 64
"""Default streams of a run whose number of frames is not known."""
MOST_STREAMS = 2_048
"""By default, for memory: 0.2 MB each. From there on a stream reads whole games after its first."""


def option(help: str, default: Any = MISSING, shown: bool = True) -> Any:
    """A field that is an option of the command line too: its help, and if its default is shown."""
    return field(default=default, metadata={"help": help, "shown": shown})


def check_numbers(config: DataclassInstance, from_zero: Collection[str]) -> None:
    """InputError for whole numbers below 1 (0 for those named), and numbers that are not from 0."""
    for each in fields(config):
        value, name = getattr(config, each.name), f"--{each.name.replace('_', '-')}"
        least = 0 if each.name in from_zero else 1
        if each.type == "int" and not least <= value <= 1 << 30:
            raise InputError(f"{name} must be at least {least}, is {value}")
        if each.type == "float" and not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} must be a number from 0, is {value}")


@dataclass(frozen=True)
class BCConfig:
    """What a run is. Two runs of one config and seed on one machine type are the same bits.

    `flops` is the training budget (exact FLOPs of frames seen, validation not counted), or
    `minutes` one in wall time, turned into a number of updates after the first 50. An update is
    `accumulate` batches of `batch` rows of `time` frames, all processes together. `streams` games
    are open at once; where it is 0, `horizon` decides, see `open_streams`. The learning rate rises
    linearly for `warmup` updates and falls by a cosine to `final_lr` of its peak, which is
    `peak_rate` of the size where `lr` is 0. `checkpoints`: see `checkpoint_fractions`.
    """

    data: str
    params: int = option("Number of parameters, all counted.")
    flops: float | None = option("Budget in training FLOPs, for example 2e13.", None)
    minutes: float | None = option("Budget in minutes, instead of --flops.", None)
    batch: int = option("Games in a batch, over all processes.", 4)
    time: int = option("Time steps in a batch.", 64)
    horizon: int = option(
        "Steps that a stream's state is carried (default: 24,576, or as long as the budget lets).",
        0,
        shown=False,
    )
    streams: int = option("Games read side by side, instead of --horizon.", 0, shown=False)
    starts: str = option(
        "Where streams begin: anywhere in the data, or first, at the first frame of a game.",
        "anywhere",
    )
    accumulate: int = option("Batches in an update (gradient accumulation).", 1)
    lr: float = option("Peak learning rate (default: by a rule for the size).", 0.0, shown=False)
    warmup: int = option("Updates of learning-rate warm-up.", 100)
    final_lr: float = 0.02
    weight_decay: float = option("Weight decay of AdamW.", 0.01)
    dropout: float = option("Dropout on the encoders' output.", 0.0)
    beta2: float = 0.99
    clip: float = 1.0
    seed: int = option("Seed of the weights and of the data order.", 0)
    threads: int = option("CPU threads of each process.", 1)
    device: str = option("Device: cpu, cuda, cuda:N or auto.", "cpu")
    precision: str = option("fp32, or bf16 (autocast).", "fp32")
    compile: bool = option("Use torch.compile; it takes minutes to start.", False)
    checkpoints: str = option(
        "Validate during the run: 3 means after 1/2, 1/4 and 1/8 of it; or give shares: 0.1,0.5.",
        "",
    )
    validation: str = option(
        "Dataset whose held-out games give the held-out loss (default: that of --data).", ""
    )
    log_every: int = 100
    validate_every: int = 2_000
    validation_frames: int = 2_048
    save_every: int = option("Updates between saves.", 1_000)

    def __post_init__(self) -> None:
        budget = self.minutes if self.flops is None else self.flops
        if budget is None or (self.flops is not None and self.minutes is not None):
            raise InputError("give a budget: either --flops or --minutes")
        if not (math.isfinite(budget) and budget > 0):
            raise InputError("the budget must be a number larger than zero")
        check_numbers(self, ("seed", "horizon", "streams"))
        if self.dropout >= 1:
            raise InputError("--dropout must be below 1")
        if self.starts not in STARTS:
            raise InputError(f"--starts must be first or anywhere, is {self.starts!r}")
        if self.precision not in PRECISIONS:
            raise InputError(f"--precision must be fp32 or bf16, is {self.precision!r}")
        checkpoint_fractions(self.checkpoints)
        PolicyConfig.for_params(self.params)
        if self.lr == 0:
            object.__setattr__(self, "lr", peak_rate(self.params))
        if self.horizon and self.streams:
            raise InputError("give either --horizon or --streams")
        if self.horizon and self.frames is None:
            raise InputError("--horizon needs a budget in FLOPs: give --streams with --minutes")
        if self.horizon and self.horizon * self.batch > (self.frames or 0):
            raise InputError(
                f"--horizon {self.horizon}: batches of {self.batch} games carry each for "
                f"{(self.frames or 0) // self.batch:,} steps in this budget; give a shorter one"
            )

    @property
    def updates(self) -> int | None:
        """How many the budget in FLOPs is; None for a budget in minutes."""
        if self.flops is None:
            return None
        shape = PolicyConfig.for_params(self.params)
        frames = self.batch * self.time * self.accumulate
        return max(1, int(self.flops / (shape.train_flops * frames + shape.update_flops)))

    @property
    def frames(self) -> int | None:
        """Frames of training, all processes together; None for a budget in minutes."""
        updates = self.updates
        return None if updates is None else updates * self.batch * self.time * self.accumulate

    @property
    def open_streams(self) -> int:
        """Games read side by side: as many batches of them as carry each for the horizon."""
        if self.streams:
            return self.streams
        if self.frames is None:
            return -(-STREAMS // self.batch) * self.batch
        batches = max(1, round(self.frames / ((self.horizon or HORIZON) * self.batch)))
        if not self.horizon:
            batches = min(batches, max(1, MOST_STREAMS // self.batch))
        return batches * self.batch


def peak_rate(params: int) -> float:
    """The peak learning rate for a size: fitted to rates tuned at three (training/LOG.md)."""
    return float(f"{5.7e-3 * (params / 1e5) ** -0.3:.2g}")


def learning_rate(config: BCConfig, update: int, updates: int | None) -> float:
    """The rate of update `update` (from 0); constant while a time budget is being measured."""
    rate = config.lr * min(1.0, (update + 1) / config.warmup)
    if updates is None:
        return rate
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, update / updates)))
    return rate * (config.final_lr + (1 - config.final_lr) * cosine)


def checkpoint_fractions(text: str) -> tuple[float, ...]:
    """Shares of a run after which it is measured: "3" is 1/2, 1/4 and 1/8; or "0.1,0.5"."""
    if not text:
        return ()
    try:
        if text.isdigit():
            halvings = int(text) if len(text) <= 3 else 0  # it may be a stranger's recipe
            result = tuple(0.5**n for n in range(1, halvings + 1))
        else:
            result = tuple(float(part) for part in text.split(",", 100))
    except ValueError:
        result = ()
    if not 1 <= len(result) <= 100 or not all(0 < fraction < 1 for fraction in result):
        raise InputError(
            f"--checkpoints {text[:60]}: give a number (3: after 1/2, 1/4 and 1/8 of the run) or "
            "shares between 0 and 1 (0.1,0.5)"
        )
    return result
