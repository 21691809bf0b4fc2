"""The format of a submission: a result with every key, its entry and its contact, in one folder.

`submission.json` (see leaderboard/SUBMITTING.md) names every other file by its SHA-256. All of it
comes from anybody: it is bounded before it is read, and nothing of it is run.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter

from nhzoo.envs.protocols import PROTOCOLS, Protocol
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation import results
from nhzoo.hub.repos import RESULT_FILES, parse
from nhzoo.runtime import files

NAME = "submission.json"
SCHEMA = 1
KINDS = ("bc", "rl", "bot", "other")
ENTRY_FOLDER = "entry"
MAX_MANIFEST = 2 * files.MEGABYTE
MAX_BUNDLED_WEIGHTS = 64 * files.MEGABYTE
MAX_BYTES = 1 << 30

_FILES = (
    *RESULT_FILES,
    (rf"{ENTRY_FOLDER}/(config\.json|curve\.csv|README\.md)", files.MEGABYTE),
    (rf"{ENTRY_FOLDER}/model\.safetensors", MAX_BUNDLED_WEIGHTS),
    (rf"{ENTRY_FOLDER}/parity\.safetensors", 4 * files.MEGABYTE),
)
_ROW_BYTES = 2_000  # of a line of episodes.jsonl, far more than one has
AGENT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


def check_text(text: object, what: str, longest: int = 200, empty: bool = False) -> str:
    """One line of plain text: no control, format or private characters, no markup.

    Such characters make one name look like another, or reach a terminal or a page as orders.
    """
    if not isinstance(text, str) or len(text) > longest or (not text.strip() and not empty):
        raise InputError(f"{what}: one line of 1 to {longest} characters is needed")
    odd = [c for c in text if unicodedata.category(c)[0] == "C" or c in "<>`\u2028\u2029"]
    if odd or unicodedata.normalize("NFC", text) != text:
        raise InputError(f"{what}: has a character that is not allowed here ({odd[:1]!a})")
    return text


def _date(text: str) -> str:
    try:
        if date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise ValueError("a date like 2026-11-22 is needed")


def _source(source: str) -> str:
    if source != ENTRY_FOLDER:
        ref = parse(source) if source.startswith("hf://") else None
        if ref is None or ref.kind != "model" or not ref.pinned:
            raise ValueError(f"hf://org/name@COMMIT or {ENTRY_FOLDER} is needed")
    return source


def _file_name(name: str) -> str:
    if not any(re.fullmatch(pattern, name, re.ASCII) for pattern, _ in _FILES):
        raise ValueError("names no file of a submission")
    return name


def _matching(pattern: str) -> Any:
    return Field(pattern=rf"^({pattern})$")


def _line(what: str, longest: int, empty: bool = False) -> Any:
    return AfterValidator(lambda text: check_text(text, what, longest, empty))


_Sha256 = Annotated[str, _matching("[0-9a-f]{64}")]
_STRICT = ConfigDict(extra="forbid", strict=True)
_Positive = Annotated[int | float, Field(gt=0, lt=1e40)]


@dataclass(frozen=True)
class EntryPointer:
    """Which weights played. `source` is `hf://org/name@commit`, or `entry`: the folder of that name
    in the submission.
    """

    __pydantic_config__ = _STRICT

    source: Annotated[str, Field(max_length=300), AfterValidator(_source)]
    config_sha256: _Sha256
    weights_sha256: _Sha256


@dataclass(frozen=True)
class Claims:
    """What the entry says of itself: parameters, training FLOPs, samples, held-out loss (nats)."""

    __pydantic_config__ = _STRICT

    params: Annotated[int, Field(gt=0, lt=10**40)] | None = None
    flops: _Positive | None = None
    samples: _Positive | None = None
    held_out_loss: _Positive | None = None


@dataclass(frozen=True)
class Manifest:
    """What `submission.json` holds. `files` maps every other file to its SHA-256.

    `reported_only`: it is to be listed as claimed, not ranked; then it needs no traces, and not
    every game.
    """

    __pydantic_config__ = _STRICT

    id: Annotated[str, _matching("[a-z0-9][a-z0-9-]{0,127}")]
    agent: Annotated[str, _matching(AGENT)]
    protocol: Annotated[str, _matching("[a-z0-9-]{1,64}")]
    date: Annotated[str, AfterValidator(_date)]
    kind: Annotated[str, _matching("|".join(KINDS))]
    contact: Annotated[str, _line("contact", 200)]
    licence: Annotated[str, _matching("[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")]
    reported_only: bool
    entry: EntryPointer | None
    claims: Claims
    files: Annotated[
        Mapping[Annotated[str, AfterValidator(_file_name)], _Sha256],
        Field(max_length=2 * max(p.games for p in PROTOCOLS.values())),
    ]
    description: Annotated[str, _line("description", 500, empty=True)] = ""
    code: Annotated[str, _matching(r"(https://[A-Za-z0-9._~/%@:+#?=&-]{1,190})?")] = ""
    schema_version: int = SCHEMA

    def as_json(self) -> dict[str, Any]:
        """As `submission.json` has it, sealed with a hash of itself."""
        value = asdict(self)
        value = {"schema_version": value.pop("schema_version"), **value}
        return files.seal(value)


@dataclass(frozen=True)
class Submission:
    """A submission that is whole: each file is the one that its manifest names."""

    folder: Path
    manifest: Manifest
    result: Mapping[str, Any]
    protocol: Protocol
    rows: list[results.Row] = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of `submission.json`, which binds every byte of it."""
        return digest(self.folder)


def digest(folder: Path) -> str:
    """SHA-256 of a folder's `submission.json`."""
    data = files.read_bounded(files.inside(folder, NAME), MAX_MANIFEST)
    return hashlib.sha256(data).hexdigest()


def make_id(agent: str, protocol: str, episodes: bytes) -> str:
    """The id of a submission: agent, protocol, and eight digits for its games."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{agent}-{protocol}".lower()).strip("-")
    return f"{words}-{hashlib.sha256(episodes).hexdigest()[:8]}"


def read_manifest(folder: Path) -> Manifest:
    """The checked `submission.json` of a folder; the files that it names are not looked at."""
    path = folder / NAME
    data = files.read_bounded(files.inside(folder, NAME), MAX_MANIFEST)
    value = files.parse_json(data, str(path))
    if not isinstance(value, dict):
        raise InputError(f"{path}: a JSON object is needed")
    if value.get("schema_version") != SCHEMA:
        raise InputError(
            f"{path}: schema_version is {value.get('schema_version')!a}, this version of nhzoo "
            f"reads {SCHEMA}"
        )
    # Written one way only: no byte of it can be another.
    if value.get("sha256") != files.content_hash(value) or data != files.dump_json(value):
        raise CheckFailed(f"{path}: was changed after it was made; run `nhzoo submit` again")
    plain = {name: each for name, each in value.items() if name != "sha256"}
    manifest: Manifest = files.validate(_manifest(), plain, str(path))
    whole = manifest.as_json()
    if lacking := next((name for name in whole if whole[name] != value.get(name)), None):
        raise InputError(f"{path}: {lacking} is not all there; run `nhzoo submit` again")
    return manifest


@cache
def _manifest() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)


def read_submission(folder: Path, protocols: Mapping[str, Protocol] = PROTOCOLS) -> Submission:
    """Read a submission and hold every file against its manifest; no game is replayed.

    InputError for what cannot be one, CheckFailed when it is not what it says.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that `nhzoo submit` made")
    manifest = read_manifest(folder)
    protocol = protocols.get(manifest.protocol)
    if protocol is None:
        raise InputError(f"{folder / NAME}: no protocol {manifest.protocol!a}")
    found = _listed(folder, 2 * protocol.games + 32)
    for name in sorted(found.keys() ^ manifest.files.keys()):
        where = "lists no" if name in found else "lists"
        raise CheckFailed(f"{folder / NAME}: {where} {name}, and the folder differs; submit again")
    for name, wanted in manifest.files.items():
        with files.open_regular(files.inside(folder, name)) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
                raise CheckFailed(f"{folder / name}: its SHA-256 is not the one in {NAME}")
    episodes = _bounded_rows(folder, protocol)
    if manifest.id != make_id(manifest.agent, manifest.protocol, episodes):
        raise CheckFailed(f"{folder / NAME}: the id is not that of these games; submit again")
    result, protocol, rows = results.read_result(folder, protocol)
    return Submission(folder, manifest, result, protocol, rows)


def _bounded_rows(folder: Path, protocol: Protocol) -> bytes:
    path = files.inside(folder, "episodes.jsonl")
    data = files.read_bounded(path, _ROW_BYTES * (protocol.games + 1))
    if data.count(b"\n") > protocol.games:
        raise InputError(f"{path}: has more lines than {protocol.id} has games")
    return data


def _listed(folder: Path, most: int) -> dict[str, Path]:
    """The files of a submission by path, but for its manifest: no links, nothing unknown."""
    found: dict[str, Path] = {}
    total = 0
    for place in ("", "traces", ENTRY_FOLDER):
        if place and not (folder / place).exists() and not (folder / place).is_symlink():
            continue
        with os.scandir(files.inside(folder, place or ".")) as entries:
            for entry in entries:
                name = f"{place}/{entry.name}" if place else entry.name
                if entry.is_symlink():
                    raise InputError(f"{folder}/{name!a}: is a link; submit files")
                if entry.is_dir(follow_symlinks=False) and name in ("traces", ENTRY_FOLDER):
                    continue
                limit = next((b for p, b in _FILES if re.fullmatch(p, name)), None)
                if name == NAME:
                    continue
                if limit is None or not entry.is_file(follow_symlinks=False):
                    raise InputError(f"{folder}: {name!a} is no file of a submission; remove it")
                size = entry.stat(follow_symlinks=False).st_size
                total += size
                if size > limit or total > MAX_BYTES:
                    raise InputError(f"{folder}: {name} is larger than allowed")
                found[name] = Path(entry.path)
                if len(found) > most:
                    raise InputError(f"{folder}: holds more files than a submission has")
    return found
