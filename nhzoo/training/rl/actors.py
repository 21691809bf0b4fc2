"""Actors: each plays several games side by side with a copy of the policy, an unroll at a time.

`ActorPool` is how a learner has them play: in its own process here, elsewhere in `remote_actors`
and `ray_actors`. An actor's state (`ActorState`) holds the keys of the games it is in: they are
played again, and end in the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from nhzoo.envs.actions import ACTION_KEYS, TTY
from nhzoo.envs.game import blank
from nhzoo.errors import CheckFailed
from nhzoo.policy import features, memory
from nhzoo.policy.config import ACTIONS, LAYERS, PolicyConfig
from nhzoo.policy.features import Features
from nhzoo.policy.inference import Inference, choose
from nhzoo.policy.network import Policy
from nhzoo.training.rl.envs import TrainEnvConfig
from nhzoo.training.rl.rollouts import Finished, Unroll

_ARRAYS = ("first", "core", "recall")


def pack_states(states: Mapping[int, ActorState]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors by name, and the rest."""
    tensors: dict[str, torch.Tensor] = {}
    rest: dict[str, Any] = {}
    for number, state in states.items():
        arrays = {name: getattr(state, name) for name in _ARRAYS}
        arrays |= {f"frame.{name}": array for name, array in state.frame.items()}
        arrays["recall"] = state.recall.view(np.int16)
        arrays["actions"] = np.array(bytearray(b"".join(state.actions)), np.uint8)
        tensors |= {f"{number}.{name}": torch.from_numpy(a) for name, a in arrays.items()}
        rest[str(number)] = {
            "started": state.started,
            "random": state.random,
            "numbers": state.numbers,
            "lengths": [len(actions) for actions in state.actions],
            "cut": state.cut,
        }
    return tensors, rest


def unpack_states(
    tensors: Mapping[str, torch.Tensor], rest: Mapping[str, Any]
) -> dict[int, ActorState]:
    """The inverse of `pack_states`."""
    states = {}
    for number, saved in rest.items():
        mine = {
            name.removeprefix(f"{number}."): tensor.numpy()
            for name, tensor in tensors.items()
            if name.startswith(f"{number}.")
        }
        ends = np.cumsum(saved["lengths"]).tolist()
        actions, begins = mine["actions"].tobytes(), [0, *ends][: len(ends)]
        states[int(number)] = ActorState(
            saved["started"],
            saved["random"],
            saved["numbers"],
            [actions[begin:end] for begin, end in zip(begins, ends, strict=True)],
            saved["cut"],
            mine["first"],
            mine["core"],
            mine["recall"].view(np.uint16),
            {k.removeprefix("frame."): v for k, v in mine.items() if k.startswith("frame.")},
        )
    return states


Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ActorConfig:
    """What all actors of a run are: `games` side by side, unrolls of `time` steps."""

    policy: PolicyConfig
    world: TrainEnvConfig
    games: int
    time: int
    seed: int = 0

    def empty(self) -> Unroll:
        """An unroll to play into."""
        return Unroll.empty(self.time, self.games, self.policy.hidden)


@dataclass
class ActorState:
    """Where an actor stands between two unrolls.

    Of each game: its number, the actions so far, whether it was cut short. `core` float32
    [3, B, hidden] and `recall` uint16 [B, 1945] are those of before the frame `frame`.
    """

    started: int
    random: dict[str, Any]
    numbers: list[int]
    actions: list[bytes]
    cut: list[bool]
    first: Array
    core: Array
    recall: Array
    frame: dict[str, Array]

    @classmethod
    def new_games(cls, started: int) -> ActorState:
        """Of an actor that could not be asked: new games, after `started` that it had begun."""
        return cls(
            started,
            {},
            [],
            [],
            [],
            np.empty(0, bool),
            np.empty((LAYERS, 0, 0), np.float32),
            features.no_recall(0),
            {},
        )


class ActorPool(Protocol):
    """The actors of a learner.

    A pool whose actors are elsewhere asks `stop()` whether the run is to stop, and reports by
    `say(line)` which actors it has replaced.
    """

    def publish(self, weights: Array, version: int) -> None:
        """Give all actors new weights, see `weights_of`, for what they begin from now on."""

    def collect(self, count: int) -> list[Unroll]:
        """The next unrolls, of any actors; NhzooError when no actor is left. Read before `release`.

        Those of one actor come in order. `Stopped` when it would have to wait after a stop was
        asked for; nothing is lost by that.
        """

    def release(self) -> None:
        """What was collected is not needed any more: its actors may go on."""

    def states(self) -> dict[int, ActorState]:
        """Where each actor stands, behind what it has played so far.

        One that does not answer in time has `ActorState.new_games`.
        """

    def close(self) -> None:
        """End the actors."""


class Actor:
    """Plays; not thread-safe."""

    def __init__(self, number: int, config: ActorConfig, state: ActorState | None = None) -> None:
        self.number, self.config, self.version = number, config, -1
        games = config.games
        self._policy = Policy(config.policy).requires_grad_(False).eval()
        self._inference = Inference(self._policy, games)
        self._screens = blank(TTY, games)
        self._worlds = [
            config.world.make(number, {name: array[i] for name, array in self._screens.items()})
            for i in range(games)
        ]
        self._logits = np.empty((config.time, games, ACTIONS), np.float32)
        self._numbers = [-1] * games
        self._actions = [bytearray() for _ in range(games)]
        self._started = state.started if state else 0
        self._random = np.random.default_rng([config.seed, number, self._started])
        if state is None or not state.numbers:
            self._layers = [np.zeros((games, config.policy.hidden), np.float32)] * LAYERS
            self._recall = features.no_recall(games, config.policy.preprocessing)
            self._first = np.ones(games, bool)
            for i in range(games):
                self._begin(i)
            self._frame = self._encode(None)
        else:
            self._restore(state)

    def load(self, weights: Array, version: int) -> None:
        """Play with these weights from now on, see `weights_of`."""
        if version != self.version:
            take_weights(self._policy, weights)
            self._inference.refresh()
            self.version = version

    def play(self, out: Unroll) -> Unroll:
        """The next unroll, written into `out`."""
        config, first = self.config, self._first
        finished: list[Finished] = []
        steps = [out.frame(t) for t in range(config.time + 1)]
        for name, array in vars(steps[0]).items():
            array[:] = getattr(self._frame, name)
        out.first[0] = first
        out.state[:] = self._layers
        out.rewards[:], out.died[:] = 0.0, False
        for t in range(config.time):
            logits, layers = self._inference.step(steps[t], self._layers)
            actions = _choose(logits, self._random.random(config.games))
            self._logits[t], out.actions[t] = logits, actions
            memory.push_keys(self._recall, ACTION_KEYS[actions])
            first = np.zeros(config.games, bool)
            for i, action in enumerate(actions.tolist()):
                world = self._worlds[i]
                out.valid[t, i] = not world.truncated
                if world.truncated:
                    first[i] = True
                    continue
                self._actions[i].append(action)
                out.rewards[t, i] = world.step(action)
                if world.terminated or world.truncated:
                    finished.append(world.finished())
                    first[i] = out.died[t, i] = world.terminated
            if first.any():
                self._recall[first, : memory.VERSION] = 0
                for layer in layers:
                    layer[first] = 0.0
                for i in np.flatnonzero(first).tolist():
                    self._begin(i)
            self._layers = layers
            out.first[t + 1] = first
            self._encode(steps[t + 1])
        self._first = first
        self._frame = Features(**{k: array.copy() for k, array in vars(steps[-1]).items()})
        out.log_probs[:] = _log_probs(self._logits, out.actions)
        out.actor, out.version = self.number, self.version
        out.started, out.finished = self._started, finished
        return out

    def state(self) -> ActorState:
        """Where it stands."""
        return ActorState(
            self._started,
            self._random.bit_generator.state,  # type: ignore[arg-type]
            list(self._numbers),
            [bytes(actions) for actions in self._actions],
            [world.truncated for world in self._worlds],
            self._first.copy(),
            np.stack(self._layers),
            self._recall.copy(),
            {name: array.copy() for name, array in vars(self._frame).items()},
        )

    def close(self) -> None:
        """Free the games."""
        for world in self._worlds:
            world.close()

    def _restore(self, state: ActorState) -> None:
        self._random.bit_generator.state = state.random
        self._layers, self._recall = list(state.core.copy()), state.recall.copy()
        self._first, self._frame = state.first.copy(), Features(**state.frame)
        again = np.zeros(self.config.games, bool)
        for i, world in enumerate(self._worlds):
            self._numbers[i], self._actions[i] = state.numbers[i], bytearray(state.actions[i])
            world.begin(self._numbers[i])
            goes_on = world.replay(state.actions[i])
            if world.terminated or goes_on == state.cut[i]:  # another machine type: another game
                again[i] = True
                self._begin(i)
        if again.any():
            self._first |= again
            self._recall[again, : memory.VERSION] = 0
            recall, self._recall = self._recall, self._recall.copy()
            fresh = self._encode(None)
            self._recall = np.where(again[:, None], self._recall, recall)
            for name, array in vars(self._frame).items():
                array[again] = getattr(fresh, name)[again]
            for layer in self._layers:
                layer[again] = 0.0

    def _begin(self, i: int) -> None:
        self._numbers[i] = self._started
        self._actions[i].clear()
        self._started += 1
        self._worlds[i].begin(self._numbers[i])

    def _encode(self, out: Features | None) -> Features:
        """What is seen now; the recalls are brought up to it."""
        chars, colors, cursor = (self._screens[name] for name in TTY)
        return features.encode(chars, colors, cursor, self._recall, out)


class InlineActorPool:
    """Actors in the learner's own process, one after another: slow, exact, easy to debug."""

    def __init__(
        self, config: ActorConfig, actors: int, states: dict[int, ActorState], turn: int = 0
    ) -> None:
        self._actors = [Actor(n, config, states.get(n)) for n in range(actors)]
        self._turn = turn
        self._weights: tuple[Array, int] = np.empty(0, np.float32), -1

    def publish(self, weights: Array, version: int) -> None:
        """See `ActorPool`."""
        self._weights = weights.copy(), version

    def collect(self, count: int) -> list[Unroll]:
        """See `ActorPool`."""
        unrolls = []
        for _ in range(count):
            actor = self._actors[self._turn % len(self._actors)]
            actor.load(*self._weights)
            unrolls.append(actor.play(actor.config.empty()))
            self._turn += 1
        return unrolls

    def release(self) -> None:
        """See `ActorPool`."""

    def states(self) -> dict[int, ActorState]:
        """See `ActorPool`."""
        return {actor.number: actor.state() for actor in self._actors}

    def close(self) -> None:
        """See `ActorPool`."""
        for actor in self._actors:
            actor.close()


def most_started(config: ActorConfig, unrolls: int) -> int:
    """How many games an actor may have begun in its first frame and in `unrolls` unrolls.

    Whoever takes its place leaves out so many: no game of a run is played twice.
    """
    return config.games * (1 + unrolls * config.time)


def weights_of(policy: Policy) -> Array:
    """All parameters in order as one vector, float32."""
    return np.asarray(flat_weights(policy).cpu().numpy())


def flat_weights(policy: Policy) -> torch.Tensor:
    """`weights_of` on the policy's device."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in policy.parameters()])


def take_weights(policy: Policy, weights: Array) -> None:
    """The inverse of `weights_of`, into the tensors that are there."""
    at, vector = 0, torch.from_numpy(np.require(weights, requirements="W"))
    with torch.no_grad():
        for parameter in policy.parameters():
            size = parameter.numel()
            parameter.copy_(vector[at : at + size].view(parameter.shape))
            at += size


def _choose(logits: Array, uniform: Array) -> Array:
    try:
        return choose(logits, uniform, 1.0)
    except ValueError:
        raise CheckFailed(
            "the policy's logits are not finite: the training has diverged; go back to an earlier "
            "state, or give a smaller --lr and another --run"
        ) from None


def _log_probs(logits: Array, actions: Array) -> Array:
    """Logarithm of the probability of each action [T, B] under logits [T, B, 121]."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    chosen = np.take_along_axis(wide, actions[..., None].astype(np.int64), -1)[..., 0]
    return np.asarray(chosen - np.log(np.exp(wide).sum(-1)))
