"""The catalog of datasets: bundled, added by the user, or any folder.

A dataset that was added is one small JSON file, `<data folder>/datasets/<name>.json`, that names
its folder: nothing is copied, and deleting that file forgets the dataset.

The games of a result can be measured on, never trained on. What `nhzoo evaluate autoascend` wrote
holds games that nobody has trained on, since their seeds are a protocol's: the expert's held-out
games, many more than a dataset can spare.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nhzoo.data.download import download, unzip
from nhzoo.data.nld import NldFolder, layout
from nhzoo.data.packed_set import PackedSet, is_packed_set, open_packed
from nhzoo.data.traces import (
    BUNDLED,
    MAX_KEYS,
    Trace,
    TraceSet,
    bundled_names,
    is_trace_set,
    open_traces,
)
from nhzoo.envs.protocols import get_protocol
from nhzoo.errors import InputError
from nhzoo.runtime import files

SPLIT = "test"
"""Of all these games, so that training, which takes `train`, finds none."""


def is_result(folder: Path) -> bool:
    """Whether `folder` looks like what `nhzoo evaluate` writes."""
    return (folder / "result.json").is_file() and (folder / "episodes.jsonl").is_file()


def open_result(folder: Path) -> TraceSet:
    """The games of a result folder, by their number in its protocol.

    Those without a key, or voided, are left out. InputError for a game that is not its protocol's.
    """
    result = files.read_json(folder / "result.json", 16 * files.MEGABYTE)
    agent, protocol = result.get("agent"), get_protocol(str(result.get("protocol")))
    name = f"{agent}-{protocol.id}"
    where = folder / "episodes.jsonl"
    traces = []
    for row in files.read_jsonl(where):
        index, length, sha256 = row.get("index"), row.get("keys"), row.get("sha256")
        if not isinstance(index, int) or not 0 <= index < protocol.games:
            raise InputError(f"{where}: {index!r} is no game of {protocol.id}")
        spec = protocol.game(index)
        if (row.get("core"), row.get("disp")) != (spec.core, spec.disp):
            raise InputError(f"{where}: game {index} has other seeds than {protocol.id} gives it")
        if not isinstance(length, int) or not 0 <= length <= MAX_KEYS:
            raise InputError(f"{where}: game {index} has {length!r} keys")
        if not isinstance(sha256, str) or not isinstance(row.get("score"), (int, float)):
            raise InputError(f"{where}: game {index} lacks its sha256 or its score")
        if length and row.get("end_status") != "voided":
            traces.append(
                Trace(
                    game=str(index),
                    spec=spec,
                    length=length,
                    sha256=sha256,
                    score=float(row["score"]),
                    split=SPLIT,
                    frame_hashes=(),
                    path=folder / "traces" / f"{index}.xz",
                    end_status=str(row.get("end_status")),
                )
            )
    if not traces:
        raise InputError(f"{where}: holds no game")
    if not files.is_plain_name(name, 64):
        name = f"result-{protocol.id}"
    numbers = [int(trace.game) for trace in traces]
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{where}: a game is listed twice")
    traces.sort(key=lambda trace: int(trace.game))
    return TraceSet(name, folder, tuple(traces))


Progress = Callable[[float, float, str], None]
"""Called with how much is done, how much there is (0: not known), and what is being done."""

TRACES, PACKED, RESULT = "traces", "packed", "result"
KINDS = (TRACES, "nld-aa", "nld-nao", PACKED, RESULT)

_DEPTH, _WIDTH = 3, 1_000  # how far below a given folder the data is looked for


@dataclass(frozen=True)
class Source:
    """One dataset that can be named. `games` and `steps` are None where not known.

    `note` is a line for what is odd about it, such as a folder that is gone; else "".
    """

    name: str
    kind: str
    folder: Path
    games: int | None
    steps: int | None
    bundled: bool = False
    note: str = ""


@dataclass(frozen=True)
class Download:
    """A public dataset that `add` fetches. `limit` bounds the archive, in bytes.

    Its publisher gives the size in words only (`published`) and no hash, so neither is compared.
    """

    url: str
    published: str
    limit: int


DOWNLOADS = {
    "nld-aa-taster": Download(
        "https://dl.fbaipublicfiles.com/nld/nld-aa-taster/nld-aa-taster.zip", "1.6GB", 4 << 30
    )
}
"""By name. nld-aa-taster is a random part of NLD-AA (AutoAscend): a zip of nle_data folders."""


def data_folder() -> Path:
    """Where datasets are listed and fetched to: $NHZOO_DATA, else nhzoo in the user's data."""
    return files.user_folder("NHZOO_DATA", "XDG_DATA_HOME", ".local/share")


def open_demonstrations(source: str | Path) -> TraceSet | NldFolder | PackedSet:
    """A dataset by its bundled or added name, a folder, or hf://datasets/org/name@revision.

    With a separator in it ("./games") it is a folder; without, a known name comes first. An NLD-NAO
    folder has no keys (`NldFolder.has_keys`): what trains on actions must refuse it.
    """
    name = str(source)
    if name.startswith("hf://"):
        from nhzoo.hub.download import pull_dataset

        return _open_folder(pull_dataset(name).folder)
    if os.sep in name or name in (os.curdir, os.pardir):
        return _open_folder(Path(source))
    if name in bundled_names():
        return open_traces(name)
    if files.is_plain_name(name, 64) and _entry(name).is_file():
        added = _read(name)
        if added.note:
            raise InputError(f"{name}: {added.note}")
        return _open_folder(added.folder)
    if not name or not Path(source).is_dir():
        known = ", ".join(s.name for s in list_sources())
        hint = f"; it can be fetched: nhzoo data add {name}" if name in DOWNLOADS else ""
        raise InputError(f"no dataset {name!r}: give a folder or one of {known}{hint}")
    return _open_folder(Path(source))


def splits(source: str | Path) -> list[str]:
    """The names of a dataset's splits."""
    data = open_demonstrations(source)
    games = data.traces if isinstance(data, TraceSet) else data.games
    return sorted({game.split for game in games})


def list_sources() -> list[Source]:
    """All that has a name, bundled sets first; a broken entry is listed with a note."""
    found = [_bundled(name) for name in bundled_names()]
    for path in sorted((data_folder() / "datasets").glob("*.json")):
        try:
            found.append(_read(path.stem))
        except InputError as error:
            found.append(Source(path.stem, "?", Path(), None, None, note=str(error)))
    return found


def add(
    source: str | Path,
    name: str | None = None,
    fetch_to: Path | None = None,
    url: str | None = None,
    progress: Progress = lambda done, total, what: None,
) -> Source:
    """Give a folder a name, by default its own; or fetch a dataset of DOWNLOADS and name it.

    The data is opened first, and may lie up to three levels below the folder given. A name that is
    another folder's is refused; the same folder again changes nothing but the counts. A fetched
    archive goes into `fetch_to` (default: downloads in the data folder), is unpacked there and then
    deleted; interrupted, it resumes. `url` takes the place of the published address.
    """
    known = DOWNLOADS.get(str(source))
    if known and not Path(source).is_dir():
        name = _free_name(name or str(source))
        if _entry(name).is_file() and not (added := _read(name)).note:
            return added
        folder = _fetched(str(source), known, fetch_to, url, progress)
    elif url or fetch_to:
        names = ", ".join(DOWNLOADS)
        raise InputError(f"{source}: an address fits a dataset that is fetched only ({names})")
    else:
        folder = _data_below(Path(source))
    folder = folder.resolve()
    name = _free_name(name or Path(source).resolve().name)
    if _entry(name).is_file() and (taken := _read(name)).folder != folder:
        raise InputError(f"{name}: is already the name of {taken.folder}; choose one with --name")
    progress(0, 0, "reading")
    kind, games, steps = _examine(folder)
    facts = {
        "name": name,
        "kind": kind,
        "folder": str(folder),
        "games": games,
        "steps": steps,
        "added": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    files.atomic_write(_entry(name), files.dump_json(facts))
    return Source(name, kind, folder, games, steps)


def kind_of(folder: Path) -> str | None:
    """Which of KINDS a folder holds, by a look at its files; None for none of them."""
    if is_trace_set(folder):
        return TRACES
    if is_result(folder):
        return RESULT
    return PACKED if is_packed_set(folder) else layout(folder)


def _entry(name: str) -> Path:
    return data_folder() / "datasets" / f"{name}.json"


def _free_name(name: str) -> str:
    if not files.is_plain_name(name, 64):
        raise InputError(
            f"{name!r} cannot name a dataset: letters, digits, '.', '_' and '-' can, 64 at most; "
            "choose one with --name"
        )
    if name in bundled_names():
        raise InputError(f"{name}: is the name of a bundled dataset; choose another with --name")
    return name


def _read(name: str) -> Source:
    """An added dataset; InputError when its entry is damaged."""
    path = _entry(name)
    row = files.read_json(path)
    kind, folder = row.get("kind"), row.get("folder")
    if kind not in KINDS or not isinstance(folder, str) or not Path(folder).is_absolute():
        raise InputError(f"{path}: not the entry of a dataset; delete it and add the dataset again")
    counts = [row[key] if isinstance(row.get(key), int) else None for key in ("games", "steps")]
    try:
        gone = not Path(folder).is_dir()
    except (OSError, ValueError):  # a path that cannot be one
        gone = True
    note = f"its folder {folder[:200]} is gone; delete {path}" if gone else ""
    return Source(name, kind, Path(folder), counts[0], counts[1], note=note)


def _bundled(name: str) -> Source:
    traces = open_traces(name).traces
    steps = sum(trace.length for trace in traces)
    return Source(name, TRACES, BUNDLED / name, len(traces), steps, bundled=True)


def _open_folder(folder: Path) -> TraceSet | NldFolder | PackedSet:
    if not folder.is_dir():
        raise InputError(f"no dataset {str(folder)!r}: there is no such folder")
    kind = kind_of(folder)
    if kind == PACKED:
        return open_packed(folder)
    if kind == RESULT:
        return open_result(folder)
    if kind is None:
        raise InputError(
            f"{folder}: not a trace set (no games.jsonl), packed frames (packed.json) or a result, "
            "and no ttyrecs were found below it"
        )
    return open_traces(folder) if kind == TRACES else NldFolder(folder)


def _examine(folder: Path) -> tuple[str, int, int | None]:
    """(kind, games, steps) of a folder, which is opened for it."""
    opened = _open_folder(folder)
    if isinstance(opened, NldFolder):
        return opened.kind, len(opened.games), None
    if isinstance(opened, PackedSet):
        for game in opened.games:
            opened.check(game)
        return PACKED, len(opened.games), sum(game.frames for game in opened.games)
    return TRACES, len(opened.traces), sum(trace.length for trace in opened.traces)


def _data_below(folder: Path) -> Path:
    """The folder that holds data, `folder` itself or the only one a few levels below it."""
    if not folder.is_dir():
        known = ", ".join(DOWNLOADS)
        raise InputError(f"{folder}: no such folder, and none of the datasets to fetch ({known})")
    level = [folder]
    for _ in range(_DEPTH + 1):
        holding = [path for path in level if kind_of(path)]
        if len(holding) > 1:
            raise InputError(f"{folder}: holds several datasets; add {holding[0]} or another one")
        if holding:
            return holding[0]
        below = (path for parent in level for path in sorted(parent.iterdir()))
        level = [path for path in below if path.is_dir() and not path.is_symlink()][:_WIDTH]
    raise InputError(
        f"{folder}: no games.jsonl, ttyrecs or packed frames were found in it or {_DEPTH} levels "
        "below"
    )


def _fetched(
    name: str, known: Download, fetch_to: Path | None, url: str | None, progress: Progress
) -> Path:
    """Download and unpack what is not there yet; the folder with the data."""
    place = fetch_to or data_folder() / "downloads"
    archive, folder = place / f"{name}.zip", place / name
    done = place / f"{name}.unpacked"
    if not (done.is_file() and folder.is_dir()):
        where = url or known.url
        download(
            where,
            archive,
            limit=known.limit,
            progress=lambda at, total: progress(at, total, f"downloading {where}"),
        )
        unzip(archive, folder, progress=lambda at, total: progress(at, total, "unpacking"))
        files.atomic_write(done, b"")
    data = _data_below(folder)
    archive.unlink(missing_ok=True)
    return data
