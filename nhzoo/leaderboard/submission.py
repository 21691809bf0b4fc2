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
from pathlib import Path
from typing import Any

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
_SHA256 = r"[0-9a-f]{64}"
AGENT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True)
class EntryPointer:
    """Which weights played. `source` is `hf://org/name@commit`, or `entry`: the folder of that name
    in the submission.
    """

    source: str
    config_sha256: str
    weights_sha256: str


@dataclass(frozen=True)
class Claims:
    """What the entry says of itself: parameters, training FLOPs, samples, held-out loss (nats)."""

    params: int | None = None
    flops: float | None = None
    samples: float | None = None
    held_out_loss: float | None = None


@dataclass(frozen=True)
class Manifest:
    """What `submission.json` holds. `files` maps every other file to its SHA-256.

    `reported_only`: it is to be listed as claimed, not ranked; then it needs no traces, and not
    every game.
    """

    id: str
    agent: str
    protocol: str
    date: str
    kind: str
    contact: str
    licence: str
    reported_only: bool
    entry: EntryPointer | None
    claims: Claims
    files: Mapping[str, str]
    description: str = ""
    code: str = ""
    schema_version: int = SCHEMA

    def as_json(self) -> dict[str, Any]:
        """As `submission.json` has it, sealed with a hash of itself."""
        value = asdict(self)
        value = {"schema_version": value.pop("schema_version"), **value}
        return value | {"sha256": files.content_hash(value)}


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


def read_manifest(folder: Path) -> Manifest:
    """The checked `submission.json` of a folder; the files that it names are not looked at."""
    path = folder / NAME
    data = files.read_bounded(files.inside(folder, NAME), MAX_MANIFEST)
    value = files.parse_json(data, str(path))
    if not isinstance(value, dict):
        raise InputError(f"{path}: a JSON object is needed")
    known = [*Manifest.__dataclass_fields__, "sha256"]
    if value.get("schema_version") != SCHEMA:
        raise InputError(
            f"{path}: schema_version is {value.get('schema_version')!a}, this version of nhzoo "
            f"reads {SCHEMA}"
        )
    if sorted(value) != sorted(known):
        odd = sorted(set(value) ^ set(known))[0]
        raise InputError(f"{path}: field {odd[:60]!a} is missing or not one of schema {SCHEMA}")
    # Written one way only: no byte of it can be another.
    if value["sha256"] != files.content_hash(value) or data != files.dump_json(value):
        raise CheckFailed(f"{path}: was changed after it was made; run `nhzoo submit` again")
    manifest = Manifest(
        id=_match(value, "id", r"[a-z0-9][a-z0-9-]{0,127}", path),
        agent=_match(value, "agent", AGENT, path),
        protocol=_match(value, "protocol", r"[a-z0-9-]{1,64}", path),
        date=_date(value["date"], path),
        kind=_match(value, "kind", "|".join(KINDS), path),
        contact=check_text(value["contact"], f"{path}: contact"),
        licence=_match(value, "licence", r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}", path),
        reported_only=_flag(value, path),
        entry=_entry(value["entry"], path),
        claims=_claims(value["claims"], path),
        files=_hashes(value["files"], path),
        description=check_text(value["description"], f"{path}: description", 500, empty=True),
        code=_match(value, "code", r"(https://[A-Za-z0-9._~/%@:+#?=&-]{1,190})?", path),
    )
    return manifest


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


def _match(value: Mapping[str, Any], name: str, pattern: str, where: Path) -> str:
    text = value[name]
    if not isinstance(text, str) or not re.fullmatch(pattern, text, re.ASCII):
        raise InputError(f"{where}: {name} is {str(text)[:60]!a}, {pattern} is needed")
    return text


def _flag(value: Mapping[str, Any], where: Path) -> bool:
    if not isinstance(value["reported_only"], bool):
        raise InputError(f"{where}: reported_only is true or false")
    return value["reported_only"]


def _date(text: object, where: Path) -> str:
    try:
        if isinstance(text, str) and date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise InputError(f"{where}: date is no date like 2026-11-22")


def _entry(value: object, where: Path) -> EntryPointer | None:
    if value is None:
        return None
    names = list(EntryPointer.__dataclass_fields__)
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        raise InputError(f"{where}: entry is null, or {', '.join(names)}")
    pointer = EntryPointer(
        _source(value["source"], where),
        _match(value, "config_sha256", _SHA256, where),
        _match(value, "weights_sha256", _SHA256, where),
    )
    return pointer


def _source(source: object, where: Path) -> str:
    if isinstance(source, str) and len(source) < 300:
        if source == ENTRY_FOLDER:
            return source
        if source.startswith("hf://"):
            ref = parse(source)
            if ref.kind == "model" and ref.pinned:
                return source
    raise InputError(f"{where}: the source of the entry is hf://org/name@COMMIT, or {ENTRY_FOLDER}")


def _claims(value: object, where: Path) -> Claims:
    names = list(Claims.__dataclass_fields__)
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        raise InputError(f"{where}: claims has {', '.join(names)}")
    for name, number in value.items():
        kind: Any = int if name == "params" else (int, float)
        good = isinstance(number, kind) and not isinstance(number, bool) and 0 < number < 1e40
        if number is not None and not good:
            raise InputError(f"{where}: {name} is null or a positive number")
    return Claims(**value)


def _hashes(value: object, where: Path) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > 2 * max(p.games for p in PROTOCOLS.values()):
        raise InputError(f"{where}: files is an object of names and hashes")
    for name, digest in value.items():
        known = any(re.fullmatch(pattern, name, re.ASCII) for pattern, _ in _FILES)
        if not known or not isinstance(digest, str) or not re.fullmatch(_SHA256, digest):
            raise InputError(
                f"{where}: files names {name[:60]!a}, no file of a submission, or no hash"
            )
    return value
