"""The options of an IMPALA run, and what follows from them: learning rate, costs, FLOPs."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from nhzoo.errors import InputError
from nhzoo.policy.config import UPDATE_FLOPS, PolicyConfig
from nhzoo.training.config import checkpoint_fractions
from nhzoo.training.rl.envs import KINDS as WORLDS
from nhzoo.training.rl.envs import TrainEnvConfig
from nhzoo.training.rl.rollouts import KINDS, RewardShaping

ADVANTAGES = ("scaled", "raw")

FREE = ("steps", "actors", "inline", "cluster", "threads")
"""Options that may be others when a run goes on; a run is prolonged by more `steps`."""


@dataclass(frozen=True)
class ImpalaConfig:
    """What a run is. With inline actors two runs of one config and machine type are the same bits.

    Budget: `steps` of the games, in updates of `unrolls` unrolls of `time` steps of `games` games.
    Advantages are divided by their running root mean square (`scaled`), so that what a step of the
    policy weighs beside the other costs does not depend on how sparse rewards are, or `raw`.
    `params` is 0 where the run starts from an entry (`start`). Rewards: see `rewards`. The rate
    rises for `warmup` updates and is constant then. For the first `value_warmup` updates only the
    value is learnt, and nothing but its own weights is moved; then the rate rises once more.

    A teacher costs `teacher_cost` times KL(teacher || policy) a step, demonstrations
    `demonstration_cost` times their cross-entropy; both costs halve every `half_life` steps of the
    run down to `floor` of what they were.
    """

    steps: float
    params: int = 0
    world: str = "nethack"
    character: str = "mon-hum-neu-mal"
    step_cap: int = 100_000
    no_progress: int = 1_000
    actors: int = 1
    inline: bool = False
    cluster: str = ""
    games: int = 16
    time: int = 32
    unrolls: int = 2
    discount: float = 0.999
    rewards: str = "scaled"
    extras: str = ""
    advantages: str = "scaled"
    value_cost: float = 0.5
    entropy_cost: float = 1e-3
    rho_bar: float = 1.0
    c_bar: float = 1.0
    lr: float = 5e-4
    warmup: int = 100
    value_warmup: int = 0
    beta2: float = 0.99
    epsilon: float = 1e-7
    clip: float = 4.0
    start: str = ""
    teacher: str = ""
    teacher_cost: float = 0.5
    demonstrations: str = ""
    demonstration_cost: float = 0.1
    demonstration_batch: int = 4
    demonstration_time: int = 64
    half_life: float = 5e6
    floor: float = 0.1
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    checkpoints: str = ""
    log_every: int = 50
    save_every: int = 500

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            option = f"--{field.name.replace('_', '-')}"
            least = 0 if field.name in ("seed", "params", "value_warmup") else 1
            if field.type == "int" and not least <= value <= 1 << 30:
                raise InputError(f"{option} must be at least {least}, is {value}")
            if field.type == "float" and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{option} must be a number from 0, is {value}")
        if self.steps < 1:
            raise InputError(f"--steps must be at least 1, is {self.steps:g}")
        if self.discount > 1 or self.floor > 1:
            raise InputError("--discount and --floor must be at most 1")
        if self.half_life == 0 or self.lr == 0:
            raise InputError("--half-life and --lr must be larger than zero")
        for name, value, known in (
            ("rewards", self.rewards, KINDS),
            ("advantages", self.advantages, ADVANTAGES),
            ("world", self.world, WORLDS),
        ):
            if value not in known:
                raise InputError(f"--{name} {value}: give one of {', '.join(known)}")
        RewardShaping.parse(self.extras)
        checkpoint_fractions(self.checkpoints)
        if bool(self.params) == bool(self.start):
            raise InputError("give either --params, or --start with an entry to start from")
        if self.inline and self.cluster:
            raise InputError("give either --inline or --cluster")
        if self.params:
            PolicyConfig.for_params(self.params)

    @property
    def minutes(self) -> None:
        """No budget in time: the rate of a run need not know where it ends."""
        return None

    @property
    def rows(self) -> int:
        """Games in a batch of the learner."""
        return self.unrolls * self.games

    @property
    def updates(self) -> int:
        """Updates that the steps are enough for, at least one."""
        return max(1, int(self.steps / (self.rows * self.time)))

    def world_config(self) -> TrainEnvConfig:
        """The games that its actors play."""
        return TrainEnvConfig(
            self.world,
            self.character,
            self.step_cap,
            self.no_progress,
            self.seed,
            self.discount,
            self.extras,
        )

    def rate(self, update: int) -> float:
        """The learning rate of update `update` (from 0)."""
        begun = update if update < self.value_warmup else update - self.value_warmup
        return self.lr * min(1.0, (begun + 1) / self.warmup)

    def faded(self, cost: float, steps: int) -> float:
        """A cost of a teacher or of demonstrations, after that many steps."""
        share: float = 0.5 ** (steps / self.half_life)
        return cost * max(self.floor, share)


def update_flops(
    config: ImpalaConfig,
    shape: PolicyConfig,
    teacher: PolicyConfig | None = None,
    alone: bool = False,
) -> int:
    """The exact FLOPs of one update, by the rules of `PolicyConfig`.

    The actors' forward of each of T steps; the learner's forward and backward of T + 1 frames,
    value head included; a teacher's forward of T; demonstrations' forward and backward; clipping
    and the optimizer. While the value is learnt `alone` only its head has a backward. Unrolls that
    are lost are not in it, frames at which nothing is pressed are; NetHack itself is not.
    """
    rows, value = config.rows, 2 * shape.hidden
    total = rows * config.time * shape.forward_flops
    if teacher:
        total += rows * config.time * teacher.forward_flops
    if alone:
        total += rows * (config.time + 1) * (shape.forward_flops + 2 * value)
        return total + UPDATE_FLOPS * (shape.hidden + 1)
    total += rows * (config.time + 1) * (shape.train_flops + 3 * value)
    if config.demonstrations:
        total += config.demonstration_batch * config.demonstration_time * shape.train_flops
    return total + UPDATE_FLOPS * (shape.params + shape.hidden + 1)
