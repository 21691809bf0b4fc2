"""Train IMPALA to the end of its steps, and make its entry and its rows in the table of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nhzoo.agents import registry
from nhzoo.envs.actions import TTY
from nhzoo.envs.game import blank
from nhzoo.errors import InputError
from nhzoo.policy.checkpoint import Entry, Sampling, load_entry, save_entry
from nhzoo.publishing.learning_curve import played_csv
from nhzoo.training import distributed
from nhzoo.training.loop import Loop, TrainResult, run_in
from nhzoo.training.outputs import device_name, finish_entry, run_row
from nhzoo.training.rl.config import ImpalaConfig
from nhzoo.training.rl.envs import TrainEnvConfig
from nhzoo.training.rl.impala import FROM_SCRATCH, ImpalaRun, WarmStart
from nhzoo.training.rl.objectives import Critic, load_critic, save_critic
from nhzoo.training.run_state import Progress
from nhzoo.training.run_table import LedgerRow


def train_and_publish(
    config: ImpalaConfig,
    demonstrations: list[Path],
    folder: Path,
    entry: Path,
    sampling: Sampling,
    command: str,
    description: str = "",
    append: Callable[[LedgerRow], object] = lambda row: None,
    progress: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda text: None,
) -> LedgerRow:
    """As `outputs.train_and_publish`, by playing; `demonstrations` are packed games beside it."""

    def add(played: RLResult) -> LedgerRow:
        row = played_row(played, entry.name)
        append(row)
        return row

    warm_start = load_warm_start(config, demonstrations)
    played = train_impala(config, folder, warm_start, progress, add, say)
    publish_played(played, entry, sampling, description, command, folder / "log.jsonl")
    return add(played)


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
        "samples": played.frames,
        "flops": played.flops,
        "updates": played.updates,
        "seconds": round(played.seconds, 1),
        "threads": config.threads,
        "actors": config.actors,
        "device": device_name(played.device),
        "temperature": sampling.temperature,
        "rewards": config.rewards,
        "extras": config.extras,
        "start": _named(played.warm_start.start),
        "teacher": _named(played.warm_start.teacher),
        "games": played.games,
        "mean_score": played.mean_score,
        "recipe": asdict(config),
        "command": command,
    }
    probe_input = probe(TrainEnvConfig.of(config))
    save_entry(folder, policy, sampling, training, description, "", probe_input)
    save_critic(folder, played.critic)
    finish_entry(folder, log, played_csv)


def played_row(played: RLResult, run_id: str) -> LedgerRow:
    """The row of a run, or of its checkpoint.

    `mean_return` is the mean score of the latest games of the actors, and `loss` one over it, which
    is what `fit --metric return` fits. Both are None while no game has ended; no loss is made of a
    score that is not above 0.
    """
    config, score, warm_start = played.config, played.mean_score, played.warm_start
    return run_row(
        played,
        {"start": _named(warm_start.start), "teacher": _named(warm_start.teacher)},
        run_id=run_id,
        kind="rl",
        unique_samples=played.frames,
        loss=None if score is None or score <= 0 else 1 / score,
        mean_return=score,
        se_return=played.score_error,
        n_episodes=len(played.scores),
        accuracy=None,
        validation_frames=0,
        batch=config.rows,
        accumulate=1,
        data=f"{config.world} {config.character}" if config.world == "nethack" else config.world,
        data_sha256=None,
        precision="fp32",
        actors=config.actors,
        start=warm_start.start.name if warm_start.start else None,
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
class RLResult(TrainResult):
    """What a run of IMPALA has come to.

    `scores` are those of the latest games that its actors finished, while they learnt.
    """

    config: ImpalaConfig
    critic: Critic
    warm_start: WarmStart
    games: int
    scores: list[float]

    @property
    def mean_score(self) -> float | None:
        """Of the latest games; None before the first has ended."""
        return float(np.mean(self.scores)) if self.scores else None

    @property
    def score_error(self) -> float | None:
        """The standard error of that; None of one game or of equal scores."""
        n = len(self.scores)
        return float(np.std(self.scores, ddof=1)) / math.sqrt(n) or None if n > 1 else None


def train_impala(
    config: ImpalaConfig,
    folder: Path,
    warm_start: WarmStart = FROM_SCRATCH,
    progress: Callable[[Progress], None] = lambda progress: None,
    checkpoint: Callable[[RLResult], object] = lambda played: None,
    say: Callable[[str], None] = lambda text: None,
) -> RLResult:
    """Train to the end of the steps, or resume the run in `folder`.

    `checkpoint` hears of each of `config.checkpoints`, `say` of what a user should know.
    """
    if distributed.world() > 1:
        raise InputError("train impala has one learner: start it without torchrun")

    def measured(finished: bool) -> RLResult:
        return RLResult.of(
            run,
            finished,
            critic=run.critic,
            warm_start=warm_start,
            games=run.episodes,
            scores=run.scores,
        )

    def make(stopped: Sequence[int]) -> ImpalaRun:
        return ImpalaRun(config, folder, warm_start, say, lambda: bool(stopped))

    with run_in(folder, make) as (run, log, stopped):
        Loop(run, log, measured, progress, checkpoint).go(stopped)
        return measured(True)


def load_warm_start(config: ImpalaConfig, demonstrations: list[Path]) -> WarmStart:
    """What a config names: the entry to start from and its critic, the teacher, demonstrations."""
    start, where = _entry("--start", config.start) if config.start else (None, None)
    critic = None
    if start and where:
        critic = Critic(start.policy.config.hidden, config.critic_hidden)
        critic = critic if load_critic(where, critic) else None  # of that width
    teacher, _ = _entry("--teacher", config.teacher) if config.teacher else (None, None)
    return WarmStart(start, critic, teacher, tuple(demonstrations))


def probe(world: TrainEnvConfig) -> dict[str, Any]:
    """Screens for an entry's self-test: the first frames of some games, with nothing pressed."""
    time, games = _PROBED
    screens = blank(TTY, games)
    seen: dict[str, list[Any]] = {name: [] for name in TTY}
    envs = [
        world.make(number, {name: array[number] for name, array in screens.items()})
        for number in range(games)
    ]
    for number in range(time):
        for env in envs:
            env.begin(number)
        for name in TTY:
            seen[name].append(screens[name].copy())
    for env in envs:
        env.close()
    stacked = {name.removeprefix("tty_"): np.stack(frames) for name, frames in seen.items()}
    return stacked | {"previous": np.zeros((time, games), np.uint8)}


def _entry(option: str, source: str) -> tuple[Entry, Path]:
    path = registry.find_entry(source, option).folder
    try:
        return load_entry(path), path
    except InputError as error:
        raise InputError(f"{option} {source}: {error}") from None
