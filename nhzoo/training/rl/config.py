"""The options of an IMPALA run, and what follows from them: learning rate, costs, FLOPs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nhzoo.errors import InputError
from nhzoo.policy.config import UPDATE_FLOPS, PolicyConfig
from nhzoo.training.config import check_numbers, checkpoint_fractions, option

if TYPE_CHECKING:
    from nhzoo.envs.game import EpisodeResult

NETHACK = "nethack"
ENVIRONMENTS = (NETHACK, "tiny-walk", "tiny-memory")
SCALED, CLIPPED = "scaled", "clipped"
REWARDS = (SCALED, CLIPPED)
EXTRAS = ("depth", "level")
"""What can be a potential: the deepest level reached, the hero's experience level."""
ADVANTAGES = ("scaled", "raw")


ENCODER = "encoder"
PLAY_IN, VALUE, ALL = "play-in", "value", "all"
"""The phases of a run: games are only played; the value alone is learnt; all is."""


@dataclass(frozen=True)
class RewardShaping:
    """Extras by potentials: a step from s to s' brings gamma P(s') - P(s) besides its score.

    Ng, Harada, Russell 1999: for any P with P = 0 where a game has ended this leaves the best
    policies the best. `weights` are points of score for one level of each of `EXTRAS`.
    """

    weights: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> RewardShaping:
        """From "depth=50,level=20"; "" is none."""
        weights: dict[str, float] = {}
        for part in text.split(",") if text else ():
            name, _, value = part.partition("=")
            try:
                weights[name] = float(value)
            except ValueError:
                weights[name] = float("nan")
            if name not in EXTRAS or not math.isfinite(weights[name]):
                raise InputError(
                    f"--extras {text}: give points for any of {', '.join(EXTRAS)}, "
                    "for example depth=50,level=20"
                )
        return cls(tuple(sorted(weights.items())))

    def of(self, result: EpisodeResult) -> float:
        """P of where a game stands, in points."""
        reached = {"depth": result.max_depth, "level": result.max_experience_level}
        return sum(weight * reached[name] for name, weight in self.weights)


_FREE = ("actors", "inline", "cluster", "threads")


@dataclass(frozen=True)
class ImpalaConfig:
    """What a run is. With inline actors two runs of one config and machine type are the same bits.

    Budget: `steps` of the games, in updates of `unrolls` unrolls of `time` steps of `games` games.
    Advantages are divided by their running root mean square (`scaled`), so that what a step of the
    policy weighs beside the other costs does not depend on how sparse rewards are, or `raw`.
    `params` is 0 where the run starts from an entry (`start`). Rewards: see `rewards`.

    For the first `play_in` updates games are played and nothing is learnt: all begin at once, and
    so come to be spread over their phases. For the next `value_warmup` only the value is learnt,
    and nothing but its own weights is moved. The rate rises for `warmup` updates, and once more
    behind these; behind `play_in` it falls linearly to `final_lr` of what it would be.

    A teacher costs `teacher_cost` times KL(teacher || policy) a step, demonstrations
    `demonstration_cost` times their cross-entropy. Both costs halve every `half_life` steps of the
    run, or are multiplied by `decay` at every update that learns all, down to `floor` of what they
    were.

    Wolczyk et al. (arXiv 2402.02868) start from a clone with 4,096 frames an update, discount 1,
    lr 1e-4 and final_lr 0, teacher_cost 0.75, decay 0.99998, floor 0.44 (of the cost), entropy cost
    0 and a frozen encoder, for 5e8 steps of which the first 2.5e7 train the value.
    """

    steps: float = option("Budget in environment steps.")
    params: int = option("Number of parameters, all counted; not with --start.", 0, shown=False)
    world: str = option("Environment: nethack; for tests tiny-walk or tiny-memory.", "nethack")
    character: str = option("Character to play; @ draws one for each game.", "mon-hum-neu-mal")
    step_cap: int = option("Truncate a game after this many steps.", 100_000)
    no_progress: int = option("Truncate a game after this many steps without a game turn.", 1_000)
    actors: int = option("Number of actor processes.", 1)
    inline: bool = option("Run actors in the learner's process: exactly resumable, slow.", False)
    cluster: str = option("Address of the Ray cluster for the actors, or auto.", "")
    games: int = option("Games side by side in each actor.", 16)
    time: int = option("Time steps in an unroll.", 32)
    unrolls: int = option("Unrolls in a learner update.", 2)
    discount: float = option("Discount of rewards per step.", 0.999)
    rewards: str = option("Rewards from score differences: scaled or clipped.", "scaled")
    extras: str = option("Reward shaping in points, in training only: depth=50,level=20.", "")
    advantages: str = option("Advantages: scaled (by their running RMS) or raw.", "scaled")
    value_cost: float = option("Weight of the value loss.", 0.5)
    entropy_cost: float = option("Weight of the entropy bonus.", 1e-3)
    rho_bar: float = 1.0
    c_bar: float = 1.0
    lr: float = option("Learning rate of Adam.", 5e-4)
    final_lr: float = option("Share of it that is left at the last update, falling linearly.", 1.0)
    warmup: int = option("Updates of learning-rate warm-up.", 100)
    play_in: int = option("Updates that learn nothing, first, so that games spread.", 0)
    value_warmup: int = option("Updates that train the value alone, then.", 0)
    critic_hidden: int = option("Width of a hidden layer of the critic; 0: none.", 0)
    freeze: str = option("Part of the network that is not trained: encoder.", "")
    beta2: float = 0.99
    epsilon: float = 1e-7
    clip: float = option("Largest gradient norm.", 4.0)
    start: str = option("Entry to start from: name or folder.", "")
    teacher: str = option("Entry to distil from, by a KL cost.", "")
    teacher_cost: float = option("Initial weight of that cost.", 0.5)
    demonstrations: str = option("Dataset to imitate as well.", "")
    demonstration_cost: float = option("Initial weight of that cost.", 0.1)
    demonstration_batch: int = 4
    demonstration_time: int = 64
    half_life: float = option("Steps in which both costs halve.", 5e6)
    decay: float = option("Factor of both costs at an update, instead of --half-life.", 0.0)
    floor: float = option("Lowest share that they fall to.", 0.1)
    seed: int = option("Seed of the weights and of the games.", 0)
    threads: int = option("CPU threads of the learner.", 1)
    device: str = option("Device of the learner, as for train bc.", "cpu")
    checkpoints: str = option("Rows during the run, as for train bc.", "")
    log_every: int = 50
    save_every: int = option("Updates between saves.", 500)

    def __post_init__(self) -> None:
        check_numbers(self, ("seed", "params", "play_in", "value_warmup", "critic_hidden"))
        if self.steps < 1:
            raise InputError(f"--steps must be at least 1, is {self.steps:g}")
        for name in ("discount", "floor", "final_lr", "decay"):
            if getattr(self, name) > 1:
                raise InputError(f"--{name.replace('_', '-')} must be at most 1")
        if self.half_life == 0 or self.lr == 0:
            raise InputError("--half-life and --lr must be larger than zero")
        for name, value, known in (
            ("rewards", self.rewards, REWARDS),
            ("advantages", self.advantages, ADVANTAGES),
            ("world", self.world, ENVIRONMENTS),
            ("freeze", self.freeze, ("", ENCODER)),
        ):
            if value not in known:
                names = ", ".join(filter(None, known))
                raise InputError(f"--{name} {value}: give one of {names}")
        RewardShaping.parse(self.extras)
        checkpoint_fractions(self.checkpoints)
        if bool(self.params) == bool(self.start):
            raise InputError("give either --params, or --start with an entry to start from")
        if self.inline and self.cluster:
            raise InputError("give either --inline or --cluster")
        if self.params:
            PolicyConfig.for_params(self.params)
        if self.play_in >= self.updates:
            raise InputError(
                f"--play-in {self.play_in}: is all of the {self.updates:,} updates of this budget; "
                "give a smaller one, or more --steps"
            )

    @property
    def free(self) -> tuple[str, ...]:
        """Options that may be others when a run is resumed.

        More `steps` prolong it, unless its rate falls: then they are part of the schedule.
        """
        return (*(("steps",) if self.final_lr == 1 else ()), *_FREE)

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

    def phase(self, update: int) -> str:
        """Which of `PLAY_IN`, `VALUE`, `ALL` update `update` (from 0) is in."""
        if update < self.play_in:
            return PLAY_IN
        return VALUE if update < self.play_in + self.value_warmup else ALL

    def rate(self, update: int) -> float:
        """The learning rate of update `update` (from 0)."""
        learnt = max(0, update - self.play_in)
        begun = learnt if learnt < self.value_warmup else learnt - self.value_warmup
        left = 1 - learnt / (self.updates - self.play_in)
        falling = self.final_lr + (1 - self.final_lr) * max(0.0, left)
        return self.lr * min(1.0, (begun + 1) / self.warmup) * falling

    def faded(self, cost: float, steps: int, update: int) -> float:
        """A cost of a teacher or of demonstrations at an update, after that many steps."""
        if self.decay:
            share: float = self.decay ** max(0, update - self.play_in - self.value_warmup)
        else:
            share = 0.5 ** (steps / self.half_life)
        return cost * max(self.floor, share)


def critic_flops(config: ImpalaConfig, hidden: int) -> int:
    """FLOPs of the value of one frame, forward."""
    width = config.critic_hidden
    return 2 * (hidden * width + width) if width else 2 * hidden


def critic_params(config: ImpalaConfig, hidden: int) -> int:
    """Parameters of the critic."""
    width = config.critic_hidden
    return (hidden + 1) * width + width + 1 if width else hidden + 1


def update_flops(
    config: ImpalaConfig,
    shape: PolicyConfig,
    teacher: PolicyConfig | None = None,
    phase: str = ALL,
) -> int:
    """The exact FLOPs of one update, by the rules of `PolicyConfig`.

    The actors' forward of each of T steps; the learner's forward and backward of T + 1 frames,
    critic included; a teacher's forward of T; demonstrations' forward and backward; clipping and
    the optimizer. In play-in the learner does nothing but its teacher's part; while the value is
    learnt only the critic has a backward. Unrolls that are lost are not in it, frames at which
    nothing is pressed are; NetHack itself is not.
    """
    rows, value = config.rows, critic_flops(config, shape.hidden)
    critic = critic_params(config, shape.hidden)
    total = rows * config.time * shape.forward_flops
    if teacher:
        total += rows * config.time * teacher.forward_flops
    if phase == PLAY_IN:
        return total
    if phase == VALUE:
        # The product with what the critic reads needs no gradient to that.
        first = 2 * shape.hidden * (config.critic_hidden or 1)
        total += rows * (config.time + 1) * (shape.forward_flops + 3 * value - first)
        return total + UPDATE_FLOPS * critic
    frozen = config.freeze == ENCODER
    frame = shape.core_train_flops if frozen else shape.train_flops
    total += rows * (config.time + 1) * (frame + 3 * value)
    if config.demonstrations:
        total += config.demonstration_batch * config.demonstration_time * frame
    trained = shape.params - (shape.encoder_params if frozen else 0)
    return total + UPDATE_FLOPS * (trained + critic)


def run_flops(
    config: ImpalaConfig, shape: PolicyConfig, teacher: PolicyConfig | None, updates: int
) -> float:
    """The FLOPs of a run after so many updates."""
    play_in = min(updates, config.play_in)
    value = min(updates - play_in, config.value_warmup)
    counts = {PLAY_IN: play_in, VALUE: value, ALL: updates - play_in - value}
    return float(
        sum(n * update_flops(config, shape, teacher, phase) for phase, n in counts.items())
    )
