"""AutoAscend, the symbolic bot that won the NetHack Challenge of 2021, as an agent.

Its code comes with the package `nethackers` (extra `expert`) and is imported in the processes of
its games only.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nhzoo.agents.bots import CHALLENGE_KEYS, BotAgent, BotEnv, BotSource, GameEnded
from nhzoo.errors import InputError

OBSERVATIONS = tuple(
    name for name in CHALLENGE_KEYS if name not in ("chars", "colors", "tty_colors")
)
"""What AutoAscend looks at."""

_COMPILED = ("runtime.kernels", "agents.autoascend_speed")
_TURN = 20  # where the turn is in NLE's blstats, which this module does not import
_NEEDED = ("nethackers", "cv2", "nltk", "numba", "scipy", "toolz")


def autoascend(step_seconds: float = 60.0, game_seconds: float | None = None) -> BotAgent:
    """AutoAscend as an agent; its revision is the version of `nethackers`."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise InputError("agent 'autoascend' is an extra: pip install 'nhzoo[expert]'")
    source = BotSource(__name__, "make_player", prepare="prepare")
    return BotAgent(
        source, "autoascend", version("nethackers"), OBSERVATIONS, step_seconds, game_seconds
    )


def prepare() -> None:
    """Import AutoAscend, single-threaded and without the warnings of its arithmetic."""
    spec = importlib.util.find_spec("nethackers")
    assert spec is not None and spec.origin is not None
    sys.path.insert(0, str(Path(spec.origin).parent / "roots" / "autoascend"))
    warnings.simplefilter("ignore")
    # They bring numba, for this process alone.
    kernels, speed = (importlib.import_module(f"nhzoo.{name}") for name in _COMPILED)
    kernels.adopt()
    importlib.import_module("cv2").setNumThreads(1)
    if version("nethackers") == speed.VERSION:
        speed.install()
    else:
        importlib.import_module("autoascend.agent")


def make_player() -> Callable[[BotEnv], None]:
    """The blocking player; in a process where `prepare` was called."""
    return play


def play(env: BotEnv) -> None:
    """Play one game to its end. Exceptions of AutoAscend are raised."""
    agent = importlib.import_module("autoascend.agent")
    player = agent.Agent(_Adapter(env, agent.AgentFinished), panic_on_errors=False)
    turn = int(env.observation["blstats"][_TURN])
    if turn > 1:  # it takes over: whoever played before may have prayed just now
        player.last_prayer_turn = turn
    player.main()


class _Adapter:
    """The environment as AutoAscend expects it: stepped by keys, with hooks for drawing."""

    def __init__(self, env: BotEnv, finished: type[Exception]) -> None:
        actions = importlib.import_module("nle.nethack").ACTIONS
        self._indices = {int(action): index for index, action in enumerate(actions)}
        self._env, self._finished = env, finished

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, dict[str, Any]]:
        """Press the key `action`."""
        try:
            return self._env.step(self._indices[int(action)]), 0.0, False, {}
        except GameEnded:
            raise self._finished from None

    def debug_tiles(self, *args: Any, **kwargs: Any) -> contextlib.AbstractContextManager[None]:
        """Draw nothing."""
        return contextlib.nullcontext()

    debug_log = debug_tiles
