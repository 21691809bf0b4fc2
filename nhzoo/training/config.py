"""The options of a training run, and what follows from them: schedule and learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from nhzoo.errors import InputError
from nhzoo.policy.config import PolicyConfig

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class BCConfig:
    """What a run is. Two runs of one config and seed on one machine type are the same bits.

    `flops` is the training budget (exact FLOPs of frames seen, validation not counted), or
    `minutes` one in wall time, turned into a number of updates after the first 50. An update is
    `accumulate` batches of `batch` rows of `time` frames, all processes together; `streams` games
    are open at once. The learning rate rises linearly for `warmup` updates and falls by a cosine
    to `final_lr` of its peak, which is `peak_rate` of the size where `lr` is 0. `checkpoints`: see
    `checkpoint_fractions`.
    """

    data: str
    params: int
    flops: float | None = None
    minutes: float | None = None
    batch: int = 4
    time: int = 64
    streams: int = 512
    accumulate: int = 1
    lr: float = 0.0
    warmup: int = 100
    final_lr: float = 0.02
    weight_decay: float = 0.01
    dropout: float = 0.0
    beta2: float = 0.99
    clip: float = 1.0
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    precision: str = "fp32"
    compile: bool = False
    checkpoints: str = ""
    log_every: int = 100
    validate_every: int = 2_000
    validation_frames: int = 2_048
    save_every: int = 1_000

    def __post_init__(self) -> None:
        budget = self.minutes if self.flops is None else self.flops
        if budget is None or (self.flops is not None and self.minutes is not None):
            raise InputError("give a budget: either --flops or --minutes")
        if not (math.isfinite(budget) and budget > 0):
            raise InputError("the budget must be a number larger than zero")
        for field in fields(self):
            value = getattr(self, field.name)
            option = f"--{field.name.replace('_', '-')}"
            if field.type == "int" and not (0 if field.name == "seed" else 1) <= value <= 1 << 30:
                raise InputError(f"{option} must be at least 1, is {value}")
            if field.type == "float" and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{option} must be a number from 0, is {value}")
        if self.dropout >= 1:
            raise InputError("--dropout must be below 1")
        if self.precision not in PRECISIONS:
            raise InputError(f"--precision must be fp32 or bf16, is {self.precision!r}")
        checkpoint_fractions(self.checkpoints)
        PolicyConfig.for_params(self.params)
        if self.lr == 0:
            object.__setattr__(self, "lr", peak_rate(self.params))


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
            result = tuple(0.5**n for n in range(1, int(text) + 1))
        else:
            result = tuple(float(part) for part in text.split(","))
    except ValueError:
        result = ()
    if not 1 <= len(result) <= 100 or not all(0 < fraction < 1 for fraction in result):
        raise InputError(
            f"--checkpoints {text}: give a number (3: after 1/2, 1/4 and 1/8 of the run) or "
            "shares between 0 and 1 (0.1,0.5)"
        )
    return result
