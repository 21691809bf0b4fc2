"""IMPALA (Espeholt et al., arXiv 1802.01561): the learner of what actors play, exactly resumable.

A run lives in a folder as one of behavioural cloning does (`bc.py`), with the actors' games among
its state. With inline actors it goes on to the bits of a run that was never interrupted; with
actors elsewhere it loses the unrolls that were in flight.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nhzoo.errors import CheckFailed, InputError
from nhzoo.policy.checkpoint import Entry
from nhzoo.policy.config import PolicyConfig
from nhzoo.policy.features import Features
from nhzoo.policy.network import Policy
from nhzoo.training import distributed
from nhzoo.training.feed import to_device
from nhzoo.training.loop import RunCounters
from nhzoo.training.rl.actors import (
    ActorConfig,
    ActorPool,
    ActorState,
    InlineActorPool,
    flat_weights,
    pack_states,
    unpack_states,
    weights_of,
)
from nhzoo.training.rl.config import ENCODER, PLAY_IN, SCALED, VALUE, ImpalaConfig, run_flops
from nhzoo.training.rl.envs import TrainEnvConfig
from nhzoo.training.rl.objectives import Critic, Demonstrations, Teacher, divergence, vtrace
from nhzoo.training.rl.remote_actors import ProcessActorPool
from nhzoo.training.rl.rollouts import Finished, RewardScale, Unroll, joined
from nhzoo.training.run_state import (
    RunState,
    check_config,
    optimizer_state,
    read_state,
    restore_optimizer,
    restoring,
    write_state,
)

RECENT = 256
"""Games over which the mean score of a run is taken."""
_MEMORY = 100  # updates that the scale of advantages looks back
_SUMS = ("policy_loss", "value_loss", "entropy", "teacher_kl", "demonstration_loss", "explained")


@dataclass(frozen=True)
class WarmStart:
    """What a policy starts from and is kept close to: entries, the start's critic, games."""

    start: Entry | None = None
    critic: Critic | None = None
    teacher: Entry | None = None
    demonstrations: tuple[Path, ...] = ()


FROM_SCRATCH = WarmStart()


class ImpalaRun:
    """A run: policy, critic, optimizer, actors and counters. See `loop.Run`."""

    def __init__(
        self,
        config: ImpalaConfig,
        folder: Path,
        warm_start: WarmStart = FROM_SCRATCH,
        say: Callable[[str], None] = lambda text: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        torch.set_num_threads(config.threads)
        self.config, self.folder = config, folder
        self.device = distributed.pick_device(config.device)
        generator = torch.Generator().manual_seed(config.seed)
        start, teacher = warm_start.start, warm_start.teacher
        shape = start.policy.config if start else PolicyConfig.for_params(config.params)
        if teacher:
            shape = _reading_like(teacher, shape, bool(start))
        self.policy = Policy(shape, generator)
        self.critic = Critic(shape.hidden, config.critic_hidden, generator)
        if start:
            self.policy.load_state_dict(_played(start).state_dict())
        if warm_start.critic:
            self.critic.load_state_dict(warm_start.critic.state_dict())
        self.policy.to(self.device)
        self.critic.to(self.device)
        if config.freeze == ENCODER:
            for parameter in self.policy.encoder_parameters():
                parameter.requires_grad_(False)
        both = [*self.policy.parameters(), *self.critic.parameters()]
        self._parameters = [parameter for parameter in both if parameter.requires_grad]
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
            self._parameters,
            lr=config.lr,
            betas=(0.9, config.beta2),
            eps=config.epsilon,
            fused=True,
        )
        self.teacher = Teacher(_played(teacher).to(self.device)) if teacher else None
        self.demonstrations = (
            Demonstrations(
                warm_start.demonstrations,
                self.policy,
                config.demonstration_batch,
                config.demonstration_time,
                config.seed,
                self.device,
            )
            if warm_start.demonstrations
            else None
        )
        self.scale = RewardScale(config.rewards, config.discount)
        self._advantage = torch.zeros((), dtype=torch.float64, device=self.device)
        self.counters, self.episodes = RunCounters(config.updates), 0
        self.recent: deque[Finished] = deque(maxlen=RECENT)
        self._since: list[Finished] = []  # the last report
        self._sums: dict[str, list[float]] = {name: [] for name in (*_SUMS, "lag", "waited")}
        self._reported = time.monotonic()
        self._sizes = shape, teacher.policy.config if teacher else None
        revisions = {
            "start_revision": start.revision if start else None,
            "teacher_revision": teacher.revision if teacher else None,
        }
        reads = {"device": self.device.type, "preprocessing": shape.preprocessing}
        check_config(folder, asdict(config) | reads | revisions, config.free)
        state = read_state(folder, say)
        actors, turn = self._load(state) if state else ({}, 0)
        self.pool = self._make_pool(actors, turn, stop, say)
        try:
            self.pool.publish(weights_of(self.policy), self.counters.update)
        except BaseException:
            self.close()
            raise

    @property
    def flops(self) -> float:
        """Training FLOPs so far, see `update_flops`."""
        return run_flops(self.config, *self._sizes, self.counters.update)

    @property
    def advantage(self) -> float:
        """The running mean square of advantages."""
        return float(self._advantage)

    @property
    def scores(self) -> list[float]:
        """Of the latest games that the actors have finished, up to `RECENT`."""
        return [game.score for game in self.recent]

    def step(self) -> None:
        """One update from the next unrolls. `Stopped`, with nothing changed, where it would have
        to wait for them after a stop was asked for.
        """
        config, counters = self.config, self.counters
        began = time.monotonic()
        unrolls = self.pool.collect(config.unrolls)
        self._sums["waited"].append(time.monotonic() - began)
        for unroll in unrolls:
            self.scale.see(unroll.actor, unroll.rewards, unroll.valid, unroll.first[:-1])
            self._since += unroll.finished
            self.recent += unroll.finished
            self.episodes += len(unroll.finished)
            self._sums["lag"].append(counters.update - unroll.version)
        arrays = joined(unrolls)
        self.pool.release()
        batch = to_device(arrays, self.device)
        if config.phase(counters.update) == PLAY_IN:
            learnt = torch.empty(0, device=self.device)
            if self.teacher:  # carries its state
                self.teacher.logits(unrolls, self._inputs(batch), (~batch["first"]).float())
        else:
            learnt = self._learn(batch, unrolls)
        # The one wait for the device: actors are to play with the new weights.
        read = torch.cat([learnt, flat_weights(self.policy)]).cpu().numpy()
        values, weights = read[: len(learnt)].tolist(), read[len(learnt) :]
        if values:
            counters.add_loss(counters.update, values[0], values[1], self.folder)
        for name, value in zip(_SUMS, values[2:], strict=bool(values)):
            self._sums[name].append(value)
        if not np.isfinite(weights).all():
            raise CheckFailed(
                f"update {counters.update}: weights are not finite any more; the state of before "
                f"is kept in {self.folder}, a smaller --lr with another --run may help"
            )
        counters.update += 1
        counters.frames += int(arrays["valid"].sum())
        self.pool.publish(weights, counters.update)

    def _learn(self, batch: Mapping[str, Tensor], unrolls: list[Unroll]) -> Tensor:
        """Move the parameters by the loss of a batch: it, the gradient's norm, and `_SUMS`."""
        config, counters = self.config, self.counters
        self.optimizer.zero_grad(set_to_none=True)
        loss, parts = self._loss(batch, unrolls)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(counters.update)
        self.optimizer.step()
        return torch.stack([loss.detach(), norm, *parts])

    @staticmethod
    def _inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The features of a batch."""
        return {name: batch[name] for name in vars(Features.empty(0))}

    def _loss(self, batch: Mapping[str, Tensor], unrolls: list[Unroll]) -> tuple[Tensor, list[Any]]:
        """The loss, a mean over the steps of a batch, and what it consists of, see `_SUMS`."""
        config = self.config
        inputs = self._inputs(batch)
        not_first = (~batch["first"]).float()
        valid = batch["valid"].float()
        count = valid.sum().clamp(min=1.0)
        x, direction_embedding, _ = self.policy.encode_sequence(inputs, batch["state"], not_first)
        chances = self.policy.logits(inputs, x, direction_embedding)[:-1].log_softmax(-1)
        pressed = chances.gather(-1, batch["actions"].long()[..., None])[..., 0]
        alone = config.phase(self.counters.update) == VALUE
        values = self.critic(x.detach() if alone else x)
        known = values.detach()
        counted = batch["valid"]
        traced = vtrace(
            (pressed.detach() - batch["log_probs"]) * valid,
            config.discount * (counted & ~batch["died"]).float(),
            torch.where(counted, self.scale.apply(batch["rewards"]), known[:-1]),
            known[:-1],
            known[-1],
            config.rho_bar,
            config.c_bar,
        )
        entropy = -((chances.exp() * chances).sum(-1) * valid).sum() / count
        advantages = traced.advantages
        if config.advantages == SCALED:
            square = (advantages.square() * valid).sum() / count
            advantages = advantages / self._advantage_scale(square)
        policy_loss = -(pressed * advantages * valid).sum() / count
        errors = (traced.targets - values[:-1]) * valid
        value_loss = 0.5 * errors.square().sum() / count
        loss = config.value_cost * value_loss
        if not alone:
            loss = loss + policy_loss - config.entropy_cost * entropy
        nothing = torch.zeros((), device=self.device)
        kl = cross_entropy = nothing
        if self.teacher:
            expected = self.teacher.logits(unrolls, inputs, not_first)
            kl = (divergence(expected, chances) * valid).sum() / count
            if not alone:
                loss = loss + self._faded(config.teacher_cost) * kl
        if self.demonstrations and not alone:
            cross_entropy = self.demonstrations.loss()
            loss = loss + self._faded(config.demonstration_cost) * cross_entropy
        spread = _variance(traced.targets, valid)
        explained = 1 - _variance(errors.detach(), valid) / spread.clamp(min=1e-12)
        parts = (policy_loss, value_loss, entropy, kl, cross_entropy, explained)
        return loss, [part.detach() for part in parts]

    def _faded(self, cost: float) -> float:
        return self.config.faded(cost, self.counters.frames, self.counters.update)

    def _advantage_scale(self, mean_square: Tensor) -> Tensor:
        """The running root mean square of advantages, with those of this batch."""
        before, memory = self._advantage, min(self.counters.update + 1, _MEMORY)
        self._advantage = before + (mean_square.double() - before) / memory
        return self._advantage.sqrt().clamp(min=1e-6)

    def check(self) -> None:
        """See `loop.Run`: every update is checked at once."""

    def metrics(self) -> dict[str, float]:
        """See `loop.Run`; `lag` is in updates, `waited` the share of time without unrolls."""
        now, since = time.monotonic(), self._since
        sums, self._since = self._sums, []
        self._sums = {name: [] for name in sums}
        found = {name: float(np.mean(values)) for name, values in sums.items() if values}
        found["waited"] = sum(sums["waited"]) / max(1e-9, now - self._reported)
        self._reported = now
        if not self.teacher:
            found.pop("teacher_kl", None)
        if not self.demonstrations:
            found.pop("demonstration_loss", None)
        found |= {
            "reward_scale": self.scale.scale,
            "advantage": self.advantage,
            "games": self.episodes,
        }
        if since:
            found |= {
                "score": float(np.mean([game.score for game in since])),
                "game_steps": float(np.mean([game.steps for game in since])),
                "depth": float(np.mean([game.depth for game in since])),
                "cut": float(np.mean([game.cut for game in since])),
            }
        return found

    def save(self) -> None:
        """Write all that a resume needs, complete or not at all."""
        tensors, actors = pack_states(self.pool.states())
        groups = {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "optimizer": optimizer_state(self.optimizer),
            "actors": tensors,
            "teacher": self.teacher.state() if self.teacher else {},
        }
        place = None
        if self.demonstrations:
            carried, place = self.demonstrations.state()
            groups["demonstrations"] = {"core": carried}
        counters = self.counters.state() | {
            "episodes": self.episodes,
            "sums": self._sums,
            "scale": self.scale.state(),
            "advantage": self.advantage,
            "recent": [asdict(game) for game in self.recent],
            "since": [asdict(game) for game in self._since],
            "actors": actors,
            "demonstrations": place,
        }
        write_state(self.folder, RunState.of(groups, counters))

    def close(self) -> None:
        """End the actors, and what reads ahead."""
        self.pool.close()
        if self.demonstrations:
            self.demonstrations.close()

    def _make_pool(
        self,
        states: dict[int, ActorState],
        turn: int,
        stop: Callable[[], bool],
        say: Callable[[str], None],
    ) -> ActorPool:
        config = self.config
        actor = ActorConfig(
            self.policy.config, TrainEnvConfig.of(config), config.games, config.time, config.seed
        )
        if config.inline:
            return InlineActorPool(actor, config.actors, states, turn)
        if config.cluster:
            from nhzoo.training.rl.ray_actors import RayActorPool

            return RayActorPool(actor, config.actors, states, config.cluster, stop, say)
        return ProcessActorPool(actor, config.actors, states, stop, say)

    def _load(self, state: RunState) -> tuple[dict[int, ActorState], int]:
        """Where the actors stand, and whose turn it is."""
        saved = state.counters
        with restoring(self.folder):
            self.policy.load_state_dict(state.group("policy"))
            self.critic.load_state_dict(state.group("critic"))
            restore_optimizer(self.optimizer, state.group("optimizer"))
            if self.teacher:
                self.teacher.restore(state.group("teacher"))
            if self.demonstrations:
                carried = state.group("demonstrations")["core"]
                self.demonstrations.restore(carried, saved["demonstrations"])
            self.counters.restore(saved)
            self.scale.restore(saved["scale"])
            self._advantage.fill_(saved["advantage"])
            self.episodes = saved["episodes"]
            self._sums = saved["sums"]
            self.recent.extend(Finished(**game) for game in saved["recent"])
            self._since = [Finished(**game) for game in saved["since"]]
            actors = unpack_states(state.group("actors"), saved["actors"])
        return actors, self.counters.update * self.config.unrolls


def _variance(values: Tensor, weights: Tensor) -> Tensor:
    """Of the values whose weight is 1, the others' being 0."""
    count = weights.sum()
    off = (values - (values * weights).sum() / count) * weights
    return off.square().sum() / (count - 1)


def _reading_like(teacher: Entry, shape: PolicyConfig, started: bool) -> PolicyConfig:
    """The student's shape, with the teacher's features: one set of them is made for both."""
    version = teacher.policy.config.preprocessing
    if started and shape.preprocessing != version:
        raise InputError(
            f"teacher {teacher.name} reads features of version {version}, the agent to start from "
            f"those of version {shape.preprocessing}: give two agents that read the same"
        )
    return replace(shape, preprocessing=version)


def _played(entry: Entry) -> Policy:
    """An entry's policy, whose logits at temperature 1 are those by which the entry samples."""
    policy = Policy(entry.policy.config)
    policy.load_state_dict(entry.policy.state_dict())
    policy.scale_logits(entry.sampling.temperature or 1.0)
    return policy
