"""The claims of a submission, checked against its own parts before any game is replayed.

Nobody takes another's name by a letter that the eye takes for another. Names are ASCII
(`submission.AGENT`), so no other script has look-alikes here, and no table of all of Unicode is
needed. What is folded are the ASCII pairs of Unicode's confusables.txt (UTS #39): I l 1 | and 0 O
and rn m; and besides cl d, vv w, i l, 5 s, 2 z and 8 b, which it leaves out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nhzoo.envs.protocols import PROTOCOLS, Protocol
from nhzoo.errors import InputError
from nhzoo.evaluation import results
from nhzoo.evaluation.verification import summary_problems
from nhzoo.leaderboard.board import row_id
from nhzoo.leaderboard.submission import ENTRY_FOLDER, Claims, Manifest, check_text, read_submission
from nhzoo.publishing.learning_curve import read_curve
from nhzoo.runtime import files

RESERVED = ("nhzoo", "expert", "human", "nethack", "nle", "admin", "maintainer")
"""Names that would speak for the project, besides those of `registry.BUILT_IN`."""

_ONE = str.maketrans({**dict.fromkeys("i1|!", "l"), "0": "o", "5": "s", "2": "z", "8": "b"})
_TWO = (("rn", "m"), ("cl", "d"), ("vv", "w"))


def skeleton(name: str) -> str:
    """What is left of a name when letters that look alike are one, and case and signs are none."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower().translate(_ONE))
    for pair, one in _TWO:
        plain = plain.replace(pair, one)
    return plain


_ROW_FIELDS = set(results.ROW_FIELDS)
_RESULT_FIELDS = {
    *("schema_version", "agent", "revision", "source", "weights_sha256", "params", "temperature"),
    *(
        "patience",
        "min_p",
        "protocol",
        "device",
        "batch",
        "limits",
        "versions",
        "machine",
        "system",
    ),
    *("numerics", "cpu_capability", "exempt", "shard", "workers", "summary"),
}


@dataclass(frozen=True)
class Candidate:
    """What is checked: a submission, or a result of our own (then there is no manifest).

    `author` is the account that its pull request came from, `hf:NAME` or `github:NAME`; "" where
    nobody has seen one. The contact in a manifest is a word that anybody can write.
    """

    folder: Path
    id: str
    agent: str
    result: Mapping[str, Any]
    protocol: Protocol
    rows: list[results.Row] = field(repr=False)
    manifest: Manifest | None
    author: str = ""

    @property
    def weights(self) -> str:
        """SHA-256 of the weights that played, "" for a bot."""
        return str(self.result.get("weights_sha256") or "")

    @property
    def reported_only(self) -> bool:
        """Whether it does not ask to be ranked."""
        return self.manifest is not None and self.manifest.reported_only


def candidate_of(folder: Path, protocols: Mapping[str, Protocol] = PROTOCOLS) -> Candidate:
    """A submission's folder, read and held against its manifest."""
    whole = read_submission(folder, protocols)
    manifest = whole.manifest
    return Candidate(
        folder, manifest.id, manifest.agent, whole.result, whole.protocol, whole.rows, manifest
    )


def own_candidate(folder: Path) -> Candidate:
    """A result of our own, `results/AGENT/PROTOCOL`."""
    folder = folder.resolve()
    result, protocol, rows = results.read_result(folder)
    if (folder.name, folder.parent.name) != (protocol.id, result.get("agent")):
        raise InputError(f"{folder}: a result of ours is in results/AGENT/PROTOCOL; name it so")
    return Candidate(folder, row_id(folder), folder.parent.name, result, protocol, rows, None)


def static_problems(candidate: Candidate) -> list[str]:
    """What is wrong with a result before any game is replayed."""
    result, protocol, rows = candidate.result, candidate.protocol, candidate.rows
    found = _unclean(result)
    for row in rows:
        spec, at = protocol.game(row["index"]), f"game {row['index']}"
        if (row["core"], row["disp"]) != (spec.core, spec.disp):
            found.append(f"{at}: its seeds are not the protocol's")
        if row["character"] != spec.character:
            found.append(f"{at}: its character is not the protocol's")
        if row.keys() != _ROW_FIELDS | ({"role"} if spec.character == "@" else set()):
            found.append(f"{at}: has a field that no row has, or lacks its role")
        if len(row["cause"]) > 1_000 or not row["cause"].isprintable():
            found.append(f"{at}: its cause is not a line of text")
        if not 0 <= row["steps"] <= row["keys"] <= results.MAX_TRACE or row["turns"] < 0:
            found.append(f"{at}: its counts cannot be")
        if len(found) > 20:
            break
    found += summary_problems(result, rows) + _side_problems(candidate)
    found += [reason for reason in (results.no_score(rows),) if reason]
    if candidate.reported_only:
        return found
    if result.get("shard") is not None:
        found.append("is one shard; join all with nhzoo merge")
    missing = protocol.games - len(rows)
    if missing:
        found.append(f"{missing:,} of the {protocol.games:,} games of {protocol.id} are missing")
    wanted = {f"{row['index']}.xz" for row in rows}
    traces = candidate.folder / "traces"
    held = {path.name for path in traces.iterdir()} if traces.is_dir() else set()
    if wanted - held:
        found.append(f"{len(wanted - held):,} games have no trace")
    if held - wanted:
        found.append(f"traces/{min(held - wanted)[:40]} is of no game")
    return found + _entry_problems(candidate)


def _unclean(result: Mapping[str, Any]) -> list[str]:
    """Fields of result.json that none of ours has, or values that are no plain facts."""
    odd = sorted(set(result) - _RESULT_FIELDS)
    found = [f"result.json: has a field {odd[0][:40]!a}, which none has"] if odd else []
    facts = dict(result)
    for name in ("versions", "limits"):
        inner = facts.pop(name, None)
        if inner is not None and not isinstance(inner, dict):
            found.append(f"result.json: {name} is not an object")
        facts |= {f"{name}.{n}": v for n, v in inner.items()} if isinstance(inner, dict) else {}
    summary = facts.pop("summary", None)
    known = {*results.SUMMARY, "faults", "env_steps_per_second"}
    if not isinstance(summary, dict) or set(summary) - known:
        found.append("result.json: its summary has a field that none has")
    else:
        facts["speed"] = summary.get("env_steps_per_second")
    for name, value in facts.items():
        try:
            if isinstance(value, str):
                check_text(value, name, 300)
            elif value is not None and not (
                isinstance(value, (bool, float)) or (type(value) is int and abs(value) < 1 << 63)
            ):
                raise InputError(name)
        except InputError:
            found.append(f"result.json: {name[:60]!a} is no plain value")
    if not isinstance(result.get("exempt", False), bool):
        found.append("result.json: exempt is true or false")
    return found


def _side_problems(candidate: Candidate) -> list[str]:
    """What is wrong with the files that no game depends on: they are published all the same."""
    path = candidate.folder / "evaluation.json"
    if path.exists():
        began = files.read_json(files.inside(candidate.folder, path.name))
        names = _RESULT_FIELDS - {"summary", "exempt", "shard", "workers"}
        for name, value in began.items():
            if name not in names or value != candidate.result.get(name):
                return [f"evaluation.json: {name[:60]!a} is not what result.json has"]
    if candidate.manifest is not None:
        read_curve(files.inside(candidate.folder, f"{ENTRY_FOLDER}/curve.csv"))
    return []


def _entry_problems(candidate: Candidate) -> list[str]:
    manifest, weights = candidate.manifest, candidate.weights
    if manifest is None:
        return []
    if manifest.date > datetime.now(UTC).date().isoformat():
        return [f"is dated {manifest.date}, which has not come yet"]
    pointer, params = manifest.entry, candidate.result.get("params")
    if pointer is None and weights:
        return ["was played by weights, and points to none; submit with --entry"]
    if pointer is None:
        if manifest.kind in ("bc", "rl"):
            return [f"says that it is {manifest.kind}, and points to no weights"]
        if manifest.claims.params is not None:
            return ["claims a size, and points to no weights"]
        if manifest.claims != Claims():
            return ["claims a training, and points to no weights"]
        return []
    found = []
    if manifest.kind == "bot":
        found.append("says that it is a bot, and points to weights")
    if weights != pointer.weights_sha256:
        found.append("was played by other weights than those that it points to")
    if params != manifest.claims.params:
        found.append("claims another number of parameters than played")
    return found


def given_up(candidate: Candidate) -> int:
    """Games that no key ended: only the agent can say that it failed there."""
    return sum(
        row["end_status"] == "crashed" or (row["end_status"] == "stalled" and row["cause"] != "")
        for row in candidate.rows
    )


def holds(folder: Path, candidate: Candidate) -> bool:
    """Whether an entry's folder has the very weights that played."""
    if not candidate.weights or not (folder / "model.safetensors").is_file():
        return False
    with files.open_regular(files.inside(folder, "model.safetensors")) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == candidate.weights
