"""Batches of demonstrations for training: many streams, each a game read from end to end.

More streams are open than a batch holds, and batches take turns among them, so that neighbouring
updates see other games while every stream's recurrent state is carried. The position can be saved
and restored exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nhzoo.envs import ACTION_KEYS, TTY
from nhzoo.errors import InputError
from nhzoo.frames import CHUNK, GameFrames

Array = np.ndarray[Any, Any]

ACTION_OF_KEY = np.full(256, -1, np.int64)
"""int64 [256]: the first action that presses a key, -1 for keys that no action presses."""
for _action in range(len(ACTION_KEYS) - 1, -1, -1):
    ACTION_OF_KEY[ACTION_KEYS[_action]] = _action


@dataclass(frozen=True)
class Batch:
    """T steps of B games; arrays are [T, B, ...].

    `chars`, `colors` [T, B, 24, 80], `cursor` [T, B, 2], `previous` (uint8, 0 at a game's start),
    `actions` (int64, -1 where a row has run out of frames or no action presses the key), `first`
    [B]: this row starts a game, its state is to be zeroed. `valid` counts the frames that are real.
    """

    chars: Array
    colors: Array
    cursor: Array
    previous: Array
    actions: Array
    first: Array
    valid: int


class _Reader:
    """Reads one game forward; holds one decoded chunk."""

    def __init__(self, path: Path, position: int = 0, limit: int | None = None) -> None:
        self.game = GameFrames(path)
        self.position = position
        self.length = min(self.game.length, limit or self.game.length)
        self._number = -1
        self._chunk: dict[str, Array] = {}

    def read(self, count: int) -> Iterator[tuple[dict[str, Array], int]]:
        """Give pieces (arrays, frames) that make up the next `count` frames, fewer at the end."""
        while count and self.position < self.length:
            number, offset = divmod(self.position, CHUNK)
            if number != self._number:
                self._chunk, self._number = self.game.chunk(number), number
            size = min(count, CHUNK - offset, self.length - self.position)
            yield {name: array[offset : offset + size] for name, array in self._chunk.items()}, size
            self.position += size
            count -= size


class Streams:
    """Endless training batches from packed games.

    `games` are read in an order shuffled anew each epoch. Streams begin spread evenly over the
    games, so that what they read first hardly overlaps.
    """

    def __init__(
        self, games: Sequence[Path], streams: int, batch: int, time: int, seed: int = 0
    ) -> None:
        if not games:
            raise InputError("no games to train on")
        if streams % batch:
            raise InputError(f"{streams} streams do not divide into batches of {batch}")
        self._games = list(games)
        self._batch, self._time, self._seed = batch, time, seed
        self._turn = 0
        self._taken = 0  # games handed to streams so far
        self._previous = np.zeros(streams, np.uint8)
        self._fresh = np.ones(streams, bool)
        self._order: tuple[int, Array] = (-1, np.empty(0, np.int64))
        self._at = np.zeros(streams, np.int64)  # each stream's game
        self._readers: list[_Reader] = []
        self._blocks = [np.zeros(-(-GameFrames(p).length // time), bool) for p in self._games]
        start = np.random.default_rng([seed, 1]).random(len(self._games))
        share = -(-streams // len(self._games))  # streams that begin in one game
        for stream in range(streams):
            reader = self._next_reader(stream)
            within = (stream // len(self._games) + start[self._at[stream]]) / share
            reader.position = int(within * reader.length) // time * time
            self._readers.append(reader)

    @property
    def unique_frames(self) -> int:
        """How many different frames have been read so far (padding of last blocks counted)."""
        return self._time * sum(int(np.count_nonzero(blocks)) for blocks in self._blocks)

    def next(self) -> tuple[Batch, slice]:
        """The next batch, and which streams its rows are."""
        groups = len(self._readers) // self._batch
        rows = slice(self._turn * self._batch, (self._turn + 1) * self._batch)
        self._turn = (self._turn + 1) % groups
        first = np.zeros(self._batch, bool)
        for row, stream in enumerate(range(rows.start, rows.stop)):
            if self._readers[stream].position >= self._readers[stream].length:
                self._readers[stream] = self._next_reader(stream)
                self._fresh[stream] = True
            first[row] = self._fresh[stream]
            self._fresh[stream] = False
            self._blocks[self._at[stream]][self._readers[stream].position // self._time] = True
        self._previous[rows][first] = 0
        return _gather(self._readers[rows], self._time, first, self._previous[rows]), rows

    def state(self) -> dict[str, Any]:
        """Where every stream stands, as plain JSON."""
        return {
            "turn": self._turn,
            "taken": self._taken,
            "games": self._at.tolist(),
            "positions": [reader.position for reader in self._readers],
            "previous": self._previous.tolist(),
            "fresh": self._fresh.tolist(),
            "blocks": np.packbits(np.concatenate(self._blocks)).tobytes().hex(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state` was taken."""
        self._turn, self._taken = state["turn"], state["taken"]
        self._at = np.array(state["games"], np.int64)
        self._previous = np.array(state["previous"], np.uint8)
        self._fresh = np.array(state["fresh"], bool)
        lengths = [len(blocks) for blocks in self._blocks]
        packed = np.frombuffer(bytes.fromhex(state["blocks"]), np.uint8)
        seen = np.unpackbits(packed, count=sum(lengths)).astype(bool)
        self._blocks = [part.copy() for part in np.split(seen, np.cumsum(lengths)[:-1])]
        self._readers = [
            _Reader(self._games[game], position)
            for game, position in zip(self._at, state["positions"], strict=True)
        ]

    def _next_reader(self, stream: int) -> _Reader:
        epoch, place = divmod(self._taken, len(self._games))
        if self._order[0] != epoch:
            order = np.random.default_rng([self._seed, 2, epoch]).permutation(len(self._games))
            self._order = epoch, order
        self._taken += 1
        self._at[stream] = self._order[1][place]
        return _Reader(self._games[self._at[stream]])


def count_frames(games: Sequence[Path]) -> int:
    """Frames of packed games together."""
    return sum(GameFrames(path).length for path in games)


def read_games(
    games: Sequence[Path], batch: int, time: int, limit: int | None = None
) -> Iterator[tuple[Batch, Array]]:
    """Every frame of `games` once (the first `limit` of each), for measuring.

    Rows that have no game left carry actions of -1. Gives (batch, index of each row's game).
    """
    queue = iter(range(len(games)))
    readers: list[_Reader | None] = [None] * batch
    at = np.full(batch, -1, np.int64)
    last = np.zeros(batch, np.uint8)
    while True:
        first = np.zeros(batch, bool)
        for row in range(batch):
            reader = readers[row]
            if reader is None or reader.position >= reader.length:
                at[row] = next(queue, -1)
                readers[row] = None if at[row] < 0 else _Reader(games[at[row]], 0, limit)
                first[row], last[row] = True, 0
        if all(reader is None for reader in readers):
            return
        yield _gather(readers, time, first, last), at.copy()


def _gather(readers: Sequence[_Reader | None], time: int, first: Array, last_keys: Array) -> Batch:
    """Read `time` frames from each reader; `last_keys` [B] is carried from call to call."""
    shape = (time, len(readers))
    chars = np.full((*shape, 24, 80), 32, np.uint8)
    colors = np.zeros((*shape, 24, 80), np.int8)
    cursor = np.zeros((*shape, 2), np.uint8)
    keys = np.zeros(shape, np.uint8)
    actions = np.full(shape, -1, np.int64)
    previous = np.zeros(shape, np.uint8)
    valid = 0
    for row, reader in enumerate(readers):
        start = 0
        for piece, size in reader.read(time) if reader else ():
            end = start + size
            for target, name in zip((chars, colors, cursor), TTY, strict=True):
                target[start:end, row] = piece[name]
            keys[start:end, row] = piece["keys"]
            actions[start:end, row] = ACTION_OF_KEY[piece["keys"]]
            start = end
        previous[0, row] = last_keys[row]
        previous[1:, row] = keys[:-1, row]
        valid += start
        if start:
            last_keys[row] = keys[start - 1, row]
    return Batch(chars, colors, cursor, previous, actions, first, valid)
