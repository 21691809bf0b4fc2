"""The work of an evaluation's worker: one agent plays a batch of games side by side."""

from __future__ import annotations

import mmap
import operator
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nle import nethack

from nhzoo.agents.base import Agent, Array, set_row, traits
from nhzoo.agents.bot_process import one_line
from nhzoo.agents.takeover import DONE
from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.envs.game import MAX_DISMISSALS, Episode, EpisodeResult, Game, blank
from nhzoo.envs.protocols import Protocol
from nhzoo.errors import NhzooError
from nhzoo.runtime import pool
from nhzoo.runtime.pool import OneByOne, left_behind

_AHEAD = 256  # uniforms drawn at once; steps that a blind agent is asked for
_KEYS: list[int] = ACTION_KEYS.tolist()
_NEWS_SECONDS = 0.5
_Mark = Callable[..., None]

AGENT_SECONDS = 600.0
"""What an agent that plays in the worker's own process may take for one step of all its games."""

_HANG_SECONDS = 120.0  # for one step of NLE: microseconds, but for a game that will never end


class PlayTask:
    """Plays up to `batch` games at once with one copy of the agent, in a worker process.

    When the agent raises, nobody knows for which game: those of the batch are begun anew and
    played one after another, and the game in which it raises alone is recorded as crashed.

    A blind agent plays one game at a time, its rows many steps of it. When it raises, the game is
    begun anew and played step by step.
    """

    def __init__(self, agent: Agent, protocol: Protocol, batch: int) -> None:
        if "torch" in sys.modules:  # the agent came with it
            sys.modules["torch"].set_num_threads(1)
        self._agent, self._protocol = agent, protocol
        self._traits = traits(agent)
        names, self._blind = self._traits.observation_keys, self._traits.blind
        self.slots, rows = (1, _AHEAD) if self._blind else (batch, batch)
        self.rows = rows  # of each `act`: games, or steps ahead of a blind agent's only game
        self._screens = blank(names, self.slots)  # NLE writes here; most agents get copies
        self._observation = self._screens if self._traits.rows else blank(names, rows)
        self._uniform = np.full(rows, 0.5)
        self._episodes = [Episode(Game(names, self._row(i))) for i in range(self.slots)]
        self._index: list[int | None] = [None] * self.slots
        self._uniforms: list[np.random.Generator | None] = [None] * self.slots
        self._draws: list[Iterator[float]] = [iter(())] * self.slots
        self._journals: dict[int, tuple[Path, mmap.mmap]] = {}
        self._loops = [_Loop(protocol.max_loop) for _ in range(self.slots)]
        self._alone: list[int] = []  # slots that are played one after another
        self._state = agent.initial_state(rows)
        self._steps, self._told = 0, time.monotonic()

    def start(self, key: Hashable, item: Any) -> None:
        """Put game `key` into a free slot."""
        assert isinstance(key, int)
        slot = self._index.index(None)
        self._index[slot] = key
        self._uniforms[slot] = None  # begun in advance(), where a crash is attributed

    def advance(self, mark: _Mark) -> Iterable[tuple[Hashable, Any]]:
        """One step in every game. Results are (EpisodeResult, keys); news is a number of steps."""
        active = self._alone[:1] or [slot for slot, i in enumerate(self._index) if i is not None]
        for slot in active:
            if self._uniforms[slot] is None:
                self._begin(slot, mark)
        self._observe(active)
        first, only = self._index[active[0]], self._episodes[active[0]].result
        if len(active) > 1:
            mark(-1, 0, 0)  # what happens in the agent is no game's fault
        else:
            mark(first, only.score, only.steps, 1)
        if self._traits.rows:
            self._agent.rows = active  # type: ignore[attr-defined]
        try:
            actions, self._state = self._agent.act(self._observation, self._state, self._uniform)
            if self._blind and not self._alone:
                chosen = [_actions(actions)]
            else:
                # Python's own integers, several times faster than an array's
                listed = actions.tolist() if isinstance(actions, np.ndarray) else actions
                chosen = [_action(listed[slot]) for slot in active]
        except NhzooError:
            raise  # it cannot be used at all
        except Exception as error:  # it may be anybody's code
            if len(active) > 1 or (self._blind and not self._alone):
                self._play_alone(active)
                return []
            return [self._finish(active[0], f"agent raised {type(error).__name__}: {error}")]
        finished = []
        for slot, steps in zip(active, chosen, strict=True):
            index, result = self._index[slot], self._episodes[slot].result
            assert index is not None
            mark(index, result.score, result.steps)
            before = result.steps
            if not steps:
                failure = traits(self._agent).failure or "the agent gave no action"
                finished.append(self._finish(slot, failure))
            elif self._play(slot, steps):
                finished.append(self._finish(slot))
            elif self._protocol.max_loop and self._loops[slot].stays(self._episodes[slot]):
                finished.append(self._finish(slot, LOOPED))
            self._steps += result.steps - before
        if time.monotonic() - self._told > _NEWS_SECONDS:
            finished.append((None, self._steps))  # type: ignore[arg-type]
            self._steps, self._told = 0, time.monotonic()
        return finished

    def games(self) -> Iterator[tuple[int, Episode]]:
        """The games that are being played, by index."""
        for slot, index in enumerate(self._index):
            if index is not None and self._uniforms[slot] is not None:
                yield index, self._episodes[slot]

    def _begin(self, slot: int, mark: _Mark) -> None:
        index, protocol = self._index[slot], self._protocol
        assert index is not None
        mark(index, 0, 0)
        journal = self._journal(slot, index)
        episode = self._episodes[slot]
        episode.start(protocol.game(index), protocol.step_cap, protocol.no_progress)
        self._loops[slot].begin()
        journal.write(episode.game.keys)
        stream = self._uniforms[slot] = protocol.uniforms(index)
        self._draws[slot] = _one_by_one(stream)
        mark(index, 0, 0, 1)
        if self._alone:
            self._state = self._agent.initial_state(len(self._uniform))
        else:
            set_row(self._state, slot, self._agent.initial_state(1))

    def _play(self, slot: int, actions: Sequence[int]) -> bool:
        """Press the keys of `actions`, one after another; True when the game is over."""
        episode = self._episodes[slot]
        keys = [_KEYS[action] for action in actions]
        episode.play(keys, self._journals[slot][1].write_byte)
        return bool(episode.result.end_status)

    def _finish(self, slot: int, failure: str = "") -> tuple[int, tuple[EpisodeResult, bytes]]:
        """The result of the game in `slot`, which is over or in which its agent has failed."""
        index, episode = self._index[slot], self._episodes[slot]
        assert index is not None
        if failure:
            late = failure == LOOPED or traits(self._agent).timed_out
            episode.result.end_status = "stalled" if late else "crashed"
            episode.result.cause = one_line(failure)
            if failure == DONE:
                episode.result.end_status, episode.result.cause = "step_cap", ""
        self._traits.end_game()
        self._index[slot] = None
        self._alone = self._alone[1:]
        return index, (episode.result, bytes(episode.game.keys))

    def _play_alone(self, slots: list[int]) -> None:
        self._alone = slots
        for slot in slots:
            self._uniforms[slot] = None

    def _observe(self, active: list[int]) -> None:
        """Fill the agent's batch: what it sees, and the uniforms of the next steps."""
        if self._blind and not self._alone:
            stream = self._uniforms[0]
            assert stream is not None
            stream.random(out=self._uniform)
            return
        if not self._traits.rows:
            for name, screens in self._screens.items():
                np.copyto(self._observation[name], screens)
        for slot in active:
            self._uniform[slot] = next(self._draws[slot])
        if self._alone and not self._traits.rows:  # nothing of another game may be to blame
            for batch in (*self._observation.values(), self._uniform):
                batch[:] = batch[active[0]]

    def _journal(self, slot: int, index: int) -> mmap.mmap:
        """The empty file that the keys of game `index` go to. Slots keep theirs: it is large."""
        path = left_behind(index)
        if slot in self._journals:
            before, journal = self._journals[slot]
            journal[: journal.tell()] = bytes(journal.tell())
            journal.seek(0)
            before.rename(path)
        else:
            with open(path, "w+b") as file:
                file.truncate(MAX_DISMISSALS + self._protocol.step_cap)
                journal = mmap.mmap(file.fileno(), 0)
        self._journals[slot] = path, journal
        return journal

    def _row(self, slot: int) -> dict[str, Array]:
        return {name: screens[slot] for name, screens in self._screens.items()}


LOOPED = "went round in a loop"
"""Why a game was stopped, see `Protocol.max_loop`; its end status is "stalled"."""

_SQUARES = 3
_WHERE = (nethack.NLE_BL_X, nethack.NLE_BL_Y, nethack.NLE_BL_DNUM, nethack.NLE_BL_DLEVEL)
_GAINS = (
    *(nethack.NLE_BL_SCORE, nethack.NLE_BL_EXP, nethack.NLE_BL_XP),
    *(nethack.NLE_BL_GOLD, nethack.NLE_BL_HPMAX),
)


class _Loop:
    """Since when a hero has been on few squares and gained nothing."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self.begin()

    def begin(self) -> None:
        """A new game."""
        self._since, self._gained = 0, ()
        self._squares: set[tuple[int, ...]] = set()

    def stays(self, episode: Episode) -> bool:
        """Note where the game is; True when it is in a loop."""
        stats, steps = episode.game.observation["blstats"].data, episode.result.steps
        square = tuple([stats[i] for i in _WHERE])
        gained = tuple([stats[i] for i in _GAINS])
        elsewhere = square not in self._squares and len(self._squares) == _SQUARES
        if elsewhere or gained != self._gained:
            self._since, self._gained, self._squares = steps, gained, {square}
            return False
        self._squares.add(square)
        return self._most is not None and steps - self._since >= self._most


def _one_by_one(stream: np.random.Generator) -> Iterator[float]:
    """The uniforms of a stream, drawn in blocks: the same, several times faster."""
    while True:
        yield from stream.random(_AHEAD).tolist()


def _action(chosen: Any) -> list[int]:
    """An agent's action index; nothing for -1: it failed, or its time is up."""
    action = operator.index(chosen)
    if not -1 <= action < len(_KEYS):
        raise ValueError(f"it chose {action}, not an action index from 0 to {len(_KEYS) - 1}")
    return [] if action < 0 else [action]


def _actions(chosen: Any) -> list[int]:
    """A blind agent's actions. ValueError for those that had better be looked at one by one."""
    actions = np.asarray(chosen)
    if actions.shape != (_AHEAD,) or actions.dtype.kind not in "iu":
        raise ValueError("it did not choose an action index in each row")
    if actions.min() < 0 or actions.max() >= len(_KEYS):
        raise ValueError("it chose what is no action index")
    return list(actions.tolist())


def run_games(
    make_task: Callable[..., PlayTask],
    args: tuple[Any, ...],
    items: Sequence[tuple[int, Any]],
    workers: int,
    agent_seconds: float = AGENT_SECONDS,
) -> Iterator[tuple[Hashable, Any]]:
    """Play games on `workers` processes; as `pool.run_tasks`.

    `args` begin with those of `PlayTask`. Every worker has something to do: it is handed no more
    games at once than that leaves. An agent with limits of its own has no other.
    """
    agent, _, batch = args[:3]
    slots = min(batch, max(1, -(-len(items) // workers)))
    limit = None if traits(agent).limits else agent_seconds
    return pool.run_tasks(make_task, args, items, workers, slots, _HANG_SECONDS, limit)


class StateTask(OneByOne):
    """Finds the state of a game when NLE ended it: an item is (index, keys until then)."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._episode = Episode(Game(()))

    def work(self, item: tuple[int, bytes]) -> EpisodeResult:
        """The result after the last key."""
        (index, keys), protocol = item, self._protocol
        self._episode.start(protocol.game(index), protocol.step_cap, protocol.no_progress)
        self._episode.play(keys[len(self._episode.game.keys) :])
        return self._episode.result
