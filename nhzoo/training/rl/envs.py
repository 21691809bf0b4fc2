"""The environments of actors: games one after another, as screens, actions and rewards.

`TrainEnv` is all that an actor asks of a game: NetHack's, and worlds of a few cells whose best
return is known, to see that all learns. Their screens are NetHack's in small, so the policies and
everything round them are the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nhzoo.envs.actions import ACTION_KEYS, TTY
from nhzoo.envs.game import FINAL, Episode, Game
from nhzoo.envs.protocols import GameSpec, seeds_of
from nhzoo.errors import InputError
from nhzoo.policy.memory import COL_STEP, MOVES, ROW_STEP
from nhzoo.training.rl.config import ENVIRONMENTS, NETHACK, ImpalaConfig, RewardShaping
from nhzoo.training.rl.rollouts import Finished

Array = np.ndarray[Any, Any]
_KEYS: list[int] = ACTION_KEYS.tolist()

_STATUS = b"Dlvl:1  $:0  HP:12(12) Pw:4(4) AC:4  Xp:1/0 T:"
_DIRECTION = {ord(key): d for d, key in enumerate(MOVES)}


class TrainEnv(Protocol):
    """One game after another; the screen is written into arrays of the caller's.

    These are tty_chars uint8 [24, 80], tty_colors int8 [24, 80], tty_cursor uint8 [2].
    """

    terminated: bool
    """The game has ended for good: a death, or it was voided."""

    truncated: bool
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
class TrainEnvConfig:
    """Which games are played: of NetHack, `character`, under limits as protocols have them.

    Their seeds come from SHA-256 of `nhzoo:play:<seed>:<actor>:<number>`, so no game of a protocol
    or of the expert's is among them. `discount` is for the extras, see `rewards.RewardShaping`.
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

    @classmethod
    def of(cls, config: ImpalaConfig) -> TrainEnvConfig:
        """The games that the actors of a run play."""
        return cls(
            config.world,
            config.character,
            config.step_cap,
            config.no_progress,
            config.seed,
            config.discount,
            config.extras,
        )

    def make(self, actor: int, rows: Mapping[str, Array]) -> TrainEnv:
        """A world of actor number `actor`, whose screens go into `rows`."""
        if self.kind == NETHACK:
            return NetHackTrainEnv(self, actor, rows)
        kinds = {"tiny-walk": WalkEnv, "tiny-memory": MemoryEnv}
        if self.kind not in kinds:
            raise InputError(f"--world {self.kind}: give one of {', '.join(ENVIRONMENTS)}")
        return kinds[self.kind](self, actor, rows)


class NetHackTrainEnv:
    """NetHack; the reward of a step is what the score grew by, and the extras that were asked for.

    As in NLE the step that ends a game brings no score.
    """

    terminated = truncated = False

    def __init__(self, config: TrainEnvConfig, actor: int, rows: Mapping[str, Array]) -> None:
        self._config, self._actor = config, actor
        self._episode = Episode(Game(TTY, rows))
        self._potential = RewardShaping.parse(config.extras)
        self._held = 0.0  # the potential of where the game stands

    def begin(self, number: int) -> None:
        """See `TrainEnv`."""
        config = self._config
        core, disp = seeds_of(f"nhzoo:play:{config.seed}:{self._actor}:{number}")
        spec = GameSpec(core=core, disp=disp, character=config.character)
        self._episode.start(spec, config.step_cap, config.no_progress)
        self.terminated = self.truncated = False
        self._held = self._potential.of(self._episode.result)

    def step(self, action: int) -> float:
        """See `TrainEnv`."""
        before = self._episode.result.score
        if self._episode.step(_KEYS[action]):
            self._note_end()
        reward = self._episode.result.score - before
        if self._potential.weights:
            potential = 0.0 if self.terminated else self._potential.of(self._episode.result)
            reward += self._config.discount * potential - self._held
            self._held = potential
        return reward

    def replay(self, actions: bytes) -> bool:
        """See `TrainEnv`."""
        self._episode.play([_KEYS[action] for action in actions])
        if self._episode.result.end_status:
            self._note_end()
        self._held = self._potential.of(self._episode.result)
        return not (self.terminated or self.truncated)

    def finished(self) -> Finished:
        """See `TrainEnv`."""
        result = self._episode.result
        return Finished(result.score, result.steps, result.max_depth, self.truncated)

    def close(self) -> None:
        """See `TrainEnv`."""
        self._episode.game.close()

    def _note_end(self) -> None:
        self.terminated = self._episode.result.end_status in FINAL
        self.truncated = not self.terminated


class _TinyEnv:
    """What the two have in common: the screen, the clock, the limit."""

    limit = 1
    terminated = truncated = False

    def __init__(self, config: TrainEnvConfig, actor: int, rows: Mapping[str, Array]) -> None:
        self._seed = config.seed, actor
        self._chars, self._colors, self._cursor = (
            rows[name] for name in ("tty_chars", "tty_colors", "tty_cursor")
        )
        self._score, self._steps = 0.0, 0

    def begin(self, number: int) -> None:
        """See `TrainEnv`."""
        self.terminated = self.truncated = False
        self._score, self._steps = 0.0, 0
        self._start(np.random.default_rng([*self._seed, number]))

    def step(self, action: int) -> float:
        """See `TrainEnv`."""
        self._steps += 1
        reward = self._act(int(ACTION_KEYS[action]))
        self._score += reward
        self.truncated = not self.terminated and self._steps >= self.limit
        return reward

    def replay(self, actions: bytes) -> bool:
        """See `TrainEnv`."""
        for action in actions:
            self.step(action)
        return not (self.terminated or self.truncated)

    def finished(self) -> Finished:
        """See `TrainEnv`."""
        return Finished(self._score, self._steps, 1, self.truncated)

    def close(self) -> None:
        """See `TrainEnv`."""

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


class WalkEnv(_TinyEnv):
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
        self.terminated = bool((self._hero == self._stairs).all())
        self._show()
        return float(self.terminated)

    def _show(self) -> None:
        top, left = self._CORNER.tolist()
        room = {
            (top + row, left + col): "." for row in range(self.side) for col in range(self.side)
        }
        row, col = self._stairs
        self._draw(b"", room | {(int(row), int(col)): ">"}, self._hero)


class MemoryEnv(_TinyEnv):
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
        self.terminated = True
        self._say(b"")
        return float(key == ord("j" if self._down else "k"))

    def _say(self, text: bytes) -> None:
        self._draw(text, {}, np.array([10, 40]))
