"""NLD-format recordings (ttyrecs with an xlogfile) read through `nle.dataset`, frame by frame.

What a ttyrec shows is what the terminal showed: characters, colours, cursor and the key pressed at
each frame. It holds no glyphs, blstats or inventory.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nle.dataset
import numpy as np

from nhzoo.envs import TTY
from nhzoo.errors import InputError

_READ = 512  # frames converted at a time


@dataclass(frozen=True)
class NldGame:
    """One game of an NLD folder. `game` is the path of its first ttyrec, below the folder."""

    game: str
    gameid: int
    points: int

    @property
    def split(self) -> str:
        """About one game in ten is held out, by a hash of its path: fixed, whatever is added."""
        number = int.from_bytes(hashlib.sha256(self.game.encode()).digest()[:4], "big")
        return "train" if number % 10 else "validation"


class NldFolder:
    """The games of an `nle_data` folder. Its sqlite index is built anew, in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.resolve().name
        scratch = tempfile.mkdtemp(prefix="nhzoo-nld-")
        weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        self._database = str(Path(scratch) / "ttyrecs.db")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                nle.dataset.db.create(self._database)
                nle.dataset.add_nledata_directory(str(folder), "nhzoo", self._database)
            index = self._open(None)
            self.games = tuple(
                NldGame(str(index.get_paths(i)[0]), i, int(index.get_meta(i)["points"]))
                for i in index._gameids
            )
        except (AssertionError, sqlite3.Error, ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{folder}: cannot be read as NLD data ({reason})") from None
        if not self.games:
            raise InputError(f"{folder}: no ttyrec with a line in an xlogfile was found below it")

    @property
    def digest(self) -> str:
        """A short name for exactly these files, for caches."""
        parts = []
        for game in self.games:
            status = (self.folder / game.game).stat()
            parts.append(f"{game.game} {status.st_size} {status.st_mtime_ns}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def frames(self, game: NldGame) -> Iterator[tuple[dict[str, np.ndarray[Any, Any]], int]]:
        """Give (frame, key) for every step of one game; the arrays are reused, copy to keep."""
        try:
            for batch in self._open(game.gameid):
                count = int(np.count_nonzero(batch["gameids"][0]))
                for i in range(count):
                    frame = {name: batch[name][0, i] for name in TTY}
                    yield frame, int(batch["keypresses"][0, i])
        except (AssertionError, OSError, RuntimeError) as error:
            raise InputError(f"{self.folder / game.game}: damaged ttyrec ({error})") from None

    def _open(self, gameid: int | None) -> nle.dataset.TtyrecDataset:
        return nle.dataset.TtyrecDataset(
            "nhzoo",
            batch_size=1,
            seq_length=_READ,
            dbfilename=self._database,
            gameids=None if gameid is None else [gameid],
            shuffle=False,
        )


def is_nld_folder(folder: Path) -> bool:
    """Whether `folder` holds ttyrecs as NLE writes them: <folder>/<run>/nle.<pid>.xlogfile."""
    return any(folder.glob("*/*.xlogfile"))
