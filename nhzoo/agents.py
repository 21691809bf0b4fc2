"""Agents: anything that maps observations to actions, and how to get one by name."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from collections.abc import Mapping
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
    from nhzoo import checkpoints

Array = np.ndarray[Any, Any]


@runtime_checkable
class Agent(Protocol):
    """All there is to implement.

    A state is an array, or tuples, lists and dicts of arrays, whose first axis is the batch: rows
    are replaced when a game ends and another begins.

    An agent that sees nothing, remembers nothing and chooses by `uniform` alone may say so with the
    attribute `blind = True`: its rows are then many steps of one game.
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
    """A zoo entry that plays. Deterministic for a given batch size on a given machine.

    Torch is imported with the entry, not with this module: workers of other agents do without.
    """

    observation_keys = TTY

    def __init__(self, entry: checkpoints.Entry, source: str | None = None) -> None:
        self.entry = entry
        self.name, self.revision = entry.name, entry.revision
        self.source = source  # where on the hub it is from, down to the commit
        self.last_logits: Array | None = None  # of the latest act: float32 [B, 121]
        self._arranged = False

    def initial_state(self, batch: int) -> tuple[Array, Array, Array]:
        """Hidden and cell state, float32 [batch, hidden], and recalls, uint16 [batch, 1897]."""
        from nhzoo import features

        hidden = self.entry.policy.config.hidden
        zeros = np.zeros((batch, hidden), np.float32)
        return zeros, zeros.copy(), features.no_recall(batch)

    def act(
        self, observation: Mapping[str, Array], state: Any, uniform: Array
    ) -> tuple[Array, tuple[Array, Array, Array]]:
        """See `Agent.act`; reads tty_chars, tty_colors and tty_cursor."""
        from nhzoo import walking

        logits, (h, c, recall) = self.logits(observation, state)
        self.last_logits = logits
        actions = sample(logits, uniform, self.entry.sampling.temperature)
        walking.press_each(recall, ACTION_KEYS[actions])
        return actions, (h, c, recall)

    def press(self, state: tuple[Array, Array, Array], row: int, key: int) -> None:
        """Another key was pressed in `row` than the one chosen: remember that one."""
        from nhzoo import walking

        state[2][row, walking.KEYS] = key

    def logits(
        self, observation: Mapping[str, Array], state: tuple[Array, Array, Array]
    ) -> tuple[Array, tuple[Array, Array, Array]]:
        """Logits, float32 [B, 121], and the next state, but for the key that is pressed now."""
        import torch

        from nhzoo import features
        from nhzoo.policy import to_tensors

        if not self._arranged:
            _arrange(self.entry.policy)
            self._arranged = True
        hidden, cell, recall = state[0], state[1], state[2].copy()
        chars, colors, cursor = (observation[name] for name in TTY)
        inputs = to_tensors(features.encode(chars, colors, cursor, recall), 1, len(recall))
        onednn: Any = torch.backends.mkldnn
        before = onednn.enabled
        onednn.enabled = False  # its LSTM sorts the weights at each call: a loss for one time step
        try:
            with torch.inference_mode():
                carried = torch.from_numpy(hidden)[None], torch.from_numpy(cell)[None]
                logits, (h, c) = self.entry.policy(inputs, carried)
        finally:
            onednn.enabled = before
        return logits[0].numpy(), (h[0].numpy(), c[0].numpy(), recall)


def _arrange(policy: Any) -> None:
    """Lay the weights out as small batches read them fastest: 1.2 times as fast altogether."""
    from torch import nn

    for module in policy.modules():
        if isinstance(module, (nn.Linear, nn.LSTM)):
            for weight in module.parameters():
                if weight.dim() == 2:  # the same numbers, those of an input side by side
                    weight.data = weight.data.t().contiguous().t()


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
    from nhzoo import checkpoints, hub_pull

    pulled = hub_pull.pull_entry(text)
    return PolicyAgent(checkpoints.load_entry(pulled.folder), str(pulled.ref))


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
