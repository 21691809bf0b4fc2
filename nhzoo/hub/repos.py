"""Repositories on the hub: their names, and which files of which size they may hold.

A name is `hf://org/name@revision`, `hf://datasets/org/name` or a bare one. Nothing but what is
listed here is sent, fetched or looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from nhzoo.errors import InputError
from nhzoo.runtime import files

ORGANISATION = "nhzoo"
"""Whose repositories bare names mean."""

HUB_URL = "https://huggingface.co"
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_SHA = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Ref:
    """A repository, and a revision of it: branch, tag, commit or refs/pr/N; None is main."""

    repo: str
    kind: str = "model"
    revision: str | None = None

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"hf://{PREFIXES[self.kind]}{self.repo}{at}"

    @property
    def owner(self) -> str:
        """The user or organisation."""
        return self.repo.partition("/")[0]

    @property
    def name(self) -> str:
        """The name without the owner."""
        return self.repo.partition("/")[2]

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit: the same bytes for ever."""
        return self.revision is not None and _SHA.fullmatch(self.revision) is not None

    @property
    def url(self) -> str:
        """The page of the repository on the public hub."""
        return f"{HUB_URL}/{PREFIXES[self.kind]}{self.repo}"

    def at(self, revision: str | None) -> Ref:
        """The same repository at another revision."""
        return replace(self, revision=revision)


def organisation() -> str:
    """Whose repositories bare names mean: $NHZOO_ORG, else the project's."""
    name = os.environ.get("NHZOO_ORG") or ORGANISATION
    if not _is_segment(name):
        raise InputError(f"NHZOO_ORG={name!r}: is not the name of an organisation")
    return name


def is_name(text: str) -> bool:
    """Whether a bare text can be the name of a repository, with a revision or without."""
    name, _, revision = text.partition("@")
    return _is_segment(name) and (not revision or _is_revision(revision))


def parse(text: str, kind: str = "model") -> Ref:
    """`hf://[datasets/|spaces/]org/name[@revision]`, or the same without hf:// or org.

    `kind` is meant by a text that does not say, without hf://. InputError for whatever could be no
    name: nothing of it may reach a path or an address.
    """
    rest = text.removeprefix("hf://")
    kind = "model" if rest != text else kind
    for known, prefix in PREFIXES.items():
        if prefix and rest.startswith(prefix):
            kind, rest = known, rest.removeprefix(prefix)
            break
    repo, at, revision = rest.partition("@")
    parts = repo.split("/")
    if len(parts) == 1 and not text.startswith("hf://"):
        parts = [organisation(), *parts]
    if len(parts) != 2 or not all(map(_is_segment, parts)) or (at and not _is_revision(revision)):
        raise InputError(
            f"{text[:200]!r} names nothing on the hub: give a name, org/name or hf://org/name, "
            "and @revision if need be"
        )
    return Ref("/".join(parts), kind, revision or None)


def _is_segment(text: str) -> bool:
    """What the hub allows, but for names that begin with "_" or end in a way of its own."""
    plain = _SEGMENT.fullmatch(text) is not None
    return plain and not re.search(r"--|\.\.|[.-]$|\.git$|\.lock$", text)


def _is_revision(text: str) -> bool:
    plain = _REVISION.fullmatch(text) is not None
    return plain and not re.search(r"\.\.|//|/\.|[./]$|\.lock(/|$)", text)


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
