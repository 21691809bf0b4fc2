"""The interface of an agent, and agents that play by a network or by chance."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from nhzoo.envs.actions import ACTION_KEYS, TTY

if TYPE_CHECKING:
    from nhzoo.policy import checkpoint, inference
    from nhzoo.policy.network import Policy

Array = np.ndarray[Any, Any]


@runtime_checkable
class Agent(Protocol):
    """The interface of an agent: these two methods are all it must have.

    A state is an array, or tuples, lists and dicts of arrays, whose first axis is the batch. A row
    is replaced when its game ends and another begins. Attributes that an agent may have beside
    these are those of `AgentTraits`.
    """

    def initial_state(self, batch: int) -> Any:
        """The state at the start of `batch` games."""

    def act(
        self, observation: Mapping[str, Array], state: Any, uniform: Array
    ) -> tuple[Array, Any]:
        """Choose an action in each row.

        `observation` maps NLE's names to arrays [B, ...]; `uniform` is float64 [B] in [0, 1) and
        the only randomness to be used. Returns action indices, int [B], and the next state.
        """


@dataclass(frozen=True)
class AgentTraits:
    """The optional attributes of an agent, each with its default; see `traits`."""

    name: str
    """How results name the agent, with `revision`. Default: what it was loaded by, or its type."""
    revision: str | None
    observation_keys: tuple[str, ...]
    """NLE's names of what `act` reads. Default: `TTY`."""
    best_batch: int
    """Games to play at once where the user asks for no other number, at most `max_batch`."""
    max_batch: int
    blind: bool
    """It reads no observation and keeps no state: rows are then many steps of one game."""
    rows: bool
    """It has an attribute `rows`, to be set before each `act` to the rows that are games.

    It must read no others. Observations are then the games' own memory, not copies: it must not
    change them.
    """
    limits: Mapping[str, Any] | None
    """Its own time limits. Results under others are other results; nhzoo sets none then."""
    failure: str | None
    """Why it gave action -1 in the latest `act`, and whether for want of time (`timed_out`)."""
    timed_out: bool
    end_game: Callable[[], object]
    """To be called at the end of each game."""


def traits(agent: object, loaded_by: str | None = None) -> AgentTraits:
    """What an agent says of itself now, with the defaults of what it does not say.

    Call it again to know of a later failure. `loaded_by` is what it was loaded by, if by anything.
    """
    declared = getattr(agent, "observation_keys", None)
    keys = TTY if declared is None else tuple(declared)
    return AgentTraits(
        name=str(getattr(agent, "name", type(agent).__name__ if loaded_by is None else loaded_by)),
        revision=getattr(agent, "revision", None),
        observation_keys=keys,
        best_batch=getattr(agent, "best_batch", 16),
        max_batch=getattr(agent, "max_batch", sys.maxsize),
        blind=not keys and bool(getattr(agent, "blind", False)),
        rows=hasattr(agent, "rows"),
        limits=getattr(agent, "limits", None),
        failure=getattr(agent, "failure", None),
        timed_out=bool(getattr(agent, "timed_out", False)),
        end_game=getattr(agent, "end_game", lambda: None),
    )


def cumulative(logits: Array, temperature: float, min_p: float = 0.0) -> Array:
    """Cumulative probabilities in action order, float64 like `logits` [B, actions]."""
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max(-1, keepdims=True))
    weights[weights < min_p] = 0.0
    return np.asarray(np.cumsum(weights / weights.sum(-1, keepdims=True), axis=-1))


class PolicyAgent:
    """An agent that plays a zoo entry: the same keys on every machine and in every batch.

    Torch is imported with the entry, not with this module: workers of other agents do not need it.
    Not thread-safe. Weights are read at the first step: change none after it.
    """

    observation_keys = TTY
    best_batch = 64
    """The games evict the weights from the caches, so many games share the cost of loading them."""

    def __init__(self, entry: checkpoint.Entry, source: str | None = None) -> None:
        self.entry = entry
        self.name, self.revision = entry.name, entry.revision
        self.source = source  # where on the hub it is from, down to the commit
        self.rows: Sequence[int] | None = None
        self.last_logits: Array | None = None  # of the latest act, patience used up: [B, 121]
        self._batch = 1  # the most rows that have been asked for
        self._inference: inference.Inference | None = None
        self._module: Policy | None = None

    @property
    def module(self) -> Policy:
        """A copy of the network, a `torch.nn.Module` to train further; always the same one.

        `initial_state(batch)` gives zeros [3, batch, hidden]; `forward(inputs, state)` gives logits
        [T, B, 121], at temperature 1, and the next state, of inputs [T, B, ...] as
        `policy.ScreenReader` makes them. This agent itself goes on with the weights that it had.
        """
        if self._module is None:
            self._module = copy.deepcopy(self.entry.policy).requires_grad_(True)
        return self._module

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {
            "rows": None,
            "last_logits": None,
            "_inference": None,
            "_module": None,
        }

    def initial_state(self, batch: int) -> tuple[Array, ...]:
        """The layers' states, float32 [batch, hidden], and recalls, uint16 [batch, 1945]."""
        from nhzoo.policy import features
        from nhzoo.policy.config import LAYERS

        self._batch = max(self._batch, batch)
        shape = batch, self.entry.policy.config.hidden
        layers = (np.zeros(shape, np.float32) for _ in range(LAYERS))
        return *layers, features.no_recall(batch, self.entry.policy.config.preprocessing)

    def act(
        self, observation: Mapping[str, Array], state: Any, uniform: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """See `Agent.act`; reads tty_chars, tty_colors and tty_cursor."""
        from nhzoo.policy import inference, memory

        if self.rows is not None and len(self.rows) < len(uniform):
            return self._act_in(np.asarray(self.rows), observation, state, uniform)
        logits, reached = self.logits(observation, state)
        sampling = self.entry.sampling
        if sampling.patience:
            still = reached[-1][:, memory.STILL, None].astype(np.float32)
            logits /= 1 + still // sampling.patience
        self.last_logits = logits
        actions = inference.choose(logits, uniform, sampling.temperature, sampling.min_p)
        memory.push_keys(reached[-1], ACTION_KEYS[actions])
        return actions, reached

    def _act_in(
        self, rows: Array, observation: Mapping[str, Array], state: Any, uniform: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """`act` in some rows; the others keep their states, and their action is 0."""
        self.rows = None
        seen = {name: observation[name][rows] for name in TTY}
        some, reached = self.act(seen, tuple(part[rows] for part in state), uniform[rows])
        assert self.last_logits is not None
        logits = np.zeros((len(uniform), len(ACTION_KEYS)), np.float32)
        actions = np.zeros(len(uniform), np.int64)
        after = tuple(part.copy() for part in state)
        wholes, parts = (logits, actions, *after), (self.last_logits, some, *reached)
        for whole, part in zip(wholes, parts, strict=True):
            whole[rows] = part
        self.last_logits = logits
        return actions, after

    def press(self, state: tuple[Array, ...], row: int, key: int) -> None:
        """Record in the state of `row` that another key than the chosen one was pressed."""
        from nhzoo.policy import memory

        state[-1][row, memory.KEYS] = key

    def logits(
        self, observation: Mapping[str, Array], state: tuple[Array, ...]
    ) -> tuple[Array, tuple[Array, ...]]:
        """Logits, float32 [B, 121], and the next state, but for the key that is pressed now."""
        from nhzoo.policy import features, inference

        recall = state[-1].copy()
        if self._inference is None or self._inference.batch < len(recall):
            self._batch = max(self._batch, len(recall))
            self._inference = inference.Inference(self.entry.policy, self._batch)
        chars, colors, cursor = (observation[name] for name in TTY)
        encoded = features.encode(chars, colors, cursor, recall)
        logits, layers = self._inference.step(encoded, state[:-1])
        return logits, (*layers, recall)


class RandomAgent:
    """An agent that chooses each of the 121 actions with the same probability."""

    name, revision = "random", "1"
    observation_keys = ()
    blind = True
    _sums = cumulative(np.zeros((1, len(ACTION_KEYS))), 1.0)[0]

    def initial_state(self, batch: int) -> None:
        """An empty state."""

    def act(
        self, observation: Mapping[str, Array], state: None, uniform: Array
    ) -> tuple[Array, None]:
        """See `Agent.act`; what equal logits would choose."""
        chosen = self._sums.searchsorted(uniform, "right")
        return np.minimum(chosen, len(ACTION_KEYS) - 1), None


_KEYS = (
    b" s5lhb:M/kjy\x1bn,ut\re#\\\xe5a.cDdmfB"
    b"qNJWvEirIgwOXzopHULSCxVTKAPGFQ"
    b"$YR\xf0Z\x04>-\xec<\xef\x18@102\xf14+38796"
)
# fmt: off
_COUNTS = (
    1229387, 872177, 539038, 520205, 519973, 393761, 371835, 320914, 318321, 288682, 288205,
    276611, 263521, 255321, 244036, 241922, 234220, 178340, 163335, 133858, 83914, 83070, 75193,
    52832, 13327, 8447, 6071, 6034, 5891, 5800, 5488, 5282, 5164, 5157, 5016, 4813, 4628, 4475,
    4441, 4363, 4251, 4243, 4214, 4164, 3663, 3519, 3260, 3255, 3236, 3064, 3049, 2817, 2640,
    2488, 2464, 2426, 2283, 2272, 2193, 2181, 1708, 1664, 1614, 1595, 1401, 929, 780, 775, 742,
    297, 189, 171, 171, 92, 58, 24, 19, 4, 3, 3, 3, 2, 2, 1,
)
# fmt: on
"""How often AutoAscend pressed each of `_KEYS` in `autoascend-monk-v1`, all 171 games."""


class FrequencyAgent(RandomAgent):
    """An agent that presses each key as often as the expert does, whatever it observes."""

    name, revision = "frequency", "1"

    def __init__(self) -> None:
        shares = np.zeros(len(ACTION_KEYS))
        actions = ACTION_KEYS.tolist()
        for key, count in zip(_KEYS, _COUNTS, strict=True):
            shares[actions.index(key)] = count  # the first of the actions that press it
        self._sums = np.cumsum(shares / shares.sum())


def set_row(state: Any, row: int, fresh: Any) -> None:
    """Copy the only row of `fresh`, a state of batch 1, into row `row` of `state`, in place."""
    if isinstance(state, Mapping):
        for name in state:
            set_row(state[name], row, fresh[name])
    elif isinstance(state, (tuple, list)):
        for part, fresh_part in zip(state, fresh, strict=True):
            set_row(part, row, fresh_part)
    elif hasattr(state, "shape"):
        state[row] = fresh[0]
    elif state is not None:
        raise TypeError(f"an agent's state may hold arrays, not {type(state).__name__}")
