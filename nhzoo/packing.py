"""From demonstrations to packed frames: replayed or converted on all cores, each game checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nhzoo import frames as packed
from nhzoo.envs import TTY, Game
from nhzoo.errors import InputError, NhzooError
from nhzoo.nld import NldFolder, NldGame, is_nld_folder
from nhzoo.replay import replay
from nhzoo.traces import Trace, TraceSet, bundled_names, open_traces
from nhzoo.workers import Crashed, run_tasks


def cache_folder() -> Path:
    """Where packed frames are kept: $NHZOO_CACHE, else nhzoo in the user's cache folder."""
    if "NHZOO_CACHE" in os.environ:
        return Path(os.environ["NHZOO_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nhzoo"


@dataclass
class PackReport:
    """What packing came to. `refused` maps a game's name to the reason it was left out."""

    folder: Path
    games: list[Path] = field(default_factory=list)
    frames: int = 0
    packed: int = 0
    already: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def open_demonstrations(source: str | Path) -> TraceSet | NldFolder:
    """A bundled dataset's name, a trace-set folder, or an NLD folder."""
    if source not in bundled_names() and is_nld_folder(Path(source)):
        return NldFolder(Path(source))
    return open_traces(source)


def pack(
    source: str | Path,
    fields: Sequence[str] = packed.DEFAULT_FIELDS,
    split: str | None = None,
    workers: int | None = None,
    cache: Path | None = None,
    progress: Callable[[PackReport, int], None] = lambda report, games: None,
) -> PackReport:
    """Pack the games of `source` that are not in the cache yet; run again to go on.

    A game that does not replay as recorded is refused, named in the report and never trained on.
    `progress` is called with the report and the number of games as they finish.
    """
    demonstrations = open_demonstrations(source)
    games: dict[str, Trace | NldGame]
    if isinstance(demonstrations, NldFolder):
        fields = [name for name in fields if name in TTY]
        chosen = [game for game in demonstrations.games if split in (None, game.split)]
        games = {_file_name(game.game): game for game in chosen}
        digest = demonstrations.digest
    else:
        games = {trace.game: trace for trace in demonstrations.select(split)}
        digest = demonstrations.digest
    for name in fields:
        packed.field_layout(name)
    folder = (cache or cache_folder()) / "frames" / f"{demonstrations.name}-{digest}"
    report = PackReport(folder)
    todo = []
    for number, (name, game) in enumerate(games.items()):
        path = folder / f"{name}.frames"
        report.games.append(path)
        if (length := _packed_length(path, fields)) is None:
            todo.append((number, (game, path)))
        else:
            report.already += 1
            report.frames += length
    progress(report, len(games))
    names = list(games)
    root = demonstrations.folder if isinstance(demonstrations, NldFolder) else None
    cpus = workers or os.cpu_count() or 1
    for key, result in run_tasks(PackTask, (tuple(fields), root), todo, cpus):
        if isinstance(result, int):
            report.frames += result
            report.packed += 1
        else:
            reason = f"NLE exits with {result.exit_code}" if isinstance(result, Crashed) else result
            assert isinstance(key, int)
            report.refused[names[key]] = reason
        progress(report, len(games))
    report.games = [path for path in report.games if path.stem not in report.refused]
    return report


class PackTask:
    """Packs one game at a time, in a worker process."""

    slots = 1

    def __init__(self, fields: tuple[str, ...], nld: Path | None) -> None:
        self._fields = fields
        self._nld = NldFolder(nld) if nld else None
        self._game = Game(fields) if nld is None else None
        self._item: tuple[int, tuple[Any, Path]] | None = None

    def start(self, key: Hashable, item: Any) -> None:
        """Take one (game, path)."""
        assert isinstance(key, int)
        self._item = key, item

    def advance(
        self, mark: Callable[[int, float, float], None]
    ) -> Iterable[tuple[Hashable, int | str]]:
        """Pack the game; the result is its number of frames, or why it was refused."""
        assert self._item is not None
        key, (game, path) = self._item
        mark(key, 0, 0)
        source = self._nld.frames(game) if self._nld else replay(game, self._game)  # type: ignore[arg-type]
        meta = {"game": game.game, "split": game.split}
        try:
            yield key, packed.write_game(path, source, self._fields, meta)
        except NhzooError as error:
            yield key, str(error)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def _packed_length(path: Path, fields: Sequence[str]) -> int | None:
    if not path.exists():
        return None
    try:
        game = packed.GameFrames(path)
    except InputError:
        return None  # of another version or damaged: packed again
    return game.length if set(fields) <= set(game.fields) else None


def _file_name(ttyrec: str) -> str:
    return ttyrec.removesuffix(".bz2").replace("/", "-")
