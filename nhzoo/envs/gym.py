"""NetHack as a Gymnasium environment: `nhzoo/Monk-v1` and `nhzoo/AllRoles-v1`."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import gymnasium
import numpy as np
from nle import nethack
from nle.env.base import NLE_SPACE_ITEMS
from nle.env.tasks import NetHackChallenge

from nhzoo.envs.actions import ACTION_KEYS, TTY
from nhzoo.envs.game import FINAL, Episode, Game
from nhzoo.envs.protocols import GameSpec, get_protocol
from nhzoo.errors import InputError

Array = np.ndarray[Any, Any]


class NetHackEnv(gymnasium.Env[dict[str, Array], np.int64]):
    """A fully seeded environment with NetHackChallenge's interface (121 keys, nothing skipped).

    `reset(seed=s)` decides the whole game, and the whole sequence of later `reset()` games.
    `reset(options={"protocol": id, "episode": i})` plays exactly that game of a protocol, under its
    limits; `options={"game": GameSpec(...)}` any game. A death is `terminated`, a capped or stalled
    game `truncated`; `info["end_status"]` names which. A game that enters explore or wizard mode,
    or is left, is voided: `terminated`, and its rewards sum to 0. Observations are copies.
    A process that is forked has no part in its parent's game: reset it there. InputError for an
    action that is none, and for a step before the first `reset` or after the end.
    """

    metadata = {"render_modes": ["ansi", "human"], "render_fps": 42}  # noqa: RUF012

    def __init__(
        self,
        character: str = "mon-hum-neu-mal",
        step_cap: int = 100_000,
        no_progress: int = 1_000,
        observation_keys: Iterable[str] | None = None,
        render_mode: str | None = None,
    ) -> None:
        names = tuple(observation_keys or _challenge_keys())
        spaces = dict(NLE_SPACE_ITEMS)
        for name in names:
            if name not in spaces:
                raise InputError(f"NLE has no observation {name!r}; it has {', '.join(spaces)}")
        GameSpec(core=0, disp=0, character=character)  # which is checked there
        if whole_number(step_cap, "step_cap") < 1 or whole_number(no_progress, "no_progress") < 1:
            raise InputError("step_cap and no_progress: give 1 or more")
        self.observation_space = gymnasium.spaces.Dict({name: spaces[name] for name in names})
        self.action_space = gymnasium.spaces.Discrete(len(ACTION_KEYS))
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise InputError(f"render_mode {render_mode!r}: choose ansi or human")
        self.render_mode = render_mode
        self._names = names
        self._character, self._limits = character, (step_cap, no_progress)
        # tty_* for render()
        self._episode = Episode(Game(dict.fromkeys((*names, *TTY))))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Begin a game. See the class for `options`."""
        super().reset(seed=seed)
        spec, limits = self._choose(options or {})
        self._episode.start(spec, *limits)
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[dict[str, Array], float, bool, bool, dict[str, Any]]:
        """Press the key of `action` (index in ACTION_KEYS). The reward is the score's increase."""
        self._check_begun("step")
        before, ended = self._episode.result.score, self._episode.result.end_status
        if ended:
            raise InputError(f"step: the game has ended ({ended}); call reset first")
        index = whole_number(action, "action")
        if not 0 <= index < len(ACTION_KEYS):
            raise InputError(f"action {index}: give an index from 0 to {len(ACTION_KEYS) - 1}")
        self._episode.step(int(ACTION_KEYS[index]))
        result = self._episode.result
        terminated = result.end_status in FINAL
        truncated = bool(result.end_status) and not terminated
        return self._observation(), result.score - before, terminated, truncated, self._info()

    @property
    def trace(self) -> tuple[GameSpec, bytes]:
        """The `GameSpec` of the current game, and the raw keys that NLE has received since."""
        self._check_begun("trace")
        spec = self._episode.game.spec
        assert spec is not None
        return spec, bytes(self._episode.game.keys)

    def render(self) -> str | None:  # type: ignore[override]
        """The screen with ANSI colours: returned for "ansi", printed for "human"."""
        self._check_begun("render")
        screen = nethack.tty_render(*(self._episode.game.observation[name] for name in TTY))
        if self.render_mode == "ansi":
            return str(screen)
        if self.render_mode == "human":
            print(screen)
        return None

    def close(self) -> None:
        """Free the game."""
        self._episode.game.close()

    def _check_begun(self, what: str) -> None:
        if not self._episode.game.started:
            raise InputError(f"{what}: no game is being played in this process; call reset first")

    def _choose(self, options: Mapping[str, Any]) -> tuple[GameSpec, tuple[int, int]]:
        unknown = set(options) - {"protocol", "episode", "game"}
        if unknown:
            raise InputError(f"reset options {sorted(unknown)}: known are protocol, episode, game")
        if "protocol" in options:
            protocol = get_protocol(options["protocol"])
            spec = protocol.game(whole_number(options.get("episode", 0), "reset option episode"))
            return spec, (protocol.step_cap, protocol.no_progress)
        if "episode" in options:
            raise InputError("reset option episode: needs the option protocol beside it")
        if "game" in options:
            if not isinstance(options["game"], GameSpec):
                raise InputError("reset option game: give a GameSpec")
            return options["game"], self._limits
        return draw_game(self.np_random, self._character), self._limits

    def _observation(self) -> dict[str, Array]:
        live = self._episode.game.observation
        return {name: live[name].copy() for name in self._names}

    def _info(self) -> dict[str, Any]:
        spec = self._episode.game.spec
        assert spec is not None
        info = asdict(self._episode.result)
        info["end_status"] = info["end_status"] or None
        return info | {"core": spec.core, "disp": spec.disp, "character": spec.character}


def draw_game(random: np.random.Generator, character: str) -> GameSpec:
    """The next game of a seeded environment: a seed decides all games, one draw after another."""
    core, disp = (int(seed) for seed in random.integers(0, 2**63, size=2))
    return GameSpec(core=core, disp=disp, character=character)


def whole_number(value: Any, what: str) -> int:
    """A whole number, of Python's or numpy's types; InputError for 3.7 and what else is none."""
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{what} {value!r}: give a whole number") from None


def _challenge_keys() -> tuple[str, ...]:
    """The observations that NLE's NetHackChallenge offers by default."""
    default = inspect.signature(NetHackChallenge.__init__).parameters["observation_keys"].default
    return tuple(default)
