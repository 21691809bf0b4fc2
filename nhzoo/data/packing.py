"""Packing: replay or convert demonstrations into packed frames on all cores, checking each game."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nhzoo.data import frames as packed
from nhzoo.data.catalog import open_demonstrations
from nhzoo.data.nld import NldFolder
from nhzoo.data.packed_set import PackedSet
from nhzoo.data.traces import TraceSet, replay
from nhzoo.envs.actions import TTY
from nhzoo.envs.game import Game
from nhzoo.errors import InputError, NhzooError, refusal
from nhzoo.runtime import files
from nhzoo.runtime.pool import OneByOne, run_items

_STALE_SECONDS = 3_600  # what a killed writer left behind; another may be at work in the cache


@dataclass
class PackReport:
    """What packing came to.

    `games` are the packed files that can be used, in the order of the dataset; `exportable` has
    (file, name, split, score) of each, the score None where not recorded.
    `refused` maps a game's name to the reason it was left out; `left_out` a file of the dataset
    that belongs to no game.
    """

    name: str
    folder: Path
    games: list[Path] = field(default_factory=list)
    exportable: list[tuple[Path, str, str, float | None]] = field(default_factory=list)
    frames: int = 0
    packed: int = 0
    already: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Item:
    name: str
    game: Any
    path: Path
    score: float | None


def pack(
    source: str | Path,
    fields: Sequence[str] = packed.DEFAULT_FIELDS,
    split: str | None = None,
    workers: int | None = None,
    cache: Path | None = None,
    progress: Callable[[PackReport, int], None] = lambda report, games: None,
    most: int | None = None,
) -> PackReport:
    """Pack the games of `source` that are not in the cache yet; run again to resume.

    A game that does not replay as recorded is refused, named in the report and never trained on.
    With `most`, only the first so many. Packed sets are checked and used where they are. `progress`
    is called with the report and the number of games as they finish.
    """
    for name in fields:
        packed.field_layout(name)
    data = open_demonstrations(source)
    folder = data.folder
    if not isinstance(data, PackedSet):
        folder = (cache or files.cache_folder()) / "frames" / data.name
        files.sweep(folder, older_than=_STALE_SECONDS)
    if isinstance(data, NldFolder) and not set(fields) <= {"keys", *TTY}:
        extra = ", ".join(sorted(set(fields) - {"keys", *TTY}))
        raise InputError(f"{data.folder}: ttyrecs hold what a terminal shows, they have no {extra}")
    items = _items(data, split, folder)[:most]
    report = PackReport(data.name, folder)
    if isinstance(data, NldFolder):
        report.left_out = dict(data.left_out)
    todo = []
    for number, item in enumerate(items):
        if isinstance(data, PackedSet):
            reason = _unusable(data, item, fields)
            if reason:
                report.refused[item.name] = reason
                continue
        elif not _is_packed(item.path, fields):
            todo.append((number, (item.game, item.path)))
            continue
        report.already += 1
        report.frames += packed.frames_in(item.path)
        progress(report, len(items))
    root = data.folder if isinstance(data, NldFolder) else None
    try:
        for key, result in run_items(PackTask, (tuple(fields), root), todo, workers):
            if isinstance(result, int):
                report.frames += result
                report.packed += 1
            else:
                report.refused[items[key].name] = result
            progress(report, len(items))
    finally:
        if todo:  # a worker that was killed has left what it was writing
            files.sweep(folder, older_than=_STALE_SECONDS)
    kept = [item for item in items if item.name not in report.refused]
    report.games = [item.path for item in kept]
    report.exportable = [
        (item.path, _name(item.game.game), item.game.split, item.score) for item in kept
    ]
    return report


class PackTask(OneByOne):
    """Packs games, one at a time; an item is (game, path)."""

    def __init__(self, fields: tuple[str, ...], nld: Path | None) -> None:
        self._fields = fields
        self._nld = NldFolder(nld) if nld else None
        self._game = Game(fields) if nld is None else None

    def work(self, item: tuple[Any, Path]) -> int | str:
        """The number of frames of the packed game, or why it was refused."""
        game, path = item
        source = self._nld.frames(game) if self._nld else replay(game, self._game)  # type: ignore[arg-type]
        meta = {"game": _name(game.game), "split": game.split}
        if self._nld:
            meta["has_keys"] = self._nld.has_keys
        elif game.expert_from:
            meta["expert_from"] = game.expert_from
        try:
            return packed.write_game(path, source, self._fields, meta)
        except NhzooError as error:
            return str(error)
        except OSError as error:
            hint = "NHZOO_CACHE names another cache"
            raise InputError(f"{path}: cannot be written: {refusal(error)} ({hint})") from None


def _items(data: TraceSet | NldFolder | PackedSet, split: str | None, folder: Path) -> list[_Item]:
    """The games of one split, and where their frames are or will be.

    A file's name holds a digest of what its game is, so that datasets of one name, or one that has
    grown or changed, do not get in each other's way.
    """
    found: list[tuple[Any, str, Path, float | None]]
    if isinstance(data, PackedSet):
        found = [(game, game.game, data.path(game), game.score) for game in data.games]
    elif isinstance(data, NldFolder):
        paths = {game: f"{_name(game.game)}-{data.fingerprint(game)}" for game in data.games}
        found = [
            (game, game.game, folder / (path + packed.SUFFIX), game.points)
            for game, path in paths.items()
        ]
    else:
        found = [
            (trace, trace.game, folder / f"{trace.game}-{trace.digest}{packed.SUFFIX}", trace.score)
            for trace in data.traces
        ]
    return [
        _Item(name, game, path, score)
        for game, name, path, score in found
        if split in (None, game.split)
    ]


def _name(game: str) -> str:
    """A game's name as a file's: ttyrecs are named by their path, which may hold anything."""
    name = game.removesuffix(".bz2").replace("/", "-")
    if files.is_plain_name(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return f"game-{plain[-64:]}-{hashlib.sha256(game.encode(errors='replace')).hexdigest()[:8]}"


def _unusable(data: PackedSet, item: _Item, fields: Sequence[str]) -> str:
    """Why a packed game cannot be used, "" when it can."""
    try:
        data.check(item.game)
        held = packed.GameFrames(item.path).fields
    except InputError as error:
        return str(error)
    lacking = ", ".join(sorted(set(fields) - set(held)))
    return f"{item.path}: was packed without {lacking}" if lacking else ""


def _is_packed(path: Path, fields: Sequence[str]) -> bool:
    """Whether a game is in the cache, whole, of this version and with all fields."""
    try:
        if path.exists() and set(fields) <= set((game := packed.GameFrames(path)).fields):
            game.check()
            return True
        return False
    except InputError:
        return False
