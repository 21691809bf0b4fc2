"""Agents: anything that maps observations to actions, and how to get one by name."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from nle.env.base import NLE_SPACE_ITEMS

from nhzoo import registry
from nhzoo.autoascend import autoascend
from nhzoo.bots import BotAgent, BotSource
from nhzoo.envs import ACTION_KEYS, TTY
from nhzoo.errors import InputError

if TYPE_CHECKING:
    from nhzoo import checkpoints, inference

Array = np.ndarray[Any, Any]


@runtime_checkable
class Agent(Protocol):
    """All there is to implement.

    A state is an array, or tuples, lists and dicts of arrays, whose first axis is the batch: rows
    are replaced when a game ends and another begins.

    An agent that sees nothing, remembers nothing and chooses by `uniform` alone may say so with the
    attribute `blind = True`: its rows are then many steps of one game.

    An agent that has an attribute `rows` finds in it before each `act` which rows are games, and
    looks at no other. It is shown the games' own memory, not copies, and must leave it as it is.
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


def sample(logits: Array, uniform: Array, temperature: float = 1.0) -> Array:
    """Per row the first action whose cumulative probability exceeds `uniform`; int64 [B].

    Softmax and cumulative sum are float64 in action order; temperature 0 takes the largest logit.
    """
    if not np.isfinite(logits).all():
        raise ValueError("the agent's logits are not finite")
    if temperature == 0:
        return np.asarray(logits.argmax(-1))
    sums = cumulative(logits, temperature)
    # Rounding may leave the last value a little below 1, and a uniform above it.
    chosen = (sums > uniform[:, None]).argmax(-1)
    above = uniform >= sums[:, -1]
    chosen[above] = sums.shape[-1] - 1
    return np.asarray(chosen)


def cumulative(logits: Array, temperature: float) -> Array:
    """Cumulative probabilities in action order, float64 like `logits` [B, actions]."""
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max(-1, keepdims=True))
    return np.asarray(np.cumsum(weights / weights.sum(-1, keepdims=True), axis=-1))


class PolicyAgent:
    """A zoo entry that plays: the same keys on every machine, in every batch (`arithmetic`).

    Torch is imported with the entry, not with this module: workers of other agents do without.
    Not thread-safe. Weights are read at the first step: change none after it.
    """

    observation_keys = TTY
    best_batch = 64
    """Weights leave the caches while the games are played: many games share their coming back."""

    def __init__(self, entry: checkpoints.Entry, source: str | None = None) -> None:
        self.entry = entry
        self.name, self.revision = entry.name, entry.revision
        self.source = source  # where on the hub it is from, down to the commit
        self.rows: Sequence[int] | None = None
        self.last_logits: Array | None = None  # of the latest act, patience used up: [B, 121]
        self._batch = 1  # the most rows that have been asked for
        self._inference: inference.Inference | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"rows": None, "last_logits": None, "_inference": None}

    def initial_state(self, batch: int) -> tuple[Array, ...]:
        """The layers' states, float32 [batch, hidden], and recalls, uint16 [batch, 1912]."""
        from nhzoo import features
        from nhzoo.policy import LAYERS

        self._batch = max(self._batch, batch)
        shape = batch, self.entry.policy.config.hidden
        layers = (np.zeros(shape, np.float32) for _ in range(LAYERS))
        return *layers, features.no_recall(batch)

    def act(
        self, observation: Mapping[str, Array], state: Any, uniform: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """See `Agent.act`; reads tty_chars, tty_colors and tty_cursor."""
        from nhzoo import inference, walking

        if self.rows is not None and len(self.rows) < len(uniform):
            return self._act_in(np.asarray(self.rows), observation, state, uniform)
        logits, reached = self.logits(observation, state)
        sampling = self.entry.sampling
        if sampling.patience:
            still = reached[-1][:, walking.STILL, None].astype(np.float32)
            logits /= 1 + still // sampling.patience
        self.last_logits = logits
        actions = inference.choose(logits, uniform, sampling.temperature)
        walking.press_each(reached[-1], ACTION_KEYS[actions])
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
        """Another key was pressed in `row` than the one chosen: remember that one."""
        from nhzoo import walking

        state[-1][row, walking.KEYS] = key

    def logits(
        self, observation: Mapping[str, Array], state: tuple[Array, ...]
    ) -> tuple[Array, tuple[Array, ...]]:
        """Logits, float32 [B, 121], and the next state, but for the key that is pressed now."""
        from nhzoo import features, inference

        recall = state[-1].copy()
        if self._inference is None or self._inference.batch < len(recall):
            self._batch = max(self._batch, len(recall))
            self._inference = inference.Inference(self.entry.policy, self._batch)
        chars, colors, cursor = (observation[name] for name in TTY)
        encoded = features.encode(chars, colors, cursor, recall)
        logits, layers = self._inference.step(encoded, state[:-1])
        return logits, (*layers, recall)


class RandomAgent:
    """Presses any of the 121 keys, each as likely as any other."""

    name, revision = "random", "1"
    observation_keys = ()
    blind = True
    _sums = cumulative(np.zeros((1, len(ACTION_KEYS))), 1.0)[0]

    def initial_state(self, batch: int) -> None:
        """Nothing to remember."""

    def act(
        self, observation: Mapping[str, Array], state: None, uniform: Array
    ) -> tuple[Array, None]:
        """See `Agent.act`; what `sample` gives for logits that are all the same."""
        chosen = self._sums.searchsorted(uniform, "right")
        return np.minimum(chosen, len(ACTION_KEYS) - 1), None


def load(source: str | Path) -> Agent:
    """Get an agent: a name, a folder, "hf://org/repo@revision", or "package.module:make_agent".

    A name is looked for in the registry and then on the hub, in the zoo's organisation; with
    "@revision", on the hub alone. What was fetched once is loaded without a request when the
    revision is a commit, or HF_HUB_OFFLINE is set. Entries run no code, from wherever they are.

    "package.module:make_agent" runs the code of that module; what it makes is an `Agent`, or a bot
    or blocking player (see `nhzoo.bots`), which then plays in processes of its own. So does a bot
    from a folder whose `bot.py` defines `make_agent()`.
    """
    text = str(source)
    if text == "random":
        return RandomAgent()
    if text == "frequency":
        from nhzoo.frequency import FrequencyAgent

        return FrequencyAgent()
    if text == "scripted":
        from nhzoo.scripted import ScriptedAgent

        return ScriptedAgent()
    if text == "autoascend":
        return autoascend()
    if text.startswith("hf://"):
        return _fetched(text)
    path = registry.find(text)
    if path is None and Path(source).is_dir():
        path = Path(source)
    if path is not None and (path / "bot.py").is_file() and not (path / "config.json").exists():
        return _bot_of_folder(path.resolve())
    if path is not None:
        from nhzoo import checkpoints

        return PolicyAgent(checkpoints.load_entry(path))
    module, colon, function = text.partition(":")
    if colon and "/" not in module:
        return _made(text, module, function)
    return _fetched(text)


def _fetched(text: str) -> PolicyAgent:
    """An entry from the hub; its weights and its self-test are checked as any other's."""
    pulled = registry.pull_entry(text)
    return PolicyAgent(registry.load_pulled(pulled), str(pulled.ref))


def _made(text: str, module: str, function: str) -> Agent:
    try:
        made = getattr(importlib.import_module(module), function)()
    except Exception as error:  # it is the user's code: anything may happen
        raise InputError(f"agent {text!r}: {type(error).__name__}: {error}") from error
    if isinstance(made, Agent):
        return made
    if not (hasattr(made, "reset") and hasattr(made, "act")) and not callable(made):
        raise InputError(f"agent {text!r}: has no initial_state and act; see nhzoo.Agent")
    if hasattr(made, "close"):
        with contextlib.suppress(Exception):
            made.close()
    name, revision = str(getattr(made, "name", text)), getattr(made, "revision", None)
    agent = BotAgent(BotSource(module, function), name, None if revision is None else str(revision))
    return _seeing(agent, getattr(made, "observation_keys", None))


def _bot_of_folder(folder: Path) -> BotAgent:
    """A bot by the folder of its code; its revision is a hash of the files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not any(p == "__pycache__" or p[0] == "." for p in inside.parts):
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{inside} {content}\n".encode())
    source = BotSource("bot", folder=str(folder))
    agent = BotAgent(source, folder.name, digest.hexdigest()[:16])
    return _seeing(agent, agent.probe())


def _seeing(agent: BotAgent, names: Any) -> BotAgent:
    """Give a bot the observations that it declares, if it declares any."""
    if names is not None:
        unknown = [name for name in names if name not in dict(NLE_SPACE_ITEMS)]
        if unknown:
            raise InputError(f"agent {agent.name!r}: NLE has no observation {unknown[0]!r}")
        agent.observation_keys = tuple(names)
    return agent


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
