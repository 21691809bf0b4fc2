"""Pulling entries and datasets from the hub: bounded, checked, in place only when whole.

What is fetched goes through the hub's own cache (`HF_HOME`), a file at a time, so a retry asks only
for what is missing. A revision that is whole is linked or copied into
`<cache>/hub/<kind>/<owner>/<commit>/<name>`: a plain folder, from then on used without a request.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nhzoo.errors import InputError
from nhzoo.hub import client
from nhzoo.hub.errors import NotThere, is_offline
from nhzoo.hub.repos import ENTRY, RESULTS, Contents, Ref, check_paths, dataset_of, parse
from nhzoo.runtime import files
from nhzoo.runtime.console import ProgressCallback, no_progress

_THREADS = 8

_HUBS_OWN = ".gitattributes"  # in every repository
_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


@dataclass(frozen=True)
class Pulled:
    """A revision in its folder. `ref` is pinned; `left_out` counts files that are none of ours."""

    ref: Ref
    folder: Path
    requested: int = 0
    left_out: int = 0


def pull_dataset(text: str, progress: ProgressCallback = no_progress) -> Pulled:
    """A trace set, packed frames or results by `hf://datasets/org/name@revision`, or a name."""
    ref = parse(text, "dataset")
    if ref.kind != "dataset":
        raise InputError(f"{ref}: is no dataset; datasets are hf://datasets/org/name")
    return pull(ref, progress)


def pull(ref: Ref, progress: ProgressCallback = no_progress) -> Pulled:
    """Bring a revision of a model or dataset here, unless it is: see the module.

    InputError for all that goes wrong.
    """
    pinned = client.resolve(ref)
    place = _place(pinned)
    if place.is_dir():
        return Pulled(pinned, place)
    limit = ENTRY.max_files if ref.kind == "model" else RESULTS.max_files
    offline = is_offline()
    listed = client.cached_files(pinned) if offline else client.list_files(pinned, limit)
    if offline and not listed:
        raise NotThere(
            f"{ref}: is not in the cache, or not all of it, and HF_HUB_OFFLINE is set; fetch it "
            "once without that"
        )
    check_paths(listed, str(ref))
    contents = _contents(ref, listed)
    wanted = select_files(ref, listed, contents)
    paths = _fetch_all(pinned, wanted, progress)
    _settle(paths, place)
    strange = [path for path in listed if contents.limit(path) is None and path != _HUBS_OWN]
    return Pulled(pinned, place, len(paths), len(strange))


def select_files(
    ref: Ref, listed: Mapping[str, client.RemoteFile], contents: Contents
) -> list[client.RemoteFile]:
    """The files of the list, once none is too large and none that is needed is missing."""
    wanted = []
    for path, file in listed.items():
        limit = contents.limit(path)
        if limit is None:
            continue
        if not 0 <= file.size <= limit:
            raise InputError(
                f"{ref}: {path} has {file.size:,} bytes, at most {limit:,} are fetched; "
                f"not a {contents.what} of ours"
            )
        wanted.append(file)
    folded = Counter(file.path.casefold() for file in wanted)
    if twice := [file.path for file in wanted if folded[file.path.casefold()] > 1]:
        raise InputError(
            f"{ref}: lists {twice[0]} and {twice[1]}, which are one file on some disks; not trusted"
        )
    missing = [path for path in contents.required if path not in listed]
    if missing:
        pickle = next((path for path in listed if path.endswith(_PICKLES)), None)
        if pickle and missing == ["model.safetensors"]:
            raise InputError(
                f"{ref}: its weights are a pickle ({pickle}), which is never read; ask its author "
                "for model.safetensors"
            )
        raise InputError(f"{ref}: has no {missing[0]}, so it is no {contents.what}")
    total = sum(file.size for file in wanted)
    if total > contents.max_bytes or len(wanted) > contents.max_files:
        raise InputError(
            f"{ref}: {len(wanted):,} files of {total:,} bytes, at most {contents.max_bytes:,} "
            f"bytes are fetched; not a {contents.what} of ours"
        )
    # config.json first: by it the hub counts a download.
    return sorted(wanted, key=lambda file: (file.path != "config.json", file.path))


def copy_to(pulled: Pulled, out: Path) -> None:
    """Copy a pulled folder to `out`, a new one, to be changed at will."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is not empty; give a new folder")
    held = {
        path.relative_to(pulled.folder).as_posix(): path
        for path in pulled.folder.rglob("*")
        if path.is_file()
    }
    _settle(held, out, link=False)


def _contents(ref: Ref, listed: Mapping[str, client.RemoteFile]) -> Contents:
    if ref.kind == "dataset":
        return dataset_of(listed, str(ref))
    return ENTRY


def _place(pinned: Ref) -> Path:
    assert pinned.pinned and pinned.revision
    base = files.cache_folder() / "hub" / f"{pinned.kind}s"
    return base / pinned.owner / pinned.revision / pinned.name


def _fetch_all(
    pinned: Ref, wanted: list[client.RemoteFile], progress: ProgressCallback
) -> dict[str, Path]:
    total = sum(file.size for file in wanted)
    done: dict[str, float] = {}
    ended = threading.Event()  # one has failed, or Ctrl-C: the others need not go on

    def fetch(file: client.RemoteFile) -> Path:
        def note(count: float, size: float) -> None:
            if ended.is_set():
                raise InputError(f"{pinned}: {file.path} was not fetched; run again")
            done[file.path] = count
            progress(sum(done.copy().values()), total)

        path = client.fetch(pinned, file, note)
        note(file.size, file.size)
        return path

    first, rest = wanted[:1], wanted[1:]
    paths = {file.path: fetch(file) for file in first}
    with ThreadPoolExecutor(_THREADS) as threads:
        jobs = [threads.submit(fetch, file) for file in rest]
        try:
            for file, job in zip(rest, jobs, strict=True):
                paths[file.path] = job.result()
        except BaseException:
            ended.set()
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    return paths


def _settle(paths: Mapping[str, Path], place: Path, link: bool = True) -> None:
    """Put files into `place`, all or none; whoever else was first has put the same there."""
    with files.temporary_folder(place) as temporary:
        whole = temporary / "whole"
        for name, path in paths.items():
            target = whole / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _put(path.resolve(), target, link)
        files.sync(whole / name for name in paths)
        with contextlib.suppress(OSError):
            place.rmdir()  # an empty one may be replaced
        try:
            os.rename(whole, place)
        except OSError:
            if not place.is_dir():
                raise


def _put(source: Path, target: Path, link: bool) -> None:
    if link:
        with contextlib.suppress(OSError):  # another disk, or one without links
            os.link(source, target)
            return
    shutil.copyfile(source, target)
