"""The outputs of a training run: a zoo entry, and rows in the table of runs."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nhzoo.data.batches import count_frames, read_games
from nhzoo.policy.checkpoint import Sampling, save_entry
from nhzoo.policy.config import LAYERS, flop_model
from nhzoo.publishing.cards import write_card
from nhzoo.publishing.learning_curve import cloned_csv
from nhzoo.runtime import files
from nhzoo.runtime.system import cpu_name, git_revision
from nhzoo.training import distributed
from nhzoo.training.bc import BCResult, train_bc
from nhzoo.training.config import BCConfig
from nhzoo.training.loop import TrainResult
from nhzoo.training.run_state import Progress
from nhzoo.training.run_table import LedgerRow, config_hash


def train_and_publish(
    config: BCConfig,
    training_games: list[Path],
    validation_games: list[Path],
    folder: Path,
    entry: Path,
    sampling: Sampling,
    command: str,
    description: str = "",
    append: Callable[[LedgerRow], object] = lambda row: None,
    progress: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda text: None,
    loaders: int | None = None,
) -> LedgerRow | None:
    """Train in `folder` (or resume there), write the zoo entry, give each row to `append`.

    The rows are those of its checkpoints and, once the entry is written, that of the finished run.
    `entry.name` is their run's name. Returns the last row; None in all processes but the first.
    `loaders`: see `bc.Run`.
    """

    def add(trained: BCResult) -> LedgerRow:
        row = ledger_row(trained, entry.name, training_games)
        append(row)
        return row

    games = training_games, validation_games
    trained = train_bc(config, *games, folder, progress, add, say, loaders)
    if distributed.rank() != 0:
        return None
    publish(trained, entry, *games, sampling, description, command, folder / "log.jsonl")
    return add(trained)


def publish(
    trained: BCResult,
    folder: Path,
    training_games: list[Path],
    validation_games: list[Path],
    sampling: Sampling,
    description: str,
    command: str,
    log: Path | None = None,
) -> None:
    """Write the zoo entry of a finished run; its policy is on the CPU afterwards.

    `log` is the run's `log.jsonl`: the entry keeps its curve.
    """
    config, policy = trained.config, trained.policy.cpu()
    training = {
        "method": "bc",
        "data": config.data,
        "data_sha256": _digest(training_games),
        "samples": trained.frames,
        "unique_samples": _unique(trained, training_games),
        "flops": trained.flops,
        "updates": trained.updates,
        "horizon": _horizon(trained),
        "seconds": round(trained.seconds, 1),
        "threads": config.threads,
        "processes": distributed.world(),
        "device": device_name(trained.device),
        "temperature": sampling.temperature,
        "validation": asdict(trained.loss),
        "recipe": asdict(config),
        "command": command,
    }
    screens = next(iter(read_games(validation_games[:2], 2, 4, view="screens")))[0].inputs
    probe = dict(zip(("chars", "colors", "cursor", "previous"), screens.values(), strict=True))
    save_entry(folder, policy, sampling, training, description, "", probe)
    finish_entry(folder, log, cloned_csv)


def ledger_row(trained: BCResult, run_id: str, training_games: list[Path]) -> LedgerRow:
    """The row of a run of behavioural cloning, or of its checkpoint."""
    config, digest = trained.config, _digest(training_games)
    return run_row(
        trained,
        {"data_sha256": digest},
        run_id=run_id,
        kind="bc",
        unique_samples=_unique(trained, training_games),
        flops_budget=config.flops if trained.finished else None,
        loss=trained.loss.loss,
        accuracy=trained.loss.accuracy,
        validation_frames=trained.loss.frames,
        batch=config.batch,
        accumulate=config.accumulate,
        data=config.data,
        data_sha256=digest,
        precision=config.precision,
        horizon=_horizon(trained),
        validation=config.validation or None,
    )


def run_row(result: TrainResult, identity: Mapping[str, Any], **own: Any) -> LedgerRow:
    """The row of any run: what all kinds have in common, and the columns `own` of its kind.

    `identity`: what else than its config makes it another run, for `config_hash`.
    """
    config, shape = result.config, result.policy.config
    return LedgerRow(
        params=shape.params,
        samples=result.frames,
        flops=result.flops,
        lr=config.lr,
        seed=config.seed,
        width=shape.hidden,
        depth=LAYERS,
        flop_model_hash=flop_model(),
        checkpoint=not result.finished,
        updates=result.updates,
        time=config.time,
        config_hash=config_hash({**asdict(config), **identity}),
        git_revision=git_revision(),
        seconds=round(result.seconds, 1),
        energy_joules=None if result.energy_joules is None else round(result.energy_joules, 1),
        machine=platform.machine(),
        cpu=cpu_name(),
        device=device_name(result.device),
        threads=config.threads,
        world_size=distributed.world(),
        torch=torch.__version__,
        **own,
    )


def finish_entry(folder: Path, log: Path | None, curve: Callable[[Path], bytes]) -> None:
    """Add the curve of a run, from its `log`, and the card to an entry."""
    if log is not None and log.is_file():
        files.atomic_write(folder / "curve.csv", curve(log))
    write_card(folder)


def device_name(device: torch.device) -> str:
    """What a device is, for entries and tables."""
    return "cpu" if device.type == "cpu" else f"cuda ({torch.cuda.get_device_name(device)})"


def _horizon(trained: BCResult) -> int:
    """Steps that the state of each stream was carried."""
    return trained.frames // trained.config.open_streams


def _unique(trained: BCResult, games: list[Path]) -> int:
    return min(trained.frames, trained.unique_frames, count_frames(games))


def _digest(games: list[Path]) -> str:
    """Which games a run was trained on: a dataset may have grown since."""
    names = "\n".join(sorted(path.name for path in games))
    return hashlib.sha256(names.encode()).hexdigest()[:16]
