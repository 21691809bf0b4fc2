"""The packed frame cache: the screen of every step, on disk, read at random.

One file a game. A frame is a record of bytes: the key pressed, the screen's characters and colours,
the cursor, and whatever other observations were asked for. Records are cut into chunks of 512, and
a chunk holds, frame by frame, only the runs of bytes that changed: how far each begins behind the
one before, its length, its new bytes; a chunk's first frame counts from zeros. Each chunk is
compressed with Zstandard, carries a CRC-32 and can be read by itself. A key press changes little
of the four thousand bytes, so reading is mostly copying, and an open chunk is small.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import zstandard
from nle import nethack

from nhzoo.data.traces import MAX_KEYS
from nhzoo.envs.actions import TTY
from nhzoo.errors import InputError
from nhzoo.runtime import files, kernels
from nhzoo.runtime.arrays import Array, arrays_in, memory_layout

CHUNK = 512
FORMAT = 2
SUFFIX = ".frames"
DEFAULT_FIELDS = TTY
_MAGIC = b"NHZF"
_HEADER = struct.Struct("<4sIQQQ")  # magic, format, frames, where the index begins, its length
_MAX_INDEX = 16 * files.MEGABYTE
_BLOCK = 32  # frames that are compared at once; divides CHUNK
_REMEDY = "pack or copy it again"
_MAX_RUN = 65_535
_DECOMPRESSOR = zstandard.ZstdDecompressor()  # making one costs as much as a chunk
_BRIDGE = 4  # unchanged bytes that a run may include: as many as beginning another costs


def field_layout(name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of one frame of a field: "keys" or the name of an NLE observation."""
    if name == "keys":
        return (), np.dtype(np.uint8)  # always there, once
    try:
        layout = nethack.OBSERVATION_DESC[name]
    except (KeyError, TypeError):
        known = ", ".join(nethack.OBSERVATION_DESC)
        raise InputError(f"unknown frame field {name!r}; NLE has {known}") from None
    return tuple(layout["shape"]), np.dtype(layout["dtype"])


def record_layout(fields: Sequence[str]) -> np.dtype[Any]:
    """Where the fields of a frame lie in its record, each at a multiple of 8 bytes."""
    return memory_layout([(name, *field_layout(name)[::-1]) for name in dict.fromkeys(fields)], 8)


class Chunk(NamedTuple):
    """Up to 512 frames as changes.

    `counts` [frames] uint32: runs in each frame; `gaps`, `lengths` [runs] uint16; `values` uint8.
    """

    counts: Array
    gaps: Array
    lengths: Array
    values: Array


def write_game(
    path: Path, frames: Iterable[Any], fields: Sequence[str], meta: Mapping[str, Any]
) -> int:
    """Pack (frame, key) pairs into `path`, complete or not at all. Returns the frames."""
    fields = ("keys", *(name for name in fields if name != "keys"))
    layout = record_layout(fields)
    rows = np.zeros((1 + _BLOCK, layout.itemsize), np.uint8)  # the first is the one before
    targets = [[arrays_in(row, layout)[name] for name in fields] for row in rows]
    counts = np.zeros((CHUNK, 2), np.uint32)  # runs, bytes
    gaps, lengths, values = (np.zeros(0, kind) for kind in (np.uint16, np.uint16, np.uint8))
    compressor = zstandard.ZstdCompressor(level=3)
    chunks: list[tuple[int, int, int, int, int]] = []  # offset, size, CRC-32, runs, bytes
    total = filled = held = runs = size = 0
    with files.atomic_writer(path) as file:
        file.write(bytes(_HEADER.size))

        def take() -> None:
            """Turn the rows that are held into changes."""
            nonlocal filled, held, runs, size, gaps, lengths, values
            room = held * layout.itemsize
            if len(values) - size < room:  # as many runs as bytes, at worst
                gaps, lengths, values = (
                    np.concatenate([array, np.zeros(len(array) + room, array.dtype)])
                    for array in (gaps, lengths, values)
                )
            runs, size = _changes(
                rows, held, gaps, lengths, values, runs, size, counts[filled : filled + held]
            )
            rows[0] = rows[held]
            filled += held
            held = 0

        def flush() -> None:
            """Write the chunk."""
            nonlocal filled, runs, size
            parts = counts[:filled, 0], gaps[:runs], lengths[:runs], values[:size]
            data = compressor.compress(b"".join(part.tobytes() for part in parts))
            chunks.append((file.tell(), len(data), zlib.crc32(data), runs, size))
            file.write(data)
            filled = runs = size = 0
            rows[0] = 0

        for frame, key in frames:
            held += 1
            target = targets[held]
            target[0][...] = key
            for place, name in enumerate(fields[1:], 1):
                target[place][...] = frame[name]
            total += 1
            if held == _BLOCK:
                take()
                if filled == CHUNK:
                    flush()
        if held:
            take()
        if filled:
            flush()
        index = {"fields": fields, "chunks": chunks, "meta": dict(meta)}
        data = zlib.compress(json.dumps(index).encode())
        start = file.tell()
        file.write(data + zlib.crc32(data).to_bytes(4, "little"))
        file.seek(0)
        file.write(_HEADER.pack(_MAGIC, FORMAT, total, start, len(data) + 4))
    return total


class GameFrames:
    """Random access to one packed game. Holds no frames, and no open file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with files.open_regular(path) as file:
                self.length, start, size = _read_header(file, path)
                index = _read_index(file, start, size)
            self.fields: tuple[str, ...] = tuple(index["fields"])
            self.meta: dict[str, Any] = dict(index["meta"])
            self.expert_from = int(self.meta.get("expert_from", 0))
            if not 0 <= self.expert_from <= self.length:
                raise ValueError("what is to be learnt begins outside the game")
            chunks = np.array(index["chunks"] or np.empty((0, 5), np.int64))
            if chunks.dtype != np.int64 or chunks.ndim != 2 or chunks.shape[1] != 5:
                raise ValueError("chunks are not whole numbers")
            self._chunks = chunks
            ends = self._chunks[:, 0] + self._chunks[:, 1]
            if len(self._chunks) != -(-self.length // CHUNK) or not np.array_equal(
                np.append(self._chunks[:, 0], start), np.insert(ends, 0, _HEADER.size)
            ):  # one after another, from the header to the index
                raise ValueError("chunks do not add up")
            if not {"keys", *TTY} <= set(self.fields):
                raise ValueError("fields are missing")
            self.layout = record_layout(self.fields)
        except (struct.error, ValueError, LookupError, TypeError, OverflowError):
            raise InputError(f"{path}: not a whole packed game; {_REMEDY}") from None

    def chunk(self, number: int) -> Chunk:
        """The changes of frames from `number` x 512 on, checked against CRC and bounds."""
        offset, size, crc, runs, changed = map(int, self._chunks[number])
        frames = min(CHUNK, self.length - number * CHUNK)
        most = frames * (self.layout.itemsize + 1)
        if not (0 <= runs <= most and 0 <= changed <= most and 0 <= size <= 2 * most + 1024):
            raise InputError(f"{self.path}: chunk {number} is too large; {_REMEDY}")
        with files.open_regular(self.path) as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size or zlib.crc32(data) != crc:
            raise InputError(f"{self.path}: chunk {number} is damaged; {_REMEDY}")
        try:
            if zstandard.frame_content_size(data) != 4 * frames + 4 * runs + changed:
                raise ValueError
            raw = _DECOMPRESSOR.decompress(data)
            counts = np.frombuffer(raw, np.uint32, frames)
            gaps = np.frombuffer(raw, np.uint16, runs, 4 * frames)
            lengths = np.frombuffer(raw, np.uint16, runs, 4 * frames + 2 * runs)
            values = np.frombuffer(raw, np.uint8, changed, 4 * frames + 4 * runs)
            if not _within(counts, gaps, lengths, changed, self.layout.itemsize):
                raise ValueError
        except (zstandard.ZstdError, ValueError):
            raise InputError(
                f"{self.path}: chunk {number} is not as its index says; {_REMEDY}"
            ) from None
        return Chunk(counts, gaps, lengths, values)

    def check(self) -> None:
        """InputError when a chunk is damaged; its frames are not decoded for it."""
        with files.open_regular(self.path) as file:
            for number, (offset, size, crc, _, _) in enumerate(self._chunks.tolist()):
                file.seek(offset)
                if zlib.crc32(file.read(size)) != crc:
                    raise InputError(f"{self.path}: chunk {number} is damaged; {_REMEDY}")

    def read(self, start: int, count: int) -> dict[str, Array]:
        """Frames `start` to `start` + `count` (fewer at the end): arrays [frames, ...] by field."""
        return arrays_in(FrameReader(self, start).rows(count), self.layout)


def frames_in(path: Path) -> int:
    """The number of frames of a packed game, from its header alone."""
    try:
        with files.open_regular(path) as file:
            return _read_header(file, path)[0]
    except (struct.error, ValueError):
        raise InputError(f"{path}: not a whole packed game; {_REMEDY}") from None


def _read_header(file: IO[bytes], path: Path) -> tuple[int, int, int]:
    """Frames, where the index begins, its length."""
    magic, version, frames, start, size = _HEADER.unpack(file.read(_HEADER.size))
    if magic != _MAGIC:
        raise ValueError("not a packed game")
    if version != FORMAT:
        raise InputError(f"{path}: packed by another version of nhzoo; {_REMEDY}")
    if frames > MAX_KEYS:
        raise InputError(f"{path}: more than the {MAX_KEYS:,} frames allowed in a game")
    if size > _MAX_INDEX:
        raise ValueError("index too large")
    return frames, start, size


def _read_index(file: IO[bytes], start: int, size: int) -> dict[str, Any]:
    file.seek(start)
    data = file.read(size)
    if len(data) != size or zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
        raise ValueError("index damaged")
    index = files.parse_json(files.inflate(data[:-4], _MAX_INDEX, "index"), "index")
    return dict(index)


class FrameReader:
    """Reads one game forward from any position; holds one compact chunk and one record."""

    def __init__(self, game: GameFrames, position: int = 0) -> None:
        self.game = game
        self.position = position
        self.record = np.zeros(game.layout.itemsize, np.uint8)
        self._chunk: tuple[Any, ...] = ()
        self._number = -1
        self._at = np.zeros(2, np.int64)  # runs and bytes of the chunk that are in `record`

    def pieces(self, count: int) -> Iterator[tuple[tuple[Any, ...], int, int]]:
        """Give what `apply` needs to bring `record` forward, chunk by chunk.

        Each piece is (arguments, number of the first frame in its chunk, frames); it must be
        applied before the next is asked for.
        """
        count = min(count, self.game.length - self.position)
        while count > 0:
            number, first = divmod(self.position, CHUNK)
            if number != self._number:
                chunk = self.game.chunk(number)
                self.record[:] = 0
                self._at[:] = 0
                self._chunk, self._number = (*chunk, self.record, self._at), number
                for frame in range(first):
                    apply(*self._chunk, frame)
            size = min(count, CHUNK - first)
            yield self._chunk, first, size
            self.position += size
            count -= size

    def rows(self, count: int) -> Array:
        """The next `count` records, fewer at the end: uint8 [frames, width]."""
        count = max(0, min(count, self.game.length - self.position))
        rows = np.empty((count, self.game.layout.itemsize), np.uint8)
        done = 0
        for chunk, first, size in self.pieces(count):
            _rows(*chunk, first, rows[done : done + size])  # type: ignore[call-arg]
            done += size
        return rows


@kernels.njit()
def _changes(
    rows: Array,
    frames: int,
    gaps: Array,
    lengths: Array,
    values: Array,
    run: int,
    size: int,
    counts: Array,
) -> tuple[int, int]:
    """Append the runs in which each of rows[1:] differs from the row before; count per frame.

    `run` and `size` are how many runs and bytes there are already; returns them after.
    """
    words = rows.view(np.uint64)
    width = rows.shape[1]
    for frame in range(1, frames + 1):
        before, now = rows[frame - 1], rows[frame]
        first_run, first_size = run, size
        end = 0  # of the last run
        start = -1  # of the run that is open
        last = 0  # the last place in it that differs
        for word in range(words.shape[1] + 1):
            if word < words.shape[1] and words[frame - 1, word] == words[frame, word]:
                continue
            for place in range(8 * word, 8 * word + 8):
                over = place >= width
                if not over and before[place] == now[place]:
                    continue
                if start >= 0 and (over or place - last > _BRIDGE + 1 or place - start >= _MAX_RUN):
                    while start - end > _MAX_RUN:  # a run of no bytes takes one step of the way
                        gaps[run], lengths[run] = _MAX_RUN, 0
                        run += 1
                        end += _MAX_RUN
                    gaps[run], lengths[run] = start - end, last + 1 - start
                    run += 1
                    for i in range(start, last + 1):
                        values[size] = now[i]
                        size += 1
                    end = last + 1
                    start = -1
                if over:
                    break
                if start < 0:
                    start = place
                last = place
        counts[frame - 1, 0], counts[frame - 1, 1] = run - first_run, size - first_size
    return run, size


@kernels.njit()
def _within(counts: Array, gaps: Array, lengths: Array, changed: int, width: int) -> bool:
    """Whether runs and bytes add up and none lies outside the record."""
    run = size = 0
    for frame in range(len(counts)):
        if counts[frame] > len(gaps) - run:
            return False
        place = 0
        for _ in range(counts[frame]):
            place += int(gaps[run]) + int(lengths[run])
            size += lengths[run]
            run += 1
        if place > width:
            return False
    return run == len(gaps) and size == changed


@kernels.njit()
def apply(
    counts: Array,
    gaps: Array,
    lengths: Array,
    values: Array,
    record: Array,
    at: Array,
    frame: int,
) -> None:
    """Bring `record` from the frame before to `frame` of a chunk; `at` is moved past its runs."""
    run, size, place = np.uint64(at[0]), np.uint64(at[1]), np.uint64(0)
    for _ in range(counts[frame]):
        place += np.uint64(gaps[run])
        length = np.uint64(lengths[run])
        # Unsigned indices cannot mean "from the end", which makes the loop three times as fast.
        for k in range(length):
            record[place + k] = values[size + k]
        place += length
        size += length
        run += np.uint64(1)
    at[0], at[1] = run, size


@kernels.njit()
def _rows(
    counts: Array,
    gaps: Array,
    lengths: Array,
    values: Array,
    record: Array,
    at: Array,
    first: int,
    rows: Array,
) -> None:
    words = record.view(np.uint64)
    out = rows.view(np.uint64)
    for i in range(len(rows)):
        apply(counts, gaps, lengths, values, record, at, first + i)
        for k in range(len(words)):
            out[i, k] = words[k]
