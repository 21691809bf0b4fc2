"""What actors play: games one after another, as screens, actions and rewards.

`World` is all that an actor asks of a game. NetHack's is here; `tiny_world` has one that is solved
in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nhzoo.envs import ACTION_KEYS, FINAL, TTY, Episode, Game
from nhzoo.errors import InputError
from nhzoo.protocols import GameSpec, seeds_of
from nhzoo.rewards import Potential
from nhzoo.unrolls import Finished

Array = np.ndarray[Any, Any]
_KEYS: list[int] = ACTION_KEYS.tolist()

NETHACK = "nethack"
KINDS = (NETHACK, "tiny-walk", "tiny-memory")


class World(Protocol):
    """One game after another; the screen is written into arrays of the caller's.

    These are tty_chars uint8 [24, 80], tty_colors int8 [24, 80], tty_cursor uint8 [2].
    """

    over: bool
    """The game has ended for good: a death, or it was voided."""

    cut: bool
    """It was cut short, and the screen is that after the last step."""

    def begin(self, number: int) -> None:
        """Begin game `number`, which decides all of it."""

    def step(self, action: int) -> float:
        """Do action 0 to 120; the reward."""

    def replay(self, actions: bytes) -> bool:
        """Do many, from the game's begin; False when it ends before or with the last."""

    def finished(self) -> Finished:
        """What the game that has ended came to."""

    def close(self) -> None:
        """Free what it holds."""


@dataclass(frozen=True)
class WorldConfig:
    """Which games are played: of NetHack, `character`, under limits as protocols have them.

    Their seeds come from SHA-256 of `nhzoo:play:<seed>:<actor>:<number>`, so no game of a protocol
    or of the expert's is among them. `discount` is for the extras, see `rewards.Potential`.
    """

    kind: str = NETHACK
    character: str = "mon-hum-neu-mal"
    step_cap: int = 100_000
    no_progress: int = 1_000
    seed: int = 0
    discount: float = 0.999
    extras: str = ""

    def __post_init__(self) -> None:
        GameSpec(core=0, disp=0, character=self.character)  # InputError where there is no such hero

    def make(self, actor: int, rows: Mapping[str, Array]) -> World:
        """A world of actor number `actor`, whose screens go into `rows`."""
        if self.kind == NETHACK:
            return NetHackWorld(self, actor, rows)
        from nhzoo.tiny_world import MemoryWorld, WalkWorld

        kinds = {"tiny-walk": WalkWorld, "tiny-memory": MemoryWorld}
        if self.kind not in kinds:
            raise InputError(f"--world {self.kind}: give one of {', '.join(KINDS)}")
        return kinds[self.kind](self, actor, rows)


class NetHackWorld:
    """NetHack; the reward of a step is what the score grew by, and the extras that were asked for.

    As in NLE the step that ends a game brings no score.
    """

    over = cut = False

    def __init__(self, config: WorldConfig, actor: int, rows: Mapping[str, Array]) -> None:
        self._config, self._actor = config, actor
        self._episode = Episode(Game(TTY, rows))
        self._potential = Potential.parse(config.extras)
        self._held = 0.0  # the potential of where the game stands

    def begin(self, number: int) -> None:
        """See `World`."""
        config = self._config
        core, disp = seeds_of(f"nhzoo:play:{config.seed}:{self._actor}:{number}")
        spec = GameSpec(core=core, disp=disp, character=config.character)
        self._episode.start(spec, config.step_cap, config.no_progress)
        self.over = self.cut = False
        self._held = self._potential.of(self._episode.result)

    def step(self, action: int) -> float:
        """See `World`."""
        before = self._episode.result.score
        if self._episode.step(_KEYS[action]):
            self._note_end()
        reward = self._episode.result.score - before
        if self._potential.weights:
            held = 0.0 if self.over else self._potential.of(self._episode.result)
            reward += self._config.discount * held - self._held
            self._held = held
        return reward

    def replay(self, actions: bytes) -> bool:
        """See `World`."""
        self._episode.play([_KEYS[action] for action in actions])
        if self._episode.result.end_status:
            self._note_end()
        self._held = self._potential.of(self._episode.result)
        return not (self.over or self.cut)

    def finished(self) -> Finished:
        """See `World`."""
        result = self._episode.result
        return Finished(result.score, result.steps, result.max_depth, self.cut)

    def close(self) -> None:
        """See `World`."""
        self._episode.game.close()

    def _note_end(self) -> None:
        self.over = self._episode.result.end_status in FINAL
        self.cut = not self.over
