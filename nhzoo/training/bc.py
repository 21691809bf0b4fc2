"""Behavioural cloning: train a policy to press the expert's keys, exactly resumable.

A run lives in one folder: `run.json` (what was asked for), `state.safetensors` (all that is needed
to resume, `run_state.py`), `log.jsonl` and `tensorboard/` (the curve). Run again, it resumes; on
a CPU with the same number of threads and processes it ends with the bits of a run that was never
interrupted. Under torchrun each process trains on its rows of every batch, and the update is that
of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nhzoo.data.batches import Streams, count_frames
from nhzoo.errors import InputError
from nhzoo.evaluation.loss import Loss, measure_loss
from nhzoo.policy.config import PolicyConfig
from nhzoo.policy.network import Policy
from nhzoo.training import distributed
from nhzoo.training.config import BCConfig, learning_rate
from nhzoo.training.feed import DeviceBatch, Prefetcher, default_loaders
from nhzoo.training.loop import Loop, RunCounters, TrainResult, run_in
from nhzoo.training.run_state import (
    Progress,
    RunState,
    check_config,
    optimizer_state,
    read_state,
    restore_optimizer,
    restoring,
    write_state,
)

_AHEAD = 2  # batches read ahead for a GPU


def _check_horizon(config: BCConfig, games: list[Path]) -> None:
    """InputError for a horizon that no stream could be carried for in the data."""
    frames = count_frames(games)
    if config.horizon > frames:
        raise InputError(
            f"--horizon {config.horizon}: the games of {config.data} have {frames:,} steps "
            "together; give a shorter one"
        )


def make_optimizer(policy: Policy, config: BCConfig) -> torch.optim.Optimizer:
    """The optimizer; `Run.step` sets the rate of each group to the schedule's."""
    return torch.optim.AdamW(
        policy.parameters(),
        lr=config.lr,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )


class Run:
    """A training run: its policy, optimizer, data position and counters.

    `ahead`: how many batches a thread reads in advance, by default some for a GPU. `loaders`: how
    many processes read for it, by default those of `default_loaders`. Neither changes a bit, nor
    where the run stands.
    """

    def __init__(
        self,
        config: BCConfig,
        games: list[Path],
        folder: Path,
        say: Callable[[str], None] = lambda text: None,
        ahead: int | None = None,
        loaders: int | None = None,
    ) -> None:
        torch.set_num_threads(config.threads)
        self.config, self.folder = config, folder
        self.device = distributed.pick_device(config.device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            torch.backends.cudnn.allow_tf32 = False  # fp32 is to be fp32
        generator = torch.Generator().manual_seed(config.seed)
        self.policy = Policy(PolicyConfig.for_params(config.params), generator).to(self.device)
        self.policy.dropout = config.dropout
        self._forward: Any = torch.compile(self.policy) if config.compile else self.policy
        self.optimizer = make_optimizer(self.policy, config)
        self._gradients = distributed.GradientSum(self.policy.parameters())
        _check_horizon(config, games)
        shard = distributed.rank(), distributed.world()
        streams = config.open_streams
        if ahead is None:
            ahead = 0 if self.device.type == "cpu" else _AHEAD
        if loaders is None:
            loaders = default_loaders(self.device, distributed.world() // distributed.machines())
        order = games, streams, config.batch, config.time, config.seed
        make = partial(Streams, *order, shard=shard, starts=config.starts)
        self.feed = Prefetcher(make, self.device, ahead, loaders, say)
        self.state = self.policy.initial_state(streams)  # only this process's rows
        self._games = [path.stem for path in games]
        self._unread: list[tuple[int, torch.Tensor]] = []
        self.counters = RunCounters(config.updates)
        self._open(say)

    @property
    def flops(self) -> float:
        """Training FLOPs so far; rows padded at the end of a game cost too, and count."""
        return float(self._flops_per_update * self.counters.update)

    @property
    def _flops_per_update(self) -> int:
        config, shape = self.config, self.policy.config
        frames = config.batch * config.time * config.accumulate
        return shape.train_flops * frames + shape.update_flops

    def step(self) -> None:
        """One update. Its loss and gradient's norm are read by `check`, on a CPU at once."""
        seed = (self.config.seed << 32) + self.counters.update  # dropout's, resumed or not
        torch.manual_seed((seed + distributed.rank() * 0x9E3779B97F4A7C15) % (1 << 64))
        batches = [self.feed.next() for _ in range(self.config.accumulate)]
        targets, frames, stops = distributed.total(
            [
                sum(batch.targets for batch in batches),
                sum(batch.valid for batch in batches),
                self.counters.stopping,
            ]
        )
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for batch in batches:
            if batch is batches[-1]:
                self._gradients.expect()
            loss = self._loss(batch) / max(1.0, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        value = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        self._gradients.finish(value)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.clip)
        self._unread.append((self.counters.update, torch.stack([value, norm])))
        if self.device.type == "cpu":  # elsewhere reading would wait for the device
            self.check()
        rate = learning_rate(self.config, self.counters.update, self.counters.updates)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.optimizer.step()
        self.counters.update += 1
        self.counters.frames += int(frames)
        self.counters.stopping = stops > 0

    def _loss(self, batch: DeviceBatch) -> torch.Tensor:
        """Summed loss of this process's rows of a batch, whose states are carried on."""
        state = self.state[:, batch.rows] * batch.not_first[None, :, None]
        with torch.autocast(self.device.type, torch.bfloat16, self.config.precision == "bf16"):
            logits, state = self._forward(batch.inputs, state)
        self.state[:, batch.rows] = state.detach()
        return torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), batch.actions.flatten(), ignore_index=-1, reduction="sum"
        )

    def check(self) -> None:
        """Read the losses of the updates since the last call; CheckFailed when it is hopeless."""
        if not self._unread:
            return
        numbers = [number for number, _ in self._unread]
        values = torch.stack([value for _, value in self._unread]).tolist()
        self._unread = []
        for number, (loss, norm) in zip(numbers, values, strict=True):
            self.counters.add_loss(number, loss, norm, self.folder)

    def save(self) -> None:
        """Write all that a resume needs, complete or not at all; any process may read it."""
        self.check()
        carried = self._whole(self.state)
        if distributed.rank() == 0:
            groups = {
                "policy": self.policy.state_dict(),
                "optimizer": optimizer_state(self.optimizer),
                "state": {"core": carried},
            }
            counters = self.counters.state() | {
                "updates": self.counters.updates,
                "games": self._games,
                "streams": self.feed.streams.state(),
            }
            write_state(self.folder, RunState.of(groups, counters))
        distributed.wait_for_all()

    def metrics(self) -> dict[str, float]:
        """See `loop.Run`: nothing."""
        return {}

    def close(self) -> None:
        """End what reads ahead."""
        self.feed.close()

    def _whole(self, state: torch.Tensor) -> torch.Tensor:
        """The carried state of all streams: each process has those of its rows of a batch."""
        batch, world = self.config.batch, distributed.world()
        turns = state.reshape(len(state), -1, batch, *state.shape[2:])
        first = distributed.rank() * batch // world
        return distributed.gathered(turns[:, :, first : first + batch // world], 2).flatten(1, 2)

    def _open(self, say: Callable[[str], None]) -> None:
        state = None
        if distributed.rank() == 0:
            reads = self.policy.config.preprocessing
            about = {"device": self.device.type, "preprocessing": reads}
            check_config(self.folder, asdict(self.config) | about)
            state = read_state(self.folder, say)
        state = distributed.from_first(state)
        if state is not None:
            self._load(state)

    def _load(self, state: RunState) -> None:
        saved = state.counters
        with restoring(self.folder):
            if saved["games"] != self._games:
                raise ValueError("it was trained on other games")
            self.policy.load_state_dict(state.group("policy"))
            restore_optimizer(self.optimizer, state.group("optimizer"))
            self.state.copy_(state.group("state")["core"])
            self.feed.streams.restore(saved["streams"])
            self.feed.restart()
            self.counters.restore(saved)
            self.counters.updates = saved["updates"]


@dataclass
class BCResult(TrainResult):
    """What a run of behavioural cloning has come to, with its loss on all validation games."""

    config: BCConfig
    unique_frames: int
    loss: Loss


def train_bc(
    config: BCConfig,
    training_games: list[Path],
    validation_games: list[Path],
    folder: Path,
    progress: Callable[[Progress], None] = lambda progress: None,
    checkpoint: Callable[[BCResult], object] = lambda trained: None,
    say: Callable[[str], None] = lambda text: None,
    loaders: int | None = None,
) -> BCResult:
    """Train to the end of the budget, or resume the run in `folder`.

    Process 0 alone writes, and calls `progress`, `checkpoint` (at each of `config.checkpoints`,
    after measuring all of `validation_games`) and `say` (what a user should know). `loaders`: see
    `Run`.
    """

    def make(_: Sequence[int]) -> Run:
        return Run(config, training_games, folder, say, loaders=loaders)

    with run_in(folder, make) as (run, log, stopped):

        def validate() -> Loss | None:
            if run.counters.update % config.validate_every >= config.log_every:
                return None
            return _measure(run, validation_games, config.validation_frames)

        def measured(finished: bool) -> BCResult:
            return _measured(run, validation_games, finished)

        Loop(run, log, measured, progress, checkpoint, validate).go(stopped)
    return measured(True)


def _measured(run: Run, validation_games: list[Path], finished: bool) -> BCResult:
    """The run as it stands, with its loss on all of the validation games."""
    return BCResult.of(
        run,
        finished,
        unique_frames=run.feed.streams.unique_frames,
        loss=_measure(run, validation_games),
    )


def _measure(run: Run, games: list[Path], max_frames: int | None = None) -> Loss:
    """`measure_loss`, the games shared out among the processes; in fp32."""
    mine = games[distributed.rank() :: distributed.world()]
    part = measure_loss(run.policy, mine, max_frames) if mine else Loss(0.0, 0.0, 0, 0)
    run.policy.train()
    if distributed.world() == 1:
        return part
    sums = part.loss * part.frames, part.accuracy * part.frames, part.frames, part.unscored
    loss, correct, frames, unscored = distributed.total(sums)
    count = max(1.0, frames)
    return Loss(loss / count, correct / count, int(frames), len(games), int(unscored))
