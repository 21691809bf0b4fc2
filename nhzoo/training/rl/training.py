"""Train IMPALA to the end of its steps, and make its entry and its rows in the table of runs."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nhzoo.agents import registry
from nhzoo.envs.actions import TTY
from nhzoo.envs.game import blank
from nhzoo.errors import InputError
from nhzoo.policy.checkpoint import Entry, Sampling, load_entry, save_entry
from nhzoo.policy.config import flop_model
from nhzoo.policy.network import Policy
from nhzoo.publishing.cards import write_card
from nhzoo.publishing.learning_curve import played_csv
from nhzoo.runtime import files
from nhzoo.runtime.system import cpu_name, git_revision
from nhzoo.training import distributed
from nhzoo.training.loop import Loop, run_in
from nhzoo.training.outputs import device_name
from nhzoo.training.rl.config import ImpalaConfig
from nhzoo.training.rl.envs import TrainEnvConfig
from nhzoo.training.rl.impala import ImpalaRun, WarmStart
from nhzoo.training.rl.objectives import Critic, load_critic, save_critic
from nhzoo.training.run_state import Progress
from nhzoo.training.run_table import LedgerRow, config_hash


def publish_played(
    played: RLResult,
    folder: Path,
    sampling: Sampling,
    description: str,
    command: str,
    log: Path | None = None,
) -> None:
    """Write the zoo entry of a run, its critic beside it; the policy is on the CPU afterwards.

    `log` is the run's `log.jsonl`: the entry keeps its curve.
    """
    config, policy = played.config, played.policy.cpu()
    training = {
        "method": "impala",
        "data": config.world,
        "samples": played.steps,
        "flops": played.flops,
        "updates": played.updates,
        "seconds": round(played.seconds, 1),
        "threads": config.threads,
        "actors": config.actors,
        "device": device_name(played.device),
        "temperature": sampling.temperature,
        "rewards": config.rewards,
        "extras": config.extras,
        "start": _named(played.held.start),
        "teacher": _named(played.held.teacher),
        "games": played.games,
        "mean_score": played.mean_score,
        "recipe": asdict(config),
        "command": command,
    }
    save_entry(
        folder,
        policy,
        sampling,
        training,
        description,
        "",
        probe(TrainEnvConfig.of(config)),
    )
    save_critic(folder, played.critic)
    if log is not None and log.is_file():
        files.atomic_write(folder / "curve.csv", played_csv(log))
    write_card(folder)


def played_row(played: RLResult, run_id: str) -> LedgerRow:
    """The row of a run, or of its checkpoint.

    `mean_return` is the mean score of the latest games of the actors, and `loss` one over it, which
    is what `fit --metric return` fits. Both are None while no game has ended; no loss is made of a
    score that is not above 0.
    """
    config, shape = played.config, played.policy.config
    score = played.mean_score
    held = played.held
    named = {"start": _named(held.start), "teacher": _named(held.teacher)}
    return LedgerRow(
        run_id=run_id,
        kind="rl",
        params=shape.params,
        samples=played.steps,
        unique_samples=played.steps,
        flops=played.flops,
        flops_budget=None,
        loss=None if score is None or score <= 0 else 1 / score,
        mean_return=score,
        se_return=played.score_error,
        n_episodes=len(played.scores),
        lr=config.lr,
        seed=config.seed,
        width=shape.hidden,
        depth=1,
        flop_model_hash=flop_model(),
        checkpoint=not played.finished,
        updates=played.updates,
        accuracy=None,
        validation_frames=0,
        batch=config.rows,
        time=config.time,
        accumulate=1,
        data=f"{config.world} {config.character}" if config.world == "nethack" else config.world,
        data_sha256=None,
        config_hash=config_hash(asdict(config) | named),
        git_revision=git_revision(),
        seconds=round(played.seconds, 1),
        energy_joules=None if played.energy_joules is None else round(played.energy_joules, 1),
        machine=platform.machine(),
        cpu=cpu_name(),
        device=device_name(played.device),
        precision="fp32",
        threads=config.threads,
        world_size=1,
        torch=torch.__version__,
        actors=config.actors,
        start=held.start.name if held.start else None,
    )


def _named(entry: Entry | None) -> dict[str, object] | None:
    """Which entry it was, the temperature that went into its weights, and what it had cost."""
    if entry is None:
        return None
    return {
        "entry": entry.name,
        "weights_sha256": entry.revision,
        "temperature": entry.sampling.temperature,
        "flops": entry.config.get("training", {}).get("flops"),
    }


_PROBED = 4, 2  # frames and games of an entry's self-test


@dataclass
class RLResult:
    """A run at its end, or (`finished` false) at a checkpoint on the way.

    `scores` are those of the latest games that its actors finished, while they learnt.
    """

    policy: Policy
    critic: Critic
    config: ImpalaConfig
    held: WarmStart
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
    held: WarmStart | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    checkpoint: Callable[[RLResult], object] = lambda played: None,
    say: Callable[[str], None] = lambda text: None,
) -> RLResult:
    """Train to the end of the steps, or resume the run in `folder`.

    `checkpoint` hears of each of `config.checkpoints`, `say` of what a user should know.
    """
    if distributed.world() > 1:
        raise InputError("train impala has one learner: start it without torchrun")
    given = held or WarmStart()

    def measured(finished: bool) -> RLResult:
        return RLResult(
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


def hold(config: ImpalaConfig, demonstrations: list[Path]) -> WarmStart:
    """What a config names: the entry to start from and its critic, the teacher, demonstrations."""
    start, where = _entry("--start", config.start) if config.start else (None, None)
    critic = None
    if start and where:
        critic = Critic(start.policy.config.hidden)
        critic = critic if load_critic(where, critic) else None
    teacher, _ = _entry("--teacher", config.teacher) if config.teacher else (None, None)
    return WarmStart(start, critic, teacher, tuple(demonstrations))


def probe(world: TrainEnvConfig) -> dict[str, Any]:
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
    path = registry.find_entry(source, option).folder
    try:
        return load_entry(path), path
    except InputError as error:
        raise InputError(f"{option} {source}: {error}") from None
