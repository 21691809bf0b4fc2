"""What a row of the board is known by: the digest of its games, and that of every file it has.

The first is what seeds of re-runs are drawn from, and what lines of the log from before 2026-11-29
hold. The second was added to them by `nhzoo leaderboard seal`.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from nhzoo.errors import InputError
from nhzoo.leaderboard.submission import MAX_MANIFEST
from nhzoo.leaderboard.submission import NAME as MANIFEST
from nhzoo.runtime import files

VERSION = 2
"""Of `whole_digest`; it is part of what is hashed."""

MOST_FILES = 250_000


def digest(folder: Path) -> str:
    """SHA-256 over those of `result.json`, `episodes.jsonl` and, if it is there, the manifest."""
    whole = hashlib.sha256()
    for name, limit in (
        ("result.json", files.MEGABYTE),
        ("episodes.jsonl", 64 * files.MEGABYTE),
        (MANIFEST, MAX_MANIFEST),
    ):
        if name != MANIFEST or (folder / name).exists():
            data = files.read_bounded(files.inside(folder, name), limit)
            whole.update(hashlib.sha256(data).digest())
    return whole.hexdigest()


def whole_digest(folder: Path) -> str:
    """SHA-256 of every file of a row: of lines "path SHA-256", sorted, after a line that names it.

    InputError for a link, or for what is no file: neither can be hashed.
    """
    found: dict[str, str] = {}
    for parent, folders, names in os.walk(folder, onerror=_raise):
        for name in (*folders, *names):
            path = Path(parent) / name
            if path.is_symlink():
                raise InputError(f"{path}: is a link; a row of the board has files alone")
        for name in names:
            path = Path(parent) / name
            with files.open_regular(path) as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(folder).as_posix()] = sha256
            if len(found) > MOST_FILES:
                raise InputError(f"{folder}: holds more than {MOST_FILES:,} files; remove some")
    lines = [f"nhzoo:row:{VERSION}"] + [f"{name!a} {found[name]}" for name in sorted(found)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _raise(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None
