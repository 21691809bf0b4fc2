"""Packed frames as files: exported where games replay, a dataset wherever they do not.

Seeds and keys give other dungeons on another machine type or NLE build. The packed frames of a
dataset can be carried there instead: a folder of `<game>.frames` and `packed.json`, which lists
them with their hashes.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nhzoo import files
from nhzoo.errors import InputError
from nhzoo.frames import FORMAT, SUFFIX, GameFrames, frames_in

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
        """The game's file."""
        return files.inside(self.folder, game.game + SUFFIX)

    def check(self, game: PackedGame) -> None:
        """InputError unless the game's file is the one that was exported."""
        path = self.path(game)
        if frames_in(path) != game.frames or _sha256(path) != game.sha256:
            raise InputError(f"{path}: is not as {INDEX} says; copy it again")


def is_packed_set(folder: Path) -> bool:
    """Whether `folder` looks like exported packed frames."""
    return (folder / INDEX).is_file()


def export(
    name: str,
    games: Sequence[tuple[Path, float | None]],
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PackedSet:
    """Copy packed games (file, score) into `folder` and list them; run again to go on.

    Files that are there already are compared, not copied. The index is written last, so a folder
    with an index is whole.
    """
    if folder.exists() and not is_packed_set(folder) and any(folder.iterdir()):
        # What an export that was interrupted leaves behind has the names of games.
        strange = [path.name for path in folder.iterdir() if SUFFIX not in path.name]
        if strange:
            raise InputError(f"{folder}: holds other things ({strange[0]}); give a new folder")
    files.sweep(folder)
    rows = []
    for done, (path, score) in enumerate(games, 1):
        packed = GameFrames(path)
        game = str(packed.meta["game"])
        target = files.inside(folder, game + SUFFIX)
        digest = _sha256(path)
        if not (target.is_file() and _sha256(target) == digest):
            with files.atomic_writer(target) as out, open(path, "rb") as source:
                shutil.copyfileobj(source, out, _BLOCK)
        rows.append(PackedGame(game, str(packed.meta["split"]), packed.length, score, digest))
        progress(done, len(games))
    index = {
        "schema_version": SCHEMA,
        "format": FORMAT,
        "name": name,
        "games": [asdict(row) for row in rows],
    }
    files.atomic_write(folder / INDEX, files.dump_json(index))
    return PackedSet(name, folder, tuple(rows))


def open_packed(folder: Path) -> PackedSet:
    """Read the index of a packed set. Its files are looked at when they are used."""
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
    return PackedSet(folder.resolve().name, folder, games)


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
    if not files.is_plain_name(row["game"]) or row["frames"] < 0:
        raise InputError(f"{where}: {row['game']!r} cannot be the name of a game")
    return PackedGame(**row)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
