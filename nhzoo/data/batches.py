"""Batches of demonstrations for training: many streams, each reads whole games in order.

More streams are open than a batch holds, and batches take turns among them, so that neighbouring
updates see other games while every stream's recurrent state is carried. The position can be saved
and restored exactly, by another number of processes too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numba
import numpy as np

from nhzoo.data.frames import FrameReader, GameFrames, apply, frames_in
from nhzoo.envs.actions import ACTION_OF_KEY, TTY
from nhzoo.errors import InputError
from nhzoo.policy import features, memory
from nhzoo.policy.config import COLS, PREPROCESSING, ROWS
from nhzoo.policy.features import Features
from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]
_LATEST = memory.KEYS
_BEFORE = 2_048
"""Frames that are read before the first that is to be learnt: state and recall are of these."""
FIRST, ANYWHERE = "first", "anywhere"
View = Literal["policy", "screens"]
"""What batches hold: what nhzoo's policies read, or whole screens for networks of your own."""


@dataclass(frozen=True)
class Batch:
    """T steps of B games; arrays are [T, B, ...].

    `inputs` by name: the arrays of `features.Features`, or for whole screens tty_chars (uint8) and
    tty_colors (int8) [T, B, 24, 80], tty_cursor [T, B, 2] and previous_key (uint8, 0 at a game's
    start). `actions` int64, -1 where a row has run out of frames, no action presses the key, or the
    key is not the expert's to learn from (`Trace.expert_from`);
    `first` [B]: this row starts a game, its state is to be zeroed. `valid` counts real frames.
    """

    inputs: dict[str, Array]
    actions: Array
    first: Array
    valid: int


class Streams:
    """Endless training batches from packed games.

    Streams begin spread evenly over all frames (`starts` anywhere), so that what they read first
    does not overlap, or at the first frame of a game (first), so that no state ever begins in the
    middle of one. Then each takes the next game of an order shuffled anew each epoch. With `shard`
    = (rank, world) the batches are those rows of the whole batch that are this process's: every
    process follows all streams and reads its own, so `world` processes together read what one
    would. `part` = (i, n) leaves the i-th of n parts, as equal as can be, of these rows.
    `version` is that of the features.
    """

    def __init__(
        self,
        games: Sequence[Path],
        streams: int,
        batch: int,
        time: int,
        seed: int = 0,
        view: View = "policy",
        shard: tuple[int, int] = (0, 1),
        starts: str = ANYWHERE,
        part: tuple[int, int] = (0, 1),
        version: int = PREPROCESSING,
    ) -> None:
        rank, world = shard
        if streams % batch:
            raise InputError(f"{streams} streams do not divide into batches of {batch}")
        if not 0 <= rank < world or batch % world:
            raise InputError(f"a batch of {batch} rows does not divide among {world} processes")
        _need_keys(games)
        self._games = list(games)
        self._lengths = np.array([frames_in(path) for path in games], np.int64)
        learnt = np.array([GameFrames(path).expert_from for path in games], np.int64)
        self._starts = np.maximum(0, learnt - _BEFORE) // time * time
        self._batch, self._time, self._seed, self._view = batch, time, seed, view
        self._version = version
        rows = batch // world
        ends = [rank * rows + rows * (part[0] + end) // part[1] for end in (0, 1)]
        self._rows = slice(*ends)
        self._within = ends[0] - rank * rows  # of the first of them
        self._turn = 0
        self._taken = 0  # games handed to streams so far
        self._order: tuple[int, Array] = (-1, np.empty(0, np.int64))
        self._blocks = [np.zeros(-(-length // time), bool) for length in self._lengths]
        totals = np.cumsum(self._lengths)
        random = np.random.default_rng([seed, 1])
        places = (random.permutation(streams) + random.random()) * (int(totals[-1]) / streams)
        self._at = np.searchsorted(totals, places.astype(np.int64), side="right")  # streams' games
        begins = totals[self._at] - self._lengths[self._at]
        self._position = (places.astype(np.int64) - begins) // time * time
        self._begin = self._position.copy()  # where each stream began to read its game
        self._fresh = np.ones(streams, bool)
        self._readers: list[_Reader | None] = [None] * streams
        if starts == FIRST:
            for stream in range(streams):
                self._take_game(stream)

    @property
    def unique_frames(self) -> int:
        """How many different frames all processes have read so far (last blocks rounded up)."""
        return self._time * sum(int(np.count_nonzero(blocks)) for blocks in self._blocks)

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and rows of a batch."""
        return self._time, self._rows.stop - self._rows.start

    def next(self, into: tuple[Features, Array] | None = None) -> tuple[Batch, slice]:
        """The next batch, and which streams its rows are.

        `into`: features and actions [T, B, ...] of all rows, of which a part fills its own.
        """
        rows, first = self._turn_to()
        readers = [self._reader(stream) for stream in range(rows.start, rows.stop)]
        batch = _gather(readers, self._time, first, self._view, into, self._within)
        self._move_on()
        return batch, rows

    def skip(self) -> tuple[Array, slice]:
        """Stand behind the next batch without reading it: its `first` and streams are given."""
        rows, first = self._turn_to()
        start = self._turn * self._batch
        self._readers[start : start + self._batch] = [None] * self._batch
        self._move_on()
        return first, rows

    def _turn_to(self) -> tuple[slice, Array]:
        """Give streams that have ended a game; which streams are read now, which start a game."""
        start = self._turn * self._batch
        first = np.zeros(self._batch, bool)
        for row, stream in enumerate(range(start, start + self._batch)):
            if self._position[stream] >= self._lengths[self._at[stream]]:
                self._take_game(stream)
            first[row] = self._fresh[stream]
            self._blocks[self._at[stream]][self._position[stream] // self._time] = True
        return slice(start + self._rows.start, start + self._rows.stop), first[self._rows]

    def _move_on(self) -> None:
        whole = slice(self._turn * self._batch, (self._turn + 1) * self._batch)
        self._fresh[whole] = False
        self._position[whole] += self._time
        self._turn = (self._turn + 1) % (len(self._readers) // self._batch)

    def state(self) -> dict[str, Any]:
        """Where every stream stands, as plain JSON; the same in every process."""
        return {
            "turn": self._turn,
            "taken": self._taken,
            "games": self._at.tolist(),
            "begins": self._begin.tolist(),
            "positions": self._position.tolist(),
            "fresh": self._fresh.tolist(),
            "blocks": np.packbits(np.concatenate(self._blocks)).tobytes().hex(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state` was taken, as any one of any number of processes."""
        self._turn, self._taken = state["turn"], state["taken"]
        self._at = np.array(state["games"], np.int64)
        self._begin = np.array(state["begins"], np.int64)
        self._position = np.array(state["positions"], np.int64)
        self._fresh = np.array(state["fresh"], bool)
        lengths = [len(blocks) for blocks in self._blocks]
        packed = np.frombuffer(bytes.fromhex(state["blocks"]), np.uint8)
        seen = np.unpackbits(packed, count=sum(lengths)).astype(bool)
        self._blocks = [part.copy() for part in np.split(seen, np.cumsum(lengths)[:-1])]
        self._readers = [None] * len(self._readers)

    def _take_game(self, stream: int) -> None:
        epoch, place = divmod(self._taken, len(self._games))
        if self._order[0] != epoch:
            order = np.random.default_rng([self._seed, 2, epoch]).permutation(len(self._games))
            self._order = epoch, order
        self._taken += 1
        self._at[stream] = self._order[1][place]
        self._begin[stream] = self._position[stream] = self._starts[self._at[stream]]
        self._fresh[stream] = True
        self._readers[stream] = None

    def _reader(self, stream: int) -> _Reader:
        reader = self._readers[stream]
        if reader is None:
            path, begin = self._games[self._at[stream]], int(self._begin[stream])
            remembers = self._view == "policy"
            reader = _Reader(path, begin, remembers=remembers, version=self._version)
            self._readers[stream] = reader
            reader.skip(int(self._position[stream]) - begin)  # restored: what it has read before
        return reader


def count_frames(games: Sequence[Path], limit: int | None = None) -> int:
    """Frames of packed games together, of each the first `limit`."""
    lengths = [frames_in(path) for path in games]
    return sum(lengths if limit is None else (min(length, limit) for length in lengths))


def read_games(
    games: Sequence[Path],
    batch: int,
    time: int,
    limit: int | None = None,
    view: View = "policy",
    version: int = PREPROCESSING,
) -> Iterator[tuple[Batch, Array]]:
    """Every frame of `games` once (the first `limit` of each), for measuring.

    Rows that have no game left carry actions of -1. Gives (batch, index of each row's game).
    """
    _need_keys(games)
    queue = iter(range(len(games)))
    readers: list[_Reader | None] = [None] * batch
    at = np.full(batch, -1, np.int64)
    while True:
        first = np.zeros(batch, bool)
        for row in range(batch):
            reader = readers[row]
            if reader is None or reader.left == 0:
                at[row] = next(queue, -1)
                readers[row] = (
                    None if at[row] < 0 else _Reader(games[at[row]], 0, limit, version=version)
                )
                first[row] = True
        if all(reader is None for reader in readers):
            return
        yield _gather(readers, time, first, view), at.copy()


class _Reader:
    """A game read forward, and what is recalled of it from where reading began."""

    def __init__(
        self,
        path: Path,
        begin: int,
        limit: int | None = None,
        remembers: bool = True,
        version: int = PREPROCESSING,
    ) -> None:
        self.frames = FrameReader(GameFrames(path), begin)
        self.recall = features.no_recall(1, version)[0]
        self._remembers = remembers
        self._end = min(self.frames.game.length, limit or self.frames.game.length)
        fields: Any = self.frames.game.layout.fields
        self._starts = np.array([fields[name][1] for name in (*TTY, "keys")], np.int64)

    @property
    def left(self) -> int:
        """Frames that are still to be read."""
        return max(0, self._end - self.frames.position)

    @property
    def last_key(self) -> int:
        """The key before the next frame, 0 where reading began."""
        return int(self.recall[memory.KEYS])

    def read(self, kernel: Any, out: tuple[Any, ...], keys: Array, row: int) -> int:
        """Fill row `row` of the arrays `out` [T, B, ...] and `keys` [T, B]; returns how many."""
        done = 0
        for chunk, first, size in self.frames.pieces(min(len(keys), self.left)):
            kernel(*chunk, first, size, self._starts, self.recall, *out, keys, done, row)
            done += size
        return done

    def skip(self, frames: int) -> None:
        """Go on by `frames`, taking in what is to be recalled of them."""
        if not self._remembers and frames:
            self.frames.position += frames - 1
            frames = 1
        for chunk, first, size in self.frames.pieces(frames):
            _skip(*chunk, first, size, self._starts, self.recall)  # type: ignore[call-arg]


def _need_keys(games: Sequence[Path]) -> None:
    if not games:
        raise InputError("no games to train on")
    if not GameFrames(games[0]).meta.get("has_keys", True):
        raise InputError(f"{games[0]}: holds no key presses, so there is nothing to imitate")


def _gather(
    readers: Sequence[_Reader | None],
    time: int,
    first: Array,
    view: View,
    into: tuple[Features, Array] | None = None,
    begin: int = 0,
) -> Batch:
    """Read `time` frames from each reader, into the rows from `begin` on of what there is."""
    rows = begin + len(readers)
    kernel: Any
    out: tuple[Any, ...]
    seen = None
    if view == "policy":
        seen, actions = into or (Features.empty(time, rows), np.empty((time, rows), np.int64))
        rows = actions.shape[1]
    keys = np.zeros((time, rows), np.uint8)
    if seen is not None:
        inputs = dict(vars(seen))
        out = np.zeros((4, memory.CELLS), np.int32), features.Frames(**inputs)
        kernel = _read_features
    else:
        cells = (time, rows, ROWS * COLS)
        out = tuple(np.empty(shape, np.uint8) for shape in (cells, cells, (time, rows, 2)))
        previous, kernel = np.zeros((time, rows), np.uint8), _read_screens
        screen = (time, rows, ROWS, COLS)
        shaped = out[0].reshape(screen), out[1].view(np.int8).reshape(screen), out[2]
        inputs = dict(zip(TTY, shaped, strict=True)) | {"previous_key": previous}
        actions = np.empty((time, rows), np.int64)
    actions[:, begin : begin + len(readers)] = -1
    valid = 0
    for row, reader in enumerate(readers, begin):
        if seen is None:
            previous[0, row] = reader.last_key if reader else 0
        begun = reader.frames.position if reader else 0
        count = reader.read(kernel, out, keys, row) if reader else 0
        if count < time and seen is not None:
            seen.clear(row, count)
        elif count < time:
            for array, blank in zip(out, (32, 0, 0), strict=True):
                array[count:, row] = blank
        actions[:count, row] = ACTION_OF_KEY[keys[:count, row]]
        if reader and reader.frames.game.expert_from > begun:
            actions[: reader.frames.game.expert_from - begun, row] = -1
        valid += count
    if seen is None:
        previous[1:] = keys[:-1]
    return Batch(inputs, actions, first, valid)


@kernels.njit()
def _read_features(
    counts: Array,
    gaps: Array,
    lengths: Array,
    values: Array,
    record: Array,
    at: Array,
    first: int,
    frames: int,
    starts: Array,
    recall: Array,
    scratch: Array,
    out: features.Frames,
    keys: Array,
    done: int,
    row: int,
) -> None:
    """Bring `record` forward frame by frame and encode each; lines that stay are copied."""
    cells = ROWS * COLS
    chars, colors = record[starts[0] : starts[0] + cells], record[starts[1] : starts[1] + cells]
    top = np.empty(COLS, np.uint8)
    bottom = np.empty(COLS, np.uint8)
    for i in range(frames):
        apply(counts, gaps, lengths, values, record, at, first + i)
        t = done + i
        frame = features.frame_at(out, (t, row))
        if i and _same(top, chars[:COLS]):
            frame.message[:] = out.message[t - 1, row]
        else:
            features.encode_message(chars, frame.message)
            top[:] = chars[:COLS]
        if i and _same(bottom, chars[cells - COLS :]):
            frame.status[:] = out.status[t - 1, row]
        else:
            features.encode_status(chars, frame.status)
            bottom[:] = chars[cells - COLS :]
        y, x = int(record[starts[2]]), int(record[starts[2] + 1])
        features.encode_place(chars, colors, y, x, recall, scratch, frame)
        key = record[starts[3]]
        keys[t, row] = key
        memory.push_key(recall, key)


@kernels.njit()
def _skip(
    counts: Array,
    gaps: Array,
    lengths: Array,
    values: Array,
    record: Array,
    at: Array,
    first: int,
    frames: int,
    starts: Array,
    recall: Array,
) -> None:
    chars = record[starts[0] : starts[0] + ROWS * COLS]
    for i in range(frames):
        apply(counts, gaps, lengths, values, record, at, first + i)
        features.recall_screen(chars, int(record[starts[2]]), int(record[starts[2] + 1]), recall)
        memory.push_key(recall, record[starts[3]])


@kernels.njit()
def _read_screens(
    counts: Array,
    gaps: Array,
    lengths: Array,
    values: Array,
    record: Array,
    at: Array,
    first: int,
    frames: int,
    starts: Array,
    recall: Array,
    chars: Array,
    colors: Array,
    cursor: Array,
    keys: Array,
    done: int,
    row: int,
) -> None:
    cells = ROWS * COLS
    screen, paint = record[starts[0] : starts[0] + cells], record[starts[1] : starts[1] + cells]
    for i in range(frames):
        apply(counts, gaps, lengths, values, record, at, first + i)
        _copy(screen, chars[done + i, row])
        _copy(paint, colors[done + i, row])
        cursor[done + i, row, 0] = record[starts[2]]
        cursor[done + i, row, 1] = record[starts[2] + 1]
        key = record[starts[3]]
        keys[done + i, row] = key
        recall[_LATEST] = key


@numba.njit(nogil=True)
def _same(a: Array, b: Array) -> bool:
    left, right = a.view(np.uint64), b.view(np.uint64)
    different = np.uint64(0)
    for k in range(len(left)):
        different |= left[k] ^ right[k]
    return bool(different == 0)


@numba.njit(nogil=True)
def _copy(source: Array, target: Array) -> None:
    words, out = source.view(np.uint64), target.view(np.uint64)
    for k in range(len(words)):
        out[k] = words[k]
