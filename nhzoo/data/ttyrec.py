"""The ttyrec format: check files before `nld` reads them, and write traces as ttyrecs.

A ttyrec is bz2 data of records: seconds, microseconds, length (int32 each, little-endian), in
version 3 a channel byte, then the bytes. Version 1 (NLD-NAO) records are terminal output, a frame
each. In version 3 (NLE, NLD-AA) channel 0 is terminal output, 2 the in-game score (int32), 1 the
key pressed, and a frame is what the terminal shows when a key comes.

NLE's reader reports next to nothing: a truncated, damaged or foreign file is a shorter game to it,
and some contents make it write past its buffers. So `scan` reads each file before NLE does.
"""

from __future__ import annotations

import bz2
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nhzoo.data.traces import MAX_KEYS, Trace, TraceSet, replay
from nhzoo.envs.game import ESCAPE, Game
from nhzoo.envs.protocols import GameSpec
from nhzoo.errors import InputError, NhzooError, refusal
from nhzoo.runtime import files
from nhzoo.runtime.pool import OneByOne, run_items

_OUTPUT, _KEY, _SCORE = 0, 1, 2  # channels of version 3
_LENGTHS = {_KEY: 1, _SCORE: 4}
_HEADERS = {1: struct.Struct("<iii"), 3: struct.Struct("<iiiB")}
_MAX_FILE = 1 << 30
_MAX_UNPACKED = 16 << 30
_MAX_RECORD = 1 << 20
_MAX_FRAME_BYTES = 1 << 14  # on average: a whole screen in colour is about 8,000
_FREE_BYTES = 1 << 23
_QUIT = 0xF1  # meta-q, NetHack's #quit
_IN_YES_NO = 1  # internal
_MAX_QUITS = 200


@dataclass(frozen=True)
class Scan:
    """What a sound ttyrec holds. `keys` has one byte a frame, none at all in version 1."""

    frames: int
    keys: bytes
    ends_in_frame: bool
    """The last record makes a frame. NLE's reader drops a record that ends the file."""


def scan(path: Path, version: int) -> Scan:
    """Read a ttyrec of `version` from end to end; InputError when it is not sound.

    Sound is: whole bz2 data in one stream, whole records, and in version 3 a score before each key.
    """
    header = _HEADERS[version]
    keys = bytearray()
    frames = total = 0
    channel = after = _OUTPUT
    rest = b""
    for piece in _unpacked(path):
        data = rest + piece
        at, end = 0, len(data)
        while end - at >= header.size:
            _, _, length, *channels = header.unpack_from(data, at)
            channel = channels[0] if channels else _OUTPUT
            at += header.size
            if not 0 < length <= _MAX_RECORD or channel > _SCORE:
                raise InputError(_foreign(path, version, "its records make no sense"))
            if end - at < length:
                at -= header.size
                break
            if channel != _OUTPUT:
                # One score a key: with more, NLE's reader would write past its array of scores.
                if length != _LENGTHS[channel] or (channel == _SCORE) == (after == _SCORE):
                    raise InputError(_foreign(path, version, "scores and keys do not alternate"))
                after = channel
                if channel == _KEY:
                    keys.append(data[at])
            if version == 1 or channel == _KEY:
                frames += 1
            at += length
        total += len(piece)
        if total > _FREE_BYTES + frames * _MAX_FRAME_BYTES:
            raise InputError(f"{path}: {total:,} bytes for {frames:,} frames: no real game")
        if frames > MAX_KEYS:
            raise InputError(f"{path}: more than the {MAX_KEYS:,} frames allowed in a game")
        rest = data[at:]
    if rest:
        raise InputError(_foreign(path, version, "it ends within a record"))
    return Scan(frames, bytes(keys), frames > 0 and (version == 1 or channel == _KEY))


def seal(path: Path, target: Path, version: int) -> None:
    """Copy a sound ttyrec to `target` with one more record, for NLE's reader to drop."""
    compressor = bz2.BZ2Compressor(1)
    with open(target, "wb") as file:
        for piece in _unpacked(path):
            file.write(compressor.compress(piece))
        header = (0, 0, 1) if version == 1 else (0, 0, 1, _OUTPUT)
        file.write(compressor.compress(_HEADERS[version].pack(*header) + b"\0"))
        file.write(compressor.flush())


def _unpacked(path: Path) -> Iterator[bytes]:
    data = files.read_bounded(path, _MAX_FILE)
    decompressor = bz2.BZ2Decompressor()
    total = 0
    try:
        while not decompressor.eof:
            piece = decompressor.decompress(data, 1 << 20)
            data = b""
            if not piece and decompressor.needs_input:
                raise InputError(f"{path}: truncated, its bz2 data ends early; copy it here again")
            total += len(piece)
            if total > _MAX_UNPACKED:
                raise InputError(
                    f"{path}: unpacks to more than the {_MAX_UNPACKED:,} bytes allowed"
                )
            yield piece
    except OSError:
        raise InputError(f"{path}: damaged or no ttyrec, its bz2 data is not valid") from None
    if decompressor.unused_data:
        raise InputError(
            f"{path}: goes on after its first bz2 stream, where NLE's reader stops; unpack it and "
            "pack it anew with bzip2"
        )


def _foreign(path: Path, version: int, reason: str) -> str:
    return f"{path}: not a ttyrec of version {version} ({reason})"


def write_ttyrec(trace: Trace, folder: Path) -> Path:
    """Replay `trace` into `folder` in the NLD-AA format; returns the game's folder.

    It holds `nle.<n>.0.ttyrec3.bz2` and `nle.<n>.xlogfile`, as NLE's environments save them and
    `nle.dataset.add_nledata_directory` reads them; it appears when both are complete. Frame i and
    key i are those of the replay, from the first screen to the one before the last key. A game that
    goes on after its last key (cut off by a step cap) is quit, for NetHack writes a game's line of
    the xlogfile at its end; the keys for that, and those that dismiss the closing screens, follow
    the trace's own. The time in the ttyrec is that of the writing.

    A game that is already there is kept; another one of its name is an InputError. Diverged when
    the replay does not go as recorded.
    """
    target = files.inside(folder, trace.game)
    if _is_written(trace, target):
        return target
    number = int(trace.game) if trace.game.isdecimal() and len(trace.game) < 10 else 0
    # NLE's index overlooks folders with a leading dot, and so does NldFolder.
    with files.temporary_folder(target) as temporary:
        whole = temporary / "whole"
        whole.mkdir()
        ttyrec = whole / f"nle.{number}.0.ttyrec3.bz2"
        game = _Recorded(ttyrec)
        try:
            for _ in replay(trace, game):
                pass
            _quit(game, trace)
            game.close_out()
            log = game.xlogfile.read_text(encoding="latin-1").splitlines()
        finally:
            game.close()  # which also writes the end of the ttyrec
        if len(log) != 1:
            raise NhzooError(f"game {trace.game}: NetHack wrote no line into its xlogfile")
        line = f"{log[0]}\ttrace={trace.sha256[:16]}\tttyrecname={ttyrec.name}\n"
        scan(ttyrec, 3)
        with open(ttyrec, "rb") as file:
            os.fsync(file.fileno())
        files.atomic_write(whole / f"nle.{number}.xlogfile", line.encode("latin-1"))
        os.rename(whole, target)
    return target


class _Recorded(Game):
    """A game that also writes a ttyrec."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def start(self, spec: GameSpec, ttyrec: Path | None = None) -> None:
        super().start(spec, ttyrec or self._path)


def _is_written(trace: Trace, target: Path) -> bool:
    if not target.exists():
        return False
    for log in target.glob("*.xlogfile"):
        if f"\ttrace={trace.sha256[:16]}\t" in log.read_text(encoding="latin-1"):
            return True
    raise InputError(f"{target}: holds another game of that name; write into an empty folder")


def _quit(game: Game, trace: Trace) -> None:
    """Press what ends a game from wherever it stands."""
    for _ in range(_MAX_QUITS):
        if game.over:
            return
        asked = bytes(game.observation["tty_chars"][0]).startswith(b"Really quit?")
        if asked and game.observation["internal"][_IN_YES_NO]:
            game.step(ord("y"))
            continue
        for key in (ESCAPE, ESCAPE, _QUIT):  # the first may only clear a line of text
            if not game.over:
                game.step(key)
    raise NhzooError(f"game {trace.game}: could not be quit within {3 * _MAX_QUITS} keys")


@dataclass
class WriteReport:
    """What writing a trace set as ttyrecs came to. `refused` maps a game's name to the reason."""

    folder: Path
    written: int = 0
    already: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def write_ttyrecs(
    traces: TraceSet,
    folder: Path,
    workers: int | None = None,
    progress: Callable[[WriteReport, int], None] = lambda report, games: None,
) -> WriteReport:
    """`write_ttyrec` for every game that is not in `folder` yet, on `workers` processes.

    `progress` is called with the report and the number of games as they finish.
    """
    report = WriteReport(folder)
    todo = []
    for number, trace in enumerate(traces.traces):
        try:
            if _is_written(trace, files.inside(folder, trace.game)):
                report.already += 1
            else:
                todo.append((number, trace))
        except InputError as error:
            report.refused[trace.game] = str(error)
    progress(report, len(traces.traces))
    for key, result in run_items(WriteTask, (folder,), todo, workers):
        if result is None:
            report.written += 1
        else:
            report.refused[traces.traces[key].game] = result
        progress(report, len(traces.traces))
    return report


class WriteTask(OneByOne):
    """Writes traces as ttyrecs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def work(self, item: Trace) -> str | None:
        """Write one game: None, or why it was refused."""
        try:
            write_ttyrec(item, self._folder)
        except NhzooError as error:
            return str(error)
        except OSError as error:
            where = error.filename or self._folder
            raise InputError(f"{where}: cannot be written: {refusal(error)}") from None
        return None
