"""Reading ttyrecs: NLD-format recordings with xlogfiles, frame by frame, through `nle.dataset`.

What a ttyrec shows is what the terminal showed: characters, colours, cursor and, where NLE played,
the key pressed at each frame. It holds no glyphs, blstats or inventory. Two layouts are read:

- NLD-AA, written by NLE: <folder>/<run>/nle.<pid>.<n>.ttyrec3.bz2 and nle.<pid>.xlogfile
- NLD-NAO, written by a public server: <folder>/<user>/<date>.ttyrec.bz2, <folder>/xlogfile.* and
  perhaps blacklist.txt; a game may lie in several ttyrecs, and their keys were never recorded

NLE indexes a folder only if all of it is in order. So it is shown a temporary folder of links to
what is, and what is not is named in `NldFolder.left_out`.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import hashlib
import io
import os
import sqlite3
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nle.dataset
import numpy as np
from nle.dataset.populate_db import XLOGFILE_COLUMNS

from nhzoo.data.ttyrec import scan, seal
from nhzoo.envs.actions import TTY
from nhzoo.errors import InputError
from nhzoo.runtime import scratch

AA, NAO = "nld-aa", "nld-nao"

_READ = 512  # frames converted at a time
_NUMBERS = {name for name, kind in XLOGFILE_COLUMNS if kind is int}
_NEEDED = {AA: {"points"}, NAO: {"points", "name", "turns", "starttime", "endtime"}}
_MAX_LINE = 1 << 16
_BEFORE = "ttyrecname="


@dataclass(frozen=True)
class NldGame:
    """One game of an NLD folder. `game` is the path of its first ttyrec, below the folder.

    The rest is from the xlogfile: `role`, `race`, `gender` and `align` as it names them ("Mon",
    "Hum", "Mal", "Neu"), `points` NetHack's final score, `maxlvl` the deepest level reached.
    """

    game: str
    parts: tuple[str, ...]
    points: int
    role: str
    race: str
    gender: str
    align: str
    turns: int
    maxlvl: int
    death: str

    @property
    def split(self) -> str:
        """About one game in ten is held out, by a hash of its path: fixed, whatever is added."""
        number = int.from_bytes(hashlib.sha256(self.game.encode()).digest()[:4], "big")
        return "train" if number % 10 else "validation"


class NldFolder:
    """The games of an NLD folder of either layout, ordered as NLE's index orders them.

    `kind` is "nld-aa" or "nld-nao". `has_keys` is False for NLD-NAO: its frames come with key 0 and
    nothing can learn actions from them. `left_out` maps a path below the folder (for a line of an
    xlogfile: "path, line 3") to the reason why it is not among `games`.
    """

    def __init__(self, folder: Path) -> None:
        kind = layout(folder)
        if kind is None:
            raise InputError(f"{folder}: no NLD recordings, no ttyrec was found below it")
        self.folder, self.kind = folder, kind
        self.name = folder.resolve().name
        self.has_keys = kind == AA
        self.left_out: dict[str, str] = {}
        links = scratch.new_folder("nld-")
        weakref.finalize(self, scratch.remove, links)
        self._links = links / "data"
        self._links.mkdir()
        found = self._link_aa() if kind == AA else self._link_nao()
        self._index = _index(self._links, kind, folder)
        ids = {str(self._index.get_paths(i)[0]): i for i in self._index._gameids}
        self._ids = ids
        self.games = tuple(self._game(path, gameid) for path, gameid in ids.items())
        used = {part for game in self.games for part in game.parts}
        for path in found - used:
            self.left_out[path] = (
                "no line of its run's xlogfile names it: the game was not played to its end"
                if kind == AA
                else "no game of this player in the xlogfiles was under way then, or one that was "
                "given up within 10 turns"
            )
        if not self.games:
            path, reason = next(iter(self.left_out.items()), ("", "no ttyrec was found below it"))
            count = f"{len(self.left_out):,} things left out, the first {path}: " if path else ""
            raise InputError(f"{folder}: no game to read ({count}{reason})")

    @property
    def digest(self) -> str:
        """16 hexadecimal digits for exactly these files, for caches."""
        parts = [f"{game.game} {self.fingerprint(game)}" for game in self.games]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def fingerprint(self, game: NldGame) -> str:
        """16 hexadecimal digits from path, size and time of change of the game's ttyrecs."""
        lines = []
        for part in game.parts:
            try:
                status = (self.folder / part).stat()
            except OSError as error:
                raise InputError(f"{self.folder / part}: is gone ({error.strerror})") from None
            lines.append(f"{part} {status.st_size} {status.st_mtime_ns}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def keys(self, game: NldGame) -> bytes:
        """The key of each frame, read without converting the frames; b"" without keys."""
        return b"".join(scan(self.folder / part, self._version).keys for part in game.parts)

    def frames(self, game: NldGame) -> Iterator[tuple[dict[str, np.ndarray[Any, Any]], int]]:
        """Give (frame, key) for every step of one game, its ttyrecs one after another.

        A frame holds tty_chars uint8 [24, 80], tty_colors int8 [24, 80] and tty_cursor uint8 [2];
        the arrays are reused, copy to keep. The key answers the frame; it is 0 without `has_keys`.
        InputError before the first frame when a ttyrec is truncated, damaged or of another version.
        """
        if game.game not in self._ids:
            raise InputError(f"{self.folder / game.game}: is gone; open the folder again")
        scans = {part: scan(self.folder / part, self._version) for part in game.parts}
        expected = sum(found.frames for found in scans.values())
        given = 0
        with self._sealed([part for part, found in scans.items() if found.ends_in_frame]):
            reader = copy.copy(self._index)
            reader._gameids = [self._ids[game.game]]
            try:
                for batch in reader:
                    count = int(np.count_nonzero(batch["gameids"][0]))
                    keys = batch["keypresses"][0] if self.has_keys else np.zeros(count, np.uint8)
                    cursors = batch["tty_cursor"][0].astype(np.uint8)
                    for i in range(count):
                        frame = {name: batch[name][0, i] for name in TTY}
                        yield frame | {"tty_cursor": cursors[i]}, int(keys[i])
                    given += count
            except (AssertionError, OSError, RuntimeError) as error:
                if isinstance(error, OSError) and error.errno is not None:  # of a disk, say
                    raise
                raise InputError(f"{self.folder / game.game}: damaged ttyrec ({error})") from None
        if given != expected:
            raise InputError(
                f"{self.folder / game.game}: NLE reads {given:,} of its {expected:,} frames"
            )

    @property
    def _version(self) -> int:
        return 3 if self.has_keys else 1

    @contextlib.contextmanager
    def _sealed(self, parts: list[str]) -> Iterator[None]:
        """Show NLE copies of the ttyrecs whose last frame its reader would drop."""
        for part in parts:
            link = self._links / part
            link.unlink()
            seal(self.folder / part, link, self._version)
        try:
            yield
        finally:
            for part in parts:
                _link(self.folder / part, self._links / part)

    def _game(self, path: str, gameid: int) -> NldGame:
        meta = self._index.get_meta(gameid)
        texts = {name: str(meta[name]) for name in ("role", "race", "gender", "align", "death")}
        numbers = {name: int(meta[name]) for name in ("points", "turns", "maxlvl")}
        parts = tuple(str(part) for part in self._index.get_paths(gameid))
        return NldGame(path, parts, **numbers, **texts)  # type: ignore[arg-type]

    def _link_aa(self) -> set[str]:
        """Link what NLE can index; the ttyrecs linked."""
        found = set()
        for run in _subfolders(self.folder):
            if not _is_text(run.name):
                self.left_out[repr(run.name)] = "its name is not UTF-8"
                continue
            (self._links / run.name).mkdir()
            names = set()
            for path in sorted(run.glob("*.ttyrec*")):
                where = f"{run.name}/{path.name}"
                if not path.name.endswith(".ttyrec3.bz2"):
                    self.left_out[where] = "not of ttyrec version 3 by its name (*.ttyrec3.bz2)"
                elif not path.is_file():
                    self.left_out[where] = "not a regular file"
                else:
                    names.add(path.name)
                    _link(path, self._links / where)
            found |= {f"{run.name}/{name}" for name in names}
            seen: set[str] = set()
            for log in sorted(run.glob("*.xlogfile")):
                stem = log.name.removesuffix("xlogfile")
                lines = []
                for where, line in self._lines(log, "\t"):
                    ttyrec = line.split(_BEFORE)[-1].strip()
                    if ttyrec in seen:
                        self.left_out[where] = f"{ttyrec} has a line already"
                    elif ttyrec in names and ttyrec.startswith(stem):
                        seen.add(ttyrec)
                        lines.append(line)
                if lines:  # NLE takes no xlogfile without ttyrecs
                    (self._links / run.name / log.name).write_text("".join(lines), "ascii")
        return found

    def _link_nao(self) -> set[str]:
        """Link what NLE can index; the ttyrecs linked."""
        for log in sorted(self.folder.glob("xlogfile.*")):
            with open(self._links / log.name, "w", encoding="ascii") as file:
                for _, line in self._lines(log, ":" if log.suffix == ".txt" else "\t"):
                    file.write(line)
        # NLE needs the file, and compares paths with lines that still have their line ends.
        (self._links / "blacklist.txt").touch()
        blacklist = self.folder / "blacklist.txt"
        listed = blacklist.read_text("latin-1").splitlines() if blacklist.is_file() else []
        refused = {line.strip() for line in listed}
        found = set()
        for user in _subfolders(self.folder):
            if not _is_text(user.name):
                self.left_out[repr(user.name)] = "its name is not UTF-8"
                continue
            (self._links / user.name).mkdir()
            for path in sorted(user.glob("*.ttyrec*")):
                where = f"{user.name}/{path.name}"
                if not path.name.endswith(".ttyrec.bz2"):
                    self.left_out[where] = "not of ttyrec version 1 by its name (*.ttyrec.bz2)"
                elif not _is_date(path.name.removesuffix(".ttyrec.bz2")):
                    self.left_out[where] = "its name is not the time when it begins"
                elif where in refused:
                    self.left_out[where] = "named in blacklist.txt"
                elif not path.is_file():
                    self.left_out[where] = "not a regular file"
                else:
                    found.add(where)
                    _link(path, self._links / where)
        return found

    def _lines(self, log: Path, separator: str) -> Iterator[tuple[str, str]]:
        """The lines of an xlogfile that NLE can take, each with its name for `left_out`."""
        name = str(log.relative_to(self.folder))
        if not log.is_file():
            self.left_out[name] = "not a regular file"
            return
        number = 0
        with open(log, "rb") as file:
            while data := file.readline(_MAX_LINE):
                number += 1
                where = f"{name}, line {number}"
                # NLE decodes these as ASCII; names and causes of death are of no use to us.
                line = data.decode("ascii", "replace").replace("\ufffd", "?").rstrip("\r\n")
                fields = dict(part.partition("=")[::2] for part in line.split(separator))
                if reason := _unusable(fields, self.kind):
                    self.left_out[where] = reason
                else:
                    yield where, line + "\n"


def layout(folder: Path) -> str | None:
    """The layout of an NLD folder, "nld-aa" or "nld-nao"; None when it is no such folder."""
    if any(folder.glob("*/*.xlogfile")) or any(folder.glob("*/nle.*.ttyrec*")):
        return AA
    return NAO if any(folder.glob("*/*.ttyrec*")) else None


def _subfolders(folder: Path) -> list[Path]:
    # Those with a leading dot are half-written, see `ttyrecs`.
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _is_text(name: str) -> bool:
    """Whether a file's name can be written down: NLE's index is in UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _link(path: Path, link: Path) -> None:
    link.unlink(missing_ok=True)
    os.symlink(path.resolve(), link)


def _index(links: Path, kind: str, folder: Path) -> nle.dataset.TtyrecDataset:
    database = str(links.parent / "ttyrecs.db")
    add = nle.dataset.add_nledata_directory if kind == AA else nle.dataset.add_altorg_directory
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            nle.dataset.db.create(database)
            add(str(links), "nhzoo", database)
        return nle.dataset.TtyrecDataset(
            "nhzoo", batch_size=1, seq_length=_READ, dbfilename=database, shuffle=False
        )
    except (AssertionError, sqlite3.Error, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{folder}: cannot be read as NLD data ({reason})") from None


def _unusable(fields: dict[str, str], kind: str) -> str:
    """Why a line of an xlogfile cannot be used; "" when it can."""
    if missing := sorted(_NEEDED[kind] - set(fields)):
        return f"not a line of an xlogfile (it has no {missing[0]})"
    for name in _NUMBERS & set(fields):
        try:
            if abs(int(fields[name])) >= 1 << 63:
                raise ValueError
        except ValueError:
            return f"its {name} is not a number"
    return ""


def _is_date(text: str) -> bool:
    """Whether NLE takes `text` for a time; it also knows 2020-01-31.23_59_59."""
    day, _, time = text.partition(".")
    try:
        return bool(datetime.datetime.fromisoformat(f"{day}T{time.replace('_', ':')}"))
    except ValueError:
        return False
