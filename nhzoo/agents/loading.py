"""Loading an agent: built in, of the zoo, from a folder, from the hub, or your own code."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from pathlib import Path
from typing import Any

from nle.env.base import NLE_SPACE_ITEMS

from nhzoo.agents import registry
from nhzoo.agents.autoascend import autoascend
from nhzoo.agents.base import (
    Agent,
    AgentTraits,
    FrequencyAgent,
    PolicyAgent,
    RandomAgent,
    traits,
)
from nhzoo.agents.bots import BotAgent, BotSource
from nhzoo.errors import InputError
from nhzoo.policy import checkpoint


def load(source: str | Path) -> Agent:
    """Load an agent: a name, a folder, "hf://org/repo@revision", or "package.module:make_agent".

    A name is looked for in the registry and then on the hub, in the zoo's organisation; with
    "@revision", on the hub alone. What was fetched once is loaded without a request when the
    revision is a commit, or HF_HUB_OFFLINE is set. Entries run no code, from wherever they are.

    "package.module:make_agent" runs the code of that module; what it makes is an `Agent`, or a bot
    or blocking player (see `nhzoo.agents.bots`), which then plays in processes of its own. So does
    a bot from a folder whose `bot.py` defines `make_agent()`.
    """
    text = str(source)
    if text == "random":
        return RandomAgent()
    if text == "frequency":
        return FrequencyAgent()
    if text == "scripted":
        from nhzoo.agents.scripted import ScriptedAgent

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
        return PolicyAgent(checkpoint.load_entry(path))
    module, colon, function = text.partition(":")
    if colon and "/" not in module:
        return _made(text, module, function)
    return _fetched(text)


def load_with_traits(agent: str | Path | Agent) -> tuple[Agent, AgentTraits]:
    """An agent by what `load` takes, or one that is loaded already, and what it says of itself."""
    if not isinstance(agent, (str, Path)):
        return agent, traits(agent)
    loaded = load(agent)
    return loaded, traits(loaded, str(agent))


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
    bot = traits(made, text)
    revision = None if bot.revision is None else str(bot.revision)
    agent = BotAgent(BotSource(module, function), bot.name, revision)
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
