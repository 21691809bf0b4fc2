"""Worlds of a few cells, in plain Python, whose best return is known: to see that all learns.

Their screens are NetHack's in small, so the policies and everything round them are the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nhzoo.envs import ACTION_KEYS
from nhzoo.unrolls import Finished
from nhzoo.walking import COL_STEP, MOVES, ROW_STEP

if TYPE_CHECKING:
    from nhzoo.worlds import WorldConfig

Array = np.ndarray[Any, Any]
_STATUS = b"Dlvl:1  $:0  HP:12(12) Pw:4(4) AC:4  Xp:1/0 T:"
_DIRECTION = {ord(key): d for d, key in enumerate(MOVES)}


class _TinyWorld:
    """What the two have in common: the screen, the clock, the limit."""

    limit = 1
    over = cut = False

    def __init__(self, config: WorldConfig, actor: int, rows: Mapping[str, Array]) -> None:
        self._seed = config.seed, actor
        self._chars, self._colors, self._cursor = (
            rows[name] for name in ("tty_chars", "tty_colors", "tty_cursor")
        )
        self._score, self._steps = 0.0, 0

    def begin(self, number: int) -> None:
        """See `worlds.World`."""
        self.over = self.cut = False
        self._score, self._steps = 0.0, 0
        self._start(np.random.default_rng([*self._seed, number]))

    def step(self, action: int) -> float:
        """See `worlds.World`."""
        self._steps += 1
        reward = self._act(int(ACTION_KEYS[action]))
        self._score += reward
        self.cut = not self.over and self._steps >= self.limit
        return reward

    def replay(self, actions: bytes) -> bool:
        """See `worlds.World`."""
        for action in actions:
            self.step(action)
        return not (self.over or self.cut)

    def finished(self) -> Finished:
        """See `worlds.World`."""
        return Finished(self._score, self._steps, 1, self.cut)

    def close(self) -> None:
        """See `worlds.World`."""

    def _start(self, random: np.random.Generator) -> None:
        raise NotImplementedError

    def _act(self, key: int) -> float:
        raise NotImplementedError

    def _draw(self, top: bytes, cells: Mapping[tuple[int, int], str], hero: Array) -> None:
        self._chars[:], self._colors[:] = ord(" "), 7
        self._chars[0, : len(top)] = np.frombuffer(top, np.uint8)
        for (row, col), char in cells.items():
            self._chars[row, col] = ord(char)
        self._chars[tuple(hero)] = ord("@")
        line = np.frombuffer(_STATUS + str(1 + self._steps).encode(), np.uint8)
        self._chars[23, : len(line)] = line
        self._cursor[:] = hero


class WalkWorld(_TinyWorld):
    """A room of 5 x 5 with stairs in it: stepping onto them is worth 1 and ends the game.

    The best return is 1, after as many steps as the larger of the two distances. Games are cut
    short after 12 steps.
    """

    limit = 12
    side = 5
    _CORNER = np.array([8, 38])

    def _start(self, random: np.random.Generator) -> None:
        hero, stairs = random.choice(self.side**2, 2, replace=False)
        self._hero = self._CORNER + divmod(hero, self.side)
        self._stairs = self._CORNER + divmod(stairs, self.side)
        self._show()

    def _act(self, key: int) -> float:
        direction = _DIRECTION.get(key)
        if direction is not None:
            to = self._hero + np.array([ROW_STEP[direction], COL_STEP[direction]])
            inside = to - self._CORNER
            if (inside >= 0).all() and (inside < self.side).all():
                self._hero = to
        self.over = bool((self._hero == self._stairs).all())
        self._show()
        return float(self.over)

    def _show(self) -> None:
        top, left = self._CORNER.tolist()
        room = {
            (top + row, left + col): "." for row in range(self.side) for col in range(self.side)
        }
        row, col = self._stairs
        self._draw(b"", room | {(int(row), int(col)): ">"}, self._hero)


class MemoryWorld(_TinyWorld):
    """A word is shown at first, and asked for three steps later: j for "down", k for "up".

    Until then nothing that is pressed matters. The right key is worth 1, any other 0, and the game
    is over: the best return is 1, and 1/2 without a memory.
    """

    limit = 10
    wait = 3

    def _start(self, random: np.random.Generator) -> None:
        self._down = bool(random.random() < 0.5)
        self._say(b"You hear: down." if self._down else b"You hear: up.")

    def _act(self, key: int) -> float:
        if self._steps <= self.wait:
            self._say(b"Answer now." if self._steps == self.wait else b"")
            return 0.0
        self.over = True
        self._say(b"")
        return float(key == ord("j" if self._down else "k"))

    def _say(self, text: bytes) -> None:
        self._draw(text, {}, np.array([10, 40]))
