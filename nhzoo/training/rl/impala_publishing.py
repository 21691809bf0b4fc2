"""What comes of a run that learnt by playing: a zoo entry, and rows of the table of runs."""

from __future__ import annotations

import platform
from dataclasses import asdict
from pathlib import Path

import torch

from nhzoo.policy.checkpoint import Entry, Sampling, save_entry
from nhzoo.publishing.cards import write_card
from nhzoo.publishing.learning_curve import played_csv
from nhzoo.runtime import files
from nhzoo.runtime.system import cpu_name, git_revision
from nhzoo.training.outputs import device_name, flop_model
from nhzoo.training.rl.critic import save_critic
from nhzoo.training.rl.impala_training import Played, probe
from nhzoo.training.run_table import LedgerRow, config_hash


def publish_played(
    played: Played,
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
        probe(config.world_config()),
    )
    save_critic(folder, played.critic)
    if log is not None and log.is_file():
        files.atomic_write(folder / "curve.csv", played_csv(log))
    write_card(folder)


def played_row(played: Played, run_id: str) -> LedgerRow:
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
