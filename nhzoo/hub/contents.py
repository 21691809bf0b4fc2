"""What repositories of ours may hold: nothing else of them is sent, fetched or looked at."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from nhzoo.errors import InputError
from nhzoo.runtime import files

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_MEGABYTE = files.MEGABYTE
_GIGABYTE = 1 << 30


@dataclass(frozen=True)
class Contents:
    """A kind of repository: its files by pattern, each with the most bytes it may have.

    Without the `required` ones it cannot be used. A card is not among them: the push writes it, and
    an agent plays without.
    """

    what: str
    kind: str  # model, dataset or space
    patterns: tuple[tuple[str, int], ...]
    required: tuple[str, ...]
    max_files: int  # in the whole repository, of ours or not
    max_bytes: int  # of ours

    def limit(self, path: str) -> int | None:
        """The most bytes a file may have; None for a file that is not in the list."""
        for pattern, limit in self.patterns:
            if re.fullmatch(pattern, path):
                return limit
        return None


CARD = ("README\\.md", _MEGABYTE)
RESULT_FILES = (
    (r"(result|evaluation)\.json", _MEGABYTE),
    (r"episodes\.jsonl", 64 * _MEGABYTE),
    (r"traces/[0-9]{1,6}\.xz", 4 * _MEGABYTE),
)

ENTRY = Contents(
    "zoo entry",
    "model",
    (
        CARD,
        (r"config\.json", _MEGABYTE),
        (r"model\.safetensors", 4 * _GIGABYTE),
        (r"parity\.safetensors", 4 * _MEGABYTE),
        (r"critic\.safetensors", _MEGABYTE),
        (r"curve\.csv", _MEGABYTE),
        (r"replay\.cast", 64 * _MEGABYTE),
        (rf"\.eval_results/{_NAME}\.yaml", _MEGABYTE),
        (rf"results/{_NAME}/result\.json", _MEGABYTE),
        (rf"results/{_NAME}/episodes\.jsonl", 64 * _MEGABYTE),
    ),
    ("config.json", "model.safetensors", "parity.safetensors"),
    2_000,
    5 * _GIGABYTE,
)
TRACES = Contents(
    "trace set",
    "dataset",
    (CARD, (r"games\.jsonl", 64 * _MEGABYTE), (rf"keys/{_NAME}\.xz", 16 * _MEGABYTE)),
    ("games.jsonl",),
    100_000,
    16 * _GIGABYTE,
)
PACKED = Contents(
    "set of packed frames",
    "dataset",
    (CARD, (r"packed\.json", 256 * _MEGABYTE), (rf"{_NAME}\.frames", _GIGABYTE)),
    ("packed.json",),
    100_000,
    256 * _GIGABYTE,
)
RESULTS = Contents(
    "set of results",
    "dataset",
    (
        CARD,
        (r"eval\.yaml", _MEGABYTE),
        (rf"{_NAME}/{_NAME}/submission\.json", 2 * _MEGABYTE),
        *((rf"{_NAME}/{_NAME}/{pattern}", limit) for pattern, limit in RESULT_FILES),
    ),
    (),
    500_000,
    16 * _GIGABYTE,
)
SITE = Contents(
    "site",
    "space",
    (
        CARD,
        (
            rf"({_NAME}/){{0,4}}{_NAME}\.(html|css|js|json|csv|svg|png|ico|txt|xml|cast|gz|woff2)",
            32 * _MEGABYTE,
        ),
    ),
    ("index.html",),
    50_000,
    _GIGABYTE,
)


def kind_of(folder: Path) -> Contents:
    """What a local folder is, by a look at its files.

    Never a site: many a folder has an index.html, and not all that lies beside it is to be public.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    for contents in (ENTRY, TRACES, PACKED):
        if (folder / contents.required[0]).is_file():
            return contents
    if any(folder.glob("*/*/result.json")):
        return RESULTS
    if (folder / "result.json").is_file():
        raise InputError(
            f"{folder}: is one result: send it with its entry (push ENTRY --results {folder}), or "
            "push the folder that holds it as AGENT/PROTOCOL"
        )
    raise InputError(
        f"{folder}: is neither an entry (config.json), a dataset (games.jsonl, packed.json) nor "
        "results (AGENT/PROTOCOL/result.json); a site goes to --repo hf://spaces/ORG/NAME"
    )


def dataset_of(paths: Collection[str], what: str) -> Contents:
    """Which kind of dataset these files are."""
    for contents in (TRACES, PACKED):
        if contents.required[0] in paths:
            return contents
    if any(re.fullmatch(rf"{_NAME}/{_NAME}/result\.json", path) for path in paths):
        return RESULTS
    raise InputError(f"{what}: has neither games.jsonl, packed.json nor results; not one of ours")


def check_paths(paths: Collection[str], what: str) -> None:
    """InputError when a path could lead out of a folder: a hub that lists one is not to be trusted.

    Those not in the list are never fetched anyway; they say what to think of the rest.
    """
    for path in paths:
        odd = not path or len(path) > 1_000 or not path.isprintable() or "\\" in path
        if odd or any(part in ("", ".", "..") for part in path.split("/")):
            raise InputError(f"{what}: lists {path[:100]!r}, no name inside a folder; not trusted")


def local_files(folder: Path, contents: Contents) -> dict[str, Path]:
    """The files of a folder that are in the list, by path; links and too large ones are refused."""
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted([*names, *(f for f in folders if (Path(parent) / f).is_symlink())]):
            full = Path(parent) / name
            path = full.relative_to(folder).as_posix()
            limit = contents.limit(path)
            if limit is None and not full.is_dir():
                continue
            if full.is_symlink():
                raise InputError(f"{full}: is a link; only files inside the folder are sent")
            assert limit is not None
            if not full.is_file():
                raise InputError(f"{full}: not a regular file")
            if full.stat().st_size > limit:
                raise InputError(f"{full}: larger than the {limit:,} bytes allowed here")
            found[path] = full
    missing = [path for path in contents.required if path not in found]
    if missing:
        raise InputError(f"{folder}: has no {missing[0]}, so it is no {contents.what}")
    return found
