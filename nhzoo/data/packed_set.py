"""Packed frames as a dataset: exported where games replay, usable on any machine.

Seeds and keys give other dungeons on another machine type or NLE build. The packed frames of a
dataset can be carried there instead: a folder of `<game>.frames` and `packed.json`, which lists
them with their hashes.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nhzoo.data.frames import FORMAT, SUFFIX, GameFrames, frames_in
from nhzoo.errors import InputError
from nhzoo.runtime import files
from nhzoo.runtime.console import ProgressCallback, no_progress

SCHEMA = 1
INDEX = "packed.json"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class PackedGame:
    """One game of a packed set; `score` is None where it was not recorded."""

    game: str
    split: str
    frames: int
    score: float | None
    sha256: str


@dataclass(frozen=True)
class PackedSet:
    """A folder of packed games."""

    name: str
    folder: Path
    games: tuple[PackedGame, ...]

    def path(self, game: PackedGame) -> Path:
        """The game's file; see `check` before using it."""
        return self.folder / (game.game + SUFFIX)

    def check(self, game: PackedGame) -> None:
        """InputError unless the game's file is the one that was exported."""
        path = files.inside(self.folder, game.game + SUFFIX)
        if frames_in(path) != game.frames or _sha256(path) != game.sha256:
            raise InputError(f"{path}: is not as {INDEX} says; copy it again")


def is_packed_set(folder: Path) -> bool:
    """Whether `folder` looks like exported packed frames."""
    return (folder / INDEX).is_file()


def export(
    name: str,
    games: Sequence[tuple[Path, str, str, float | None]],
    folder: Path,
    progress: ProgressCallback = no_progress,
) -> PackedSet:
    """Copy packed games (file, name, split, score) into `folder` and list them there.

    Run again to resume, or with other games of the same dataset to add them: files that are there
    are compared, not copied. Each is checked before. The index is written last.
    """
    known: dict[str, PackedGame] = {}
    if is_packed_set(folder):
        there = open_packed(folder)
        if there.name != name:
            raise InputError(f"{folder}: holds games of {there.name}; give another folder")
        known = {game.game: game for game in there.games}
    elif folder.exists():
        # What an export that was interrupted leaves behind has the names of games.
        strange = [path.name for path in folder.iterdir() if SUFFIX not in path.name]
        if strange:
            raise InputError(f"{folder}: holds other things ({strange[0]}); give a new folder")
    files.sweep(folder)
    for done, (path, game, split, score) in enumerate(games, 1):
        packed = GameFrames(path)
        packed.check()
        target, digest = folder / (game + SUFFIX), _sha256(path)
        if game in known and known[game].sha256 != digest:
            raise InputError(f"{target}: is another game {game}; give another folder")
        if not (target.is_file() and _sha256(target) == digest):
            with files.atomic_writer(target) as out, files.open_regular(path) as source:
                shutil.copyfileobj(source, out, _BLOCK)
        known[game] = PackedGame(game, split, packed.length, score, digest)
        progress(done, len(games))
    index = {
        "schema_version": SCHEMA,
        "format": FORMAT,
        "name": name,
        "games": [asdict(row) for row in known.values()],
    }
    files.atomic_write(folder / INDEX, files.dump_json(index))
    return PackedSet(name, folder, tuple(known.values()))


def open_packed(folder: Path) -> PackedSet:
    """Read the index of a packed set, named as its dataset was.

    Its files are looked at when they are used.
    """
    path = folder / INDEX
    index = files.read_json(path, 256 * files.MEGABYTE)
    if index.get("schema_version") != SCHEMA or index.get("format") != FORMAT:
        raise InputError(f"{path}: exported by another version of nhzoo; export it again")
    rows = index.get("games")
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: lists no game")
    games = tuple(_game(row, f"{path}, game {number}") for number, row in enumerate(rows, 1))
    if len({game.game for game in games}) != len(games):
        raise InputError(f"{path}: a game is listed twice")
    name = index.get("name")
    if not isinstance(name, str) or not files.is_plain_name(name):
        raise InputError(f"{path}: {name!r} cannot be the name of a dataset")
    return PackedSet(name, folder, games)


def _game(row: Any, where: str) -> PackedGame:
    kinds: dict[str, tuple[type, ...]] = {
        "game": (str,),
        "split": (str,),
        "frames": (int,),
        "score": (int, float, type(None)),
        "sha256": (str,),
    }
    if not isinstance(row, dict) or set(row) != set(kinds):
        raise InputError(f"{where}: needs the fields {', '.join(kinds)}")
    for name, kind in kinds.items():
        if not isinstance(row[name], kind) or isinstance(row[name], bool):
            raise InputError(f"{where}: field {name!r} is of the wrong type")
    for name in ("game", "split"):
        if not files.is_plain_name(row[name]):
            raise InputError(f"{where}: {row[name]!r} cannot be the name of a {name}")
    if row["frames"] < 0 or abs(row["score"] or 0) > 1 << 62:
        raise InputError(f"{where}: frames or score are out of range")
    return PackedGame(**row)


def _sha256(path: Path) -> str:
    with files.open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
