"""Making a submission from a result, and moving it to a folder, to the hub and back.

On the hub it is a pull request to the dataset of results, which adds one folder, `ID/PROTOCOL`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from nhzoo.agents import registry
from nhzoo.envs.protocols import PROTOCOLS, Protocol
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation import results
from nhzoo.hub import client, download
from nhzoo.hub.repos import RESULTS, Ref, check_paths, organisation
from nhzoo.hub.upload import Pushed, push
from nhzoo.leaderboard.board import entry_claims
from nhzoo.leaderboard.checks import name_problems
from nhzoo.leaderboard.claims import candidate_of, static_problems
from nhzoo.leaderboard.submission import (
    ENTRY_FOLDER,
    MAX_BUNDLED_WEIGHTS,
    MAX_BYTES,
    NAME,
    Claims,
    EntryPointer,
    Manifest,
    make_id,
    read_manifest,
)
from nhzoo.publishing.bundle import gather
from nhzoo.runtime import files, scratch

_MAX_FILES = 10_000
_ENTRY_FILES = ("config.json", "model.safetensors", "parity.safetensors", "curve.csv", "README.md")


def make(
    result: Path,
    out: Path,
    contact: str,
    licence: str,
    entry: str | None = None,
    name: str | None = None,
    reported_only: bool = False,
    description: str = "",
    code: str = "",
    on_hub: bool = False,
    protocols: Mapping[str, Protocol] = PROTOCOLS,
) -> Path:
    """Make `out`/ID of a result folder; refuses what a check would refuse without replaying.

    `entry` is the folder, name or hf:// reference of the weights that played. A folder is put into
    the submission; one that goes `on_hub` has to be there already.
    """
    named = files.read_json(files.inside(result, "result.json")).get("protocol")
    found, protocol, rows = results.read_result(result, protocols.get(str(named)))
    weights = found.get("weights_sha256")
    pointer, bundled, kind, claims = None, None, "bot", Claims()
    if entry or weights:
        agent = str(found.get("agent"))
        pointer, bundled, kind, claims = _pointer(entry or found.get("source") or agent, on_hub)
        if pointer.weights_sha256 != weights:
            raise CheckFailed(f"{result}: was not played by the weights of {entry or agent}")
    episodes = files.read_bounded(files.inside(result, "episodes.jsonl"), 64 * files.MEGABYTE)
    name = name or str(found.get("agent")).rpartition("/")[2].rpartition(":")[2]
    id = make_id(name, protocol.id, episodes)
    if (out / id).exists():
        raise InputError(f"{out / id}: is there already; delete it to make it anew")
    wanted = ["result.json", "episodes.jsonl"]
    wanted += ["evaluation.json"] * (result / "evaluation.json").is_file()
    if not reported_only:
        wanted += [f"traces/{row['index']}.xz" for row in rows]
    with files.temporary_folder(out / id) as temporary:
        whole = temporary / id
        for path in wanted:
            limit = 64 * files.MEGABYTE if path == "episodes.jsonl" else 2 * files.MEGABYTE
            _copy(files.inside(result, path), whole / path, limit)
        for path in _ENTRY_FILES if bundled else ():
            assert bundled is not None
            if (bundled / path).is_file():
                _copy(bundled / path, whole / ENTRY_FOLDER / path, MAX_BUNDLED_WEIGHTS)
        hashes = {
            path.relative_to(whole).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(whole.rglob("*"))
            if path.is_file()
        }
        manifest = Manifest(
            id=id,
            agent=name,
            protocol=protocol.id,
            date=datetime.now(UTC).date().isoformat(),
            kind=kind,
            contact=contact,
            licence=licence,
            reported_only=reported_only,
            entry=pointer,
            claims=claims,
            files=hashes,
            description=description,
            code=code,
        )
        files.atomic_write(whole / NAME, files.dump_json(manifest.as_json()))
        candidate = candidate_of(whole, protocols)
        problems = static_problems(candidate) + name_problems(candidate)
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise CheckFailed(f"{result}: {problems[0]}{more}; it would be refused")
        whole.rename(out / id)
    return out / id


def to_hub(package: Path, repo: str | None = None) -> Pushed:
    """Open a pull request with a submission in the dataset of results."""
    manifest = read_manifest(package)
    if manifest.entry and manifest.entry.source == ENTRY_FOLDER:
        raise InputError(
            f"{package}: its weights go to the hub first: nhzoo push, then --entry hf://"
        )
    with scratch.temporary() as temporary:
        root = temporary / "results"
        target = root / manifest.id / manifest.protocol
        for path in (path for path in package.rglob("*") if path.is_file()):
            copy = target / path.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)  # not its mode: some file systems refuse that
        return push(gather(root, repo or f"{organisation()}/results"), pull_request=True)


def from_hub(ref: Ref, into: Path) -> Path:
    """Fetch the one submission that a pull request adds; CheckFailed when it touches anything else.

    The folder is new, in `into`.
    """
    if ref.kind != "dataset" or not ref.revision:
        raise InputError(f"{ref}: a submission is hf://datasets/ORG/results@refs/pr/N")
    pinned, main = client.resolve(ref), client.resolve(ref.at(None))
    listed, base = (client.list_files(at, RESULTS.max_files) for at in (pinned, main))
    check_paths(listed, str(ref))
    new = {path: file for path, file in listed.items() if file != base.get(path)}
    places = {tuple(path.split("/")[:2]) for path in new}
    added = [place for place in places if f"{'/'.join(place)}/{NAME}" in new]
    if len(places) != 1 or len(added) != 1 or base.keys() - listed.keys():
        raise CheckFailed(
            f"{ref}: a submission adds one folder ID/PROTOCOL with {NAME} and changes nothing "
            "else; open it again on today's main"
        )
    id, protocol = added[0]
    if any(path.startswith(f"{id}/") for path in base):
        raise CheckFailed(f"{ref}: changes {id}, which is there already")
    wanted = download.select_files(ref, new, RESULTS)
    too_much = len(new) > _MAX_FILES or sum(file.size for file in wanted) > MAX_BYTES
    if len(wanted) != len(new) or too_much:
        raise InputError(f"{ref}: adds files that no submission has, or too many")
    for file in wanted:
        target = files.inside(into, file.path.replace(f"{id}/{protocol}", id, 1))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(client.fetch(pinned, file).resolve(), target)
    manifest = read_manifest(into / id)
    if (manifest.id, manifest.protocol) != (id, protocol):
        raise CheckFailed(f"{ref}: holds {manifest.id} of {manifest.protocol} as {id}/{protocol}")
    return into / id


def _pointer(entry: str, on_hub: bool) -> tuple[EntryPointer, Path | None, str, Claims]:
    """Where the weights are; their folder, where it goes along; what they say of themselves."""
    from nhzoo.leaderboard.entry_checks import training_problems
    from nhzoo.policy.checkpoint import load_entry

    found = registry.find_entry(entry, "--entry")
    folder, source, bundled = found.folder, found.source, None
    if source is None:
        if on_hub:
            raise InputError(f"--entry {entry}: push it first (nhzoo push), then --entry hf://...")
        source, bundled = ENTRY_FOLDER, folder
    loaded = load_entry(folder)
    problems = training_problems(folder, loaded.config)
    if problems:
        raise CheckFailed(f"{folder / 'config.json'}: {problems[0]}; it would be refused")
    kind, claims = entry_claims(loaded.config)
    data = files.read_bounded(files.inside(folder, "config.json"), files.MEGABYTE)
    config = hashlib.sha256(data).hexdigest()
    return EntryPointer(source, config, loaded.revision), bundled, kind, claims


def _copy(source: Path, target: Path, limit: int) -> None:
    files.atomic_write(target, files.read_bounded(source, limit), sync=False)
