"""Behavioural cloning: a policy trained to press the expert's keys, exactly resumable.

A run lives in one folder: `run.json` (what was asked for), `state.safetensors` (all that is needed
to go on), `log.jsonl` and `tensorboard/` (the curve). Started again, it goes on; on a CPU with the
same number of threads it ends with the bits of a run that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch.utils.tensorboard import SummaryWriter

from nhzoo import files
from nhzoo.cards import model_card
from nhzoo.checkpoints import Sampling, save_entry
from nhzoo.demonstrations import Streams, count_frames, read_games
from nhzoo.errors import CheckFailed, InputError
from nhzoo.losses import Loss, measure_loss, tensors_of, zero_first
from nhzoo.policy import Policy, PolicyConfig

# A time budget becomes a number of updates by the speed of updates 10 to 50: the first compile.
_TIMED_FROM, _TIMED_TO = 10, 50


@dataclass(frozen=True)
class BCConfig:
    """What a run is. Two runs of one config and seed on one machine type are the same bits.

    `flops` is the training budget (exact FLOPs of frames seen, validation not counted), or
    `minutes` one in wall time, turned into a number of updates after the first 50. `batch` rows of
    `time` frames make an update; `streams` games are open at once. The learning rate rises
    linearly for `warmup` updates and falls by a cosine to `final_lr` of its peak.
    """

    data: str
    params: int
    flops: float | None = None
    minutes: float | None = None
    batch: int = 4
    time: int = 64
    streams: int = 512
    lr: float = 2e-3
    warmup: int = 100
    final_lr: float = 0.02
    weight_decay: float = 0.01
    dropout: float = 0.0
    beta2: float = 0.99
    clip: float = 1.0
    seed: int = 0
    threads: int = 1
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
        if self.lr == 0:
            raise InputError("--lr must be larger than zero")
        PolicyConfig.for_params(self.params)


@dataclass
class Progress:
    """What a running training reports: `loss` is the mean since the last report."""

    update: int
    updates: int | None
    frames: int
    flops: float
    loss: float
    lr: float
    grad_norm: float
    frames_per_second: float
    seconds: float
    validation: Loss | None = None


@dataclass
class Trained:
    """A finished run."""

    policy: Policy
    config: BCConfig
    updates: int
    frames: int
    unique_frames: int
    flops: float
    loss: Loss
    seconds: float


class Interrupted(Exception):
    """Stopped by Ctrl-C or SIGTERM after saving; the same command goes on."""


def learning_rate(config: BCConfig, update: int, updates: int | None) -> float:
    """The rate of update `update` (from 0); constant while a time budget is being measured."""
    rate = config.lr * min(1.0, (update + 1) / config.warmup)
    if updates is None:
        return rate
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, update / updates)))
    return rate * (config.final_lr + (1 - config.final_lr) * cosine)


class Run:
    """A training run: its policy, optimizer, data position and counters."""

    def __init__(self, config: BCConfig, games: list[Path], folder: Path) -> None:
        torch.set_num_threads(config.threads)
        self.config, self.folder = config, folder
        generator = torch.Generator().manual_seed(config.seed)
        self.policy = Policy(PolicyConfig.for_params(config.params), generator)
        self.policy.dropout = config.dropout
        self.optimizer = torch.optim.AdamW(
            self.policy.parameters(),
            lr=config.lr,
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.streams = Streams(games, config.streams, config.batch, config.time, config.seed)
        self.state = self.policy.initial_state(config.streams)
        self._games = [path.stem for path in games]
        self.update = self.frames = 0
        self.losses: list[float] = []  # since the last report
        self.seconds = 0.0
        flops = self.policy.config.train_flops * config.batch * config.time
        self.updates = None if config.flops is None else max(1, int(config.flops / flops))
        self._open()

    @property
    def flops(self) -> float:
        """Training FLOPs so far; rows padded at the end of a game cost too, and count."""
        return float(
            self.policy.config.train_flops * self.config.batch * self.config.time * self.update
        )

    def step(self) -> tuple[float, float]:
        """One update. Returns its loss (nats per key) and the gradient's norm before clipping."""
        torch.manual_seed((self.config.seed << 32) + self.update)  # dropout's, resumed or not
        batch, rows = self.streams.next()
        state = zero_first((self.state[0][:, rows], self.state[1][:, rows]), batch.first)
        logits, (h, c) = self.policy(tensors_of(batch), state)
        target = torch.from_numpy(batch.actions).flatten()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target, ignore_index=-1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.clip)
        value = float(loss.detach())
        if not math.isfinite(value) or not math.isfinite(float(norm)):
            raise CheckFailed(
                f"update {self.update}: the loss is {value}; the state of before is kept in "
                f"{self.folder}, a smaller --lr may help"
            )
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.config, self.update, self.updates)
        self.optimizer.step()
        self.state[0][:, rows], self.state[1][:, rows] = h.detach(), c.detach()
        self.update += 1
        self.frames += batch.valid
        return value, float(norm)

    def save(self) -> None:
        """Write all that is needed to go on, complete or not at all."""
        tensors = {f"policy.{k}": v for k, v in self.policy.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
        tensors |= {"state.h": self.state[0], "state.c": self.state[1]}
        counters = {
            "update": self.update,
            "updates": self.updates,
            "frames": self.frames,
            "seconds": self.seconds,
            "losses": self.losses,
            "games": self._games,
            "streams": self.streams.state(),
        }
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        data = safetensors.torch.save(tensors, {"counters": json.dumps(counters)})
        files.atomic_write(self.folder / "state.safetensors", data)

    def _open(self) -> None:
        asked = self.folder / "run.json"
        if asked.exists():
            before = files.read_json(asked)
            if before != asdict(self.config):
                changed = sorted(k for k, v in asdict(self.config).items() if before.get(k) != v)
                raise InputError(
                    f"{self.folder}: holds a run with another {', '.join(changed) or 'version'}; "
                    "give the same options to go on, or another --run"
                )
        else:
            files.atomic_write(asked, files.dump_json(asdict(self.config)))
        path = self.folder / "state.safetensors"
        if path.exists():
            self._load(path)

    def _load(self, path: Path) -> None:
        try:
            with safetensors.safe_open(path, "pt") as file:
                counters = json.loads(file.metadata()["counters"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if counters["games"] != self._games:
                raise ValueError("it was trained on other games")
            self.policy.load_state_dict(
                {
                    k.removeprefix("policy."): v
                    for k, v in tensors.items()
                    if k.startswith("policy.")
                }
            )
            groups = self.optimizer.state_dict()
            moments: dict[int, dict[str, torch.Tensor]] = {}
            for name, tensor in tensors.items():
                if name.startswith("optimizer."):
                    _, index, kind = name.split(".")
                    moments.setdefault(int(index), {})[kind] = tensor
            self.optimizer.load_state_dict({**groups, "state": moments})
            self.state = tensors["state.h"], tensors["state.c"]
            self.streams.restore(counters["streams"])
            self.update, self.updates = counters["update"], counters["updates"]
            self.frames, self.seconds = counters["frames"], counters["seconds"]
            self.losses = counters["losses"]
        except (
            safetensors.SafetensorError,
            LookupError,
            TypeError,
            ValueError,
            RuntimeError,
        ) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{path}: cannot go on from it ({reason}); delete it to start anew"
            ) from None


def train(
    config: BCConfig,
    training_games: list[Path],
    validation_games: list[Path],
    folder: Path,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Trained:
    """Train to the end of the budget, or go on with the run that `folder` holds."""
    run = Run(config, training_games, folder)
    log = folder / "log.jsonl"
    files.sweep(folder)
    _cut_log(log, run.update)
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=run.update + 1)
    began, before = time.monotonic(), run.seconds
    reported, counted = began, run.frames
    timed = run.seconds  # an interruption before update 50 begins the measurement anew
    with _stop_signals() as stopped, open(log, "a") as file, closing(writer):
        while run.updates is None or run.update < run.updates:
            value, norm = run.step()
            run.losses.append(value)
            run.seconds = before + time.monotonic() - began
            if run.update == _TIMED_FROM:
                timed = run.seconds
            if run.updates is None and run.update == _TIMED_TO:
                assert config.minutes is not None
                each = (run.seconds - timed) / (_TIMED_TO - _TIMED_FROM)
                run.updates = _TIMED_TO + int((config.minutes * 60 - run.seconds) / each)
                run.updates = max(_TIMED_TO, run.updates)
            last = run.update == run.updates
            if run.update % config.log_every == 0 or last:
                now = time.monotonic()
                report = Progress(
                    update=run.update,
                    updates=run.updates,
                    frames=run.frames,
                    flops=run.flops,
                    loss=float(np.mean(run.losses)),
                    lr=run.optimizer.param_groups[0]["lr"],
                    grad_norm=norm,
                    frames_per_second=(run.frames - counted) / (now - reported),
                    seconds=run.seconds,
                )
                if run.update % config.validate_every < config.log_every and not last:
                    report.validation = measure_loss(
                        run.policy, validation_games, config.validation_frames
                    )
                    run.policy.train()
                run.losses, reported, counted = [], time.monotonic(), run.frames
                _log(report, file, writer)
                progress(report)
            if run.update % config.save_every == 0 or last or stopped:
                file.flush()
                run.save()
            if stopped and not last:
                raise Interrupted(f"stopped after update {run.update}; the same command goes on")
    loss = measure_loss(run.policy, validation_games)
    return Trained(
        run.policy,
        config,
        run.update,
        run.frames,
        run.streams.unique_frames,
        run.flops,
        loss,
        run.seconds,
    )


def publish(
    trained: Trained,
    folder: Path,
    training_games: list[Path],
    validation_games: list[Path],
    temperature: float,
    description: str,
    command: str,
    ledger: Path | None,
) -> dict[str, Any]:
    """Write the zoo entry, and the run's row of the contract's table of runs, to `ledger` too."""
    config, policy = trained.config, trained.policy
    unique = min(trained.frames, trained.unique_frames, count_frames(training_games))
    training = {
        "method": "bc",
        "data": config.data,
        "data_sha256": _digest(training_games),
        "samples": trained.frames,
        "unique_samples": unique,
        "flops": trained.flops,
        "updates": trained.updates,
        "seconds": round(trained.seconds, 1),
        "threads": config.threads,
        "temperature": temperature,
        "validation": asdict(trained.loss),
        "recipe": asdict(config),
        "command": command,
    }
    screens = next(iter(read_games(validation_games[:2], 2, 4, view="screens")))[0].inputs
    probe = dict(zip(("chars", "colors", "cursor", "previous"), screens.values(), strict=True))
    save_entry(
        folder,
        policy,
        Sampling(temperature),
        training,
        description,
        model_card(folder.name, policy.config, training),
        probe,
    )
    row = {
        "run_id": folder.name,
        "kind": "bc",
        "params": policy.config.params,
        "samples": trained.frames,
        "unique_samples": unique,
        "flops": trained.flops,
        "loss": trained.loss.loss,
        "accuracy": trained.loss.accuracy,
        "lr": config.lr,
        "batch": config.batch,
        "seed": config.seed,
        "width": policy.config.hidden,
        "depth": 1,
        "seconds": round(trained.seconds, 1),
        "data": config.data,
        "data_sha256": training["data_sha256"],
    }
    if ledger:
        held = files.read_jsonl(ledger) if ledger.exists() else []
        files.atomic_write(ledger, files.dump_jsonl([r for r in held if r != row] + [row]))
    return row


def _digest(games: list[Path]) -> str:
    """Which games a run was trained on: a dataset may have grown since."""
    names = "\n".join(sorted(path.name for path in games))
    return hashlib.sha256(names.encode()).hexdigest()[:16]


def _log(report: Progress, file: Any, writer: SummaryWriter) -> None:
    row = asdict(report)
    validation = row.pop("validation")
    for name in ("loss", "lr", "grad_norm", "frames_per_second"):
        writer.add_scalar(f"train/{name}", row[name], report.update)
    if validation:
        row |= {
            "validation_loss": validation["loss"],
            "validation_accuracy": validation["accuracy"],
        }
        writer.add_scalar("validation/loss", validation["loss"], report.update)
        writer.add_scalar("validation/accuracy", validation["accuracy"], report.update)
    file.write(json.dumps(row) + "\n")
    file.flush()


def _cut_log(path: Path, update: int) -> None:
    """Drop the lines that a killed run wrote after its last saved state."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["update"] <= update]
        files.atomic_write(path, "".join(line + "\n" for line in kept).encode())


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
