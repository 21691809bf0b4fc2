"""The packed frame cache: what the player saw at every step, on disk, read at random.

One file a game. Frames are cut into chunks of 512; in a chunk every frame is stored as its XOR with
the one before, so that what did not change is zero, and the chunk is compressed with Zstandard. A
chunk carries a CRC-32 and can be read by itself.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import zstandard
from nle import nethack

from nhzoo import files
from nhzoo.envs import TTY
from nhzoo.errors import InputError

CHUNK = 512
FORMAT = 1
DEFAULT_FIELDS = (*TTY, "blstats")
_MAGIC = b"NHZF"
_HEADER = struct.Struct("<4sIQQ")  # magic, format, where the index begins, its length
_MAX_INDEX = 16 * files.MEGABYTE

Array = np.ndarray[Any, Any]


def field_layout(name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of one frame of a field: "keys" or the name of an NLE observation."""
    if name == "keys":
        return (), np.dtype(np.uint8)  # always there, once
    try:
        layout = nethack.OBSERVATION_DESC[name]
    except KeyError:
        known = ", ".join(nethack.OBSERVATION_DESC)
        raise InputError(f"unknown frame field {name!r}; NLE has {known}") from None
    return tuple(layout["shape"]), np.dtype(layout["dtype"])


def write_game(path: Path, frames: Any, fields: Sequence[str], meta: Mapping[str, Any]) -> int:
    """Pack an iterator of (frame, key) into `path`, complete or not at all. Returns the frames."""
    fields = ("keys", *(name for name in fields if name != "keys"))
    buffers = {
        name: np.zeros((CHUNK, *shape), dtype)
        for name, (shape, dtype) in ((name, field_layout(name)) for name in fields)
    }
    compressor = zstandard.ZstdCompressor(level=3)
    chunks: list[tuple[int, int, int]] = []  # offset, size, CRC-32
    total = filled = 0
    with files.atomic_writer(path) as file:
        file.write(bytes(_HEADER.size))

        def flush() -> None:
            data = compressor.compress(_encode([buffers[name][:filled] for name in fields]))
            chunks.append((file.tell(), len(data), zlib.crc32(data)))
            file.write(data)

        for frame, key in frames:
            buffers["keys"][filled] = key
            for name in fields[1:]:
                buffers[name][filled] = frame[name]
            filled += 1
            total += 1
            if filled == CHUNK:
                flush()
                filled = 0
        if filled:
            flush()
        index = {"frames": total, "fields": fields, "chunks": chunks, "meta": dict(meta)}
        data = zlib.compress(json.dumps(index).encode())
        start = file.tell()
        file.write(data + zlib.crc32(data).to_bytes(4, "little"))
        file.seek(0)
        file.write(_HEADER.pack(_MAGIC, FORMAT, start, len(data) + 4))
    return total


class GameFrames:
    """Random access to one packed game. Holds no frames, and no open file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                index = self._read_index(file)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except (struct.error, zlib.error, ValueError, KeyError):
            raise InputError(f"{path}: not a whole packed game; delete it and pack again") from None
        self.fields: tuple[str, ...] = tuple(index["fields"])
        self.meta: dict[str, Any] = index["meta"]
        self.length: int = index["frames"]
        self._chunks: list[tuple[int, int, int]] = index["chunks"]
        self._layout = [field_layout(name) for name in self.fields]

    def chunk(self, number: int) -> dict[str, Array]:
        """Frames from `number` x 512 on, of every field: arrays [frames, ...], "keys" [frames]."""
        offset, size, crc = self._chunks[number]
        with open(self.path, "rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size or zlib.crc32(data) != crc:
            raise InputError(f"{self.path}: chunk {number} is damaged; delete it and pack again")
        count = min(CHUNK, self.length - number * CHUNK)
        sizes = [dtype.itemsize * int(np.prod(shape)) for shape, dtype in self._layout]
        if zstandard.frame_content_size(data) != count * sum(sizes):
            raise InputError(f"{self.path}: chunk {number} has another size than its index says")
        raw = zstandard.ZstdDecompressor().decompress(data)
        rows = np.frombuffer(raw, np.uint8)
        result, start = {}, 0
        for name, (shape, dtype), width in zip(self.fields, self._layout, sizes, strict=True):
            part = rows[start : start + count * width].reshape(count, width)
            start += count * width
            plain = np.bitwise_xor.accumulate(part, axis=0)
            result[name] = plain.view(dtype).reshape(count, *shape)
        return result

    def _read_index(self, file: IO[bytes]) -> dict[str, Any]:
        magic, version, start, size = _HEADER.unpack(file.read(_HEADER.size))
        if magic != _MAGIC:
            raise ValueError("not a packed game")
        if version != FORMAT:
            raise InputError(f"{self.path}: packed by another version; delete it and pack again")
        if size > _MAX_INDEX:
            raise ValueError("index too large")
        file.seek(start)
        data = file.read(size)
        if len(data) != size or zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
            raise ValueError("index damaged")
        index: dict[str, Any] = json.loads(zlib.decompress(data[:-4]))
        return index


def _encode(arrays: Sequence[Array]) -> bytes:
    parts = []
    for array in arrays:
        rows = np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
        change = rows.copy()
        change[1:] ^= rows[:-1]
        parts.append(change.tobytes())
    return b"".join(parts)
