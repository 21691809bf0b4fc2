"""nhzoo: neural NetHack agents, and knowing how they scale.

Importing it makes "nhzoo/Monk-v1" and "nhzoo/AllRoles-v1" known to `gymnasium.make`. The public
names are imported when they are first used, so that `nhzoo --help` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gymnasium.envs import registration

if TYPE_CHECKING:
    from nhzoo.agents import Agent, load
    from nhzoo.envs import NetHackEnv
    from nhzoo.errors import CheckFailed, InputError, NhzooError
    from nhzoo.evaluation import evaluate
    from nhzoo.protocols import PROTOCOLS, Protocol, get_protocol
    from nhzoo.registry import list_agents
    from nhzoo.verification import verify

__version__ = "0.1.0"

_HOME = {
    "Agent": "agents",
    "CheckFailed": "errors",
    "InputError": "errors",
    "NetHackEnv": "envs",
    "NhzooError": "errors",
    "PROTOCOLS": "protocols",
    "Protocol": "protocols",
    "evaluate": "evaluation",
    "get_protocol": "protocols",
    "list_agents": "registry",
    "load": "agents",
    "verify": "verification",
}
__all__ = [
    "PROTOCOLS",
    "Agent",
    "CheckFailed",
    "InputError",
    "NetHackEnv",
    "NhzooError",
    "Protocol",
    "evaluate",
    "get_protocol",
    "list_agents",
    "load",
    "register_envs",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nhzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"nhzoo.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def register_envs() -> None:
    """Make the environments known to `gymnasium.make`; safe to repeat.

    Called on import, and by gymnasiums that read the entry point `gymnasium.envs` (1.x does not).
    """
    for name, character in (("Monk", "mon-hum-neu-mal"), ("AllRoles", "@")):
        if f"nhzoo/{name}-v1" not in registration.registry:
            registration.register(
                id=f"nhzoo/{name}-v1",
                entry_point="nhzoo.envs:NetHackEnv",
                kwargs={"character": character},
            )


register_envs()
