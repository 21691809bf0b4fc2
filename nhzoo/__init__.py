"""nhzoo: neural NetHack agents, and knowing how they scale.

Importing it makes "nhzoo/Monk-v1" and "nhzoo/AllRoles-v1" known to `gymnasium.make` and
`gymnasium.make_vec`. The public names are imported when they are first used, so that `nhzoo --help`
does not wait for torch.
"""

from __future__ import annotations

import lazy_loader
from gymnasium.envs import registration

__version__ = "0.1.0"

__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted([*__all__, "register_envs"])


def __dir__() -> list[str]:
    return list(__all__)


def register_envs() -> None:
    """Make the environments known to `gymnasium.make`; safe to repeat.

    Called on import, and by gymnasiums that read the entry point `gymnasium.envs` (1.x does not).
    """
    for name, character in (("Monk", "mon-hum-neu-mal"), ("AllRoles", "@")):
        if f"nhzoo/{name}-v1" not in registration.registry:
            registration.register(
                id=f"nhzoo/{name}-v1",
                entry_point="nhzoo.envs:NetHackEnv",
                vector_entry_point="nhzoo.envs:NetHackVectorEnv",
                kwargs={"character": character},
            )


register_envs()
