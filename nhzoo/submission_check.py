"""What a submission counts as: reported, replayed or audited, and why not more.

Nothing of the submitter's is run: files are bounded and hashed, games replayed by NLE, and weights
computed with by this package's own code, once the checkpoint reader has let them in.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nhzoo import files, registry, results
from nhzoo.board import TIERS, Row, digest, entry_claims, row_id
from nhzoo.card_facts import read_curve
from nhzoo.errors import CheckFailed, InputError
from nhzoo.protocols import PROTOCOLS, Protocol
from nhzoo.submission import (
    ENTRY_FOLDER,
    NAME,
    Manifest,
    check_text,
    read_submission,
)
from nhzoo.verification import Verification, summary_problems, verify

REPORTED, REPLAYED, AUDITED, RERUN = TIERS

GIVEN_UP = 0.01
"""Share of games in which an agent may have failed, or run out of time, and still be audited."""

HOURS = 12.0
"""What a check may take in all."""

NEAR, NEAR_SHARE = 2, 4e-6
"""Keys, and share of all keys, that may be another than the weights' own by rounding.

The audit lets a key pass that lies within its tolerance. Of hundreds of games there are thousands
of these: who could choose freely there would have as many tries as he likes.
"""

_SAME_KEYS, _SAME_OPENING, _SAME_TURNS = 100, 512, 300
_ROW_FIELDS = set(results.ROW_FIELDS)
_RESULT_FIELDS = {
    *("schema_version", "agent", "revision", "source", "weights_sha256", "params", "temperature"),
    *("patience", "protocol", "device", "batch", "limits", "versions", "machine", "system"),
    *("cpu_capability", "exempt", "shard", "workers", "summary"),
}

Progress = Callable[[int, int], None]
Replay = Callable[[Path, int | None, Progress, Protocol], Verification]


@dataclass(frozen=True)
class Subject:
    """What is checked: a submission, or a result of our own (then there is no manifest)."""

    folder: Path
    id: str
    agent: str
    result: Mapping[str, Any]
    protocol: Protocol
    rows: list[results.Row] = field(repr=False)
    manifest: Manifest | None

    @property
    def weights(self) -> str:
        """SHA-256 of the weights that played, "" for a bot."""
        return str(self.result.get("weights_sha256") or "")

    @property
    def reported_only(self) -> bool:
        """Whether it does not ask to be ranked."""
        return self.manifest is not None and self.manifest.reported_only


@dataclass
class Report:
    """What a check came to. `tier` is the highest reached, "" when it is refused.

    `reasons` says for each tier why it was reached or was not; `problems` why it is refused;
    `notes` what a reader of the row should know.
    """

    id: str
    agent: str
    protocol: str
    digest: str
    asked: str
    tier: str = ""
    reasons: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether it is what it asks to be."""
        reached = bool(self.tier) and TIERS.index(self.tier) >= TIERS.index(self.asked)
        return reached and not self.problems

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self) | {"ok": self.ok}


def subject_of(folder: Path, protocols: Mapping[str, Protocol] = PROTOCOLS) -> Subject:
    """A submission's folder, read and held against its manifest."""
    whole = read_submission(folder, protocols)
    manifest = whole.manifest
    return Subject(
        folder, manifest.id, manifest.agent, whole.result, whole.protocol, whole.rows, manifest
    )


def own_subject(folder: Path) -> Subject:
    """A result of our own, `results/AGENT/PROTOCOL`."""
    folder = folder.resolve()
    result, protocol, rows = results.read_result(folder)
    if (folder.name, folder.parent.name) != (protocol.id, result.get("agent")):
        raise InputError(f"{folder}: a result of ours is in results/AGENT/PROTOCOL; name it so")
    return Subject(folder, row_id(folder), folder.parent.name, result, protocol, rows, None)


def check(
    subject: Subject,
    board: Sequence[Row] = (),
    audit: str | None = None,
    agents: Path | None = None,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    replay: Replay | None = None,
    hours: float = HOURS,
) -> Report:
    """Find the tier of a submission, among the rows that are on the board already.

    `audit` computes every key anew: with "auto" from the weights that the submission points to, or
    with an entry's name, folder or hf:// reference. CheckFailed when it takes more than `hours`.
    """
    asked = REPORTED if subject.reported_only else AUDITED if audit else REPLAYED
    report = Report(subject.id, subject.agent, subject.protocol.id, digest(subject.folder), asked)
    until = time.monotonic() + 3600 * hours

    def tell(what: str) -> Progress:
        def told(done: int, total: int) -> None:
            if time.monotonic() > until:
                raise CheckFailed(f"{subject.folder}: the check took more than {hours:g} hours")
            progress(what, done, total)

        return told

    report.problems += static_problems(subject)
    report.notes += _notes(subject, board)
    copied, alike = _copies(subject, board)
    report.problems += name_problems(subject, board) + copied
    if report.problems:
        report.reasons[REPORTED] = "it is not what its format and its protocol ask for"
        return report
    report.tier = REPORTED
    report.reasons[REPORTED] = "complete, in order, and each file is the one that is named"
    if subject.reported_only:
        report.reasons[REPLAYED] = "not asked for"
        return report
    replayed = (replay or _verify)(subject.folder, workers, tell("replay"), subject.protocol)
    wrong = [f"game {index}: {reason}" for index, reason in replayed.reasons.items()]
    wrong += replayed.problems
    if wrong:
        report.tier, report.problems = "", wrong
        report.reasons[REPLAYED] = "it does not replay"
        return report
    report.tier = REPLAYED
    report.reasons[REPLAYED] = f"all {replayed.verified:,} games gave what is claimed, key by key"
    if audit is None:
        report.reasons[AUDITED] = "not asked for (--audit auto)"
        report.problems += alike
    else:
        _audit(subject, report, audit, agents, workers, tell("audit"))
        (report.notes if report.tier == AUDITED else report.problems).extend(alike)
    if report.problems:
        report.tier = ""
    return report


def static_problems(subject: Subject) -> list[str]:
    """What is wrong with a result before any game is replayed."""
    result, protocol, rows = subject.result, subject.protocol, subject.rows
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
    found += summary_problems(result, rows) + _side_problems(subject)
    if subject.reported_only:
        return found
    if result.get("shard") is not None:
        found.append("is one shard; join all with nhzoo merge")
    missing = protocol.games - len(rows)
    if missing:
        found.append(f"{missing:,} of the {protocol.games:,} games of {protocol.id} are missing")
    wanted = {f"{row['index']}.xz" for row in rows}
    traces = subject.folder / "traces"
    held = {path.name for path in traces.iterdir()} if traces.is_dir() else set()
    if wanted - held:
        found.append(f"{len(wanted - held):,} games have no trace")
    if held - wanted:
        found.append(f"traces/{min(held - wanted)[:40]} is of no game")
    return found + _entry_problems(subject)


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
    known = {*results.SUMMARY, "env_steps_per_second"}
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


def _side_problems(subject: Subject) -> list[str]:
    """What is wrong with the files that no game depends on: they are published all the same."""
    path = subject.folder / "evaluation.json"
    if path.exists():
        began = files.read_json(files.inside(subject.folder, path.name))
        names = _RESULT_FIELDS - {"summary", "exempt", "shard", "workers"}
        for name, value in began.items():
            if name not in names or value != subject.result.get(name):
                return [f"evaluation.json: {name[:60]!a} is not what result.json has"]
    if subject.manifest is not None:
        read_curve(files.inside(subject.folder, f"{ENTRY_FOLDER}/curve.csv"))
    return []


def _entry_problems(subject: Subject) -> list[str]:
    manifest, weights = subject.manifest, subject.weights
    if manifest is None:
        return []
    if manifest.date > datetime.now(UTC).date().isoformat():
        return [f"is dated {manifest.date}, which has not come yet"]
    pointer, params = manifest.entry, subject.result.get("params")
    if pointer is None and weights:
        return ["was played by weights, and points to none; submit with --entry"]
    if pointer is None:
        if manifest.kind in ("bc", "rl"):
            return [f"says that it is {manifest.kind}, and points to no weights"]
        if manifest.claims.params is not None:
            return ["claims a size, and points to no weights"]
        return []
    found = []
    if manifest.kind == "bot":
        found.append("says that it is a bot, and points to weights")
    if weights != pointer.weights_sha256:
        found.append("was played by other weights than those that it points to")
    if params != manifest.claims.params:
        found.append("claims another number of parameters than played")
    return found


def _notes(subject: Subject, board: Sequence[Row]) -> list[str]:
    result, notes = subject.result, []
    if result.get("exempt") is True:
        notes.append("clocks decided how some games ended (a bot's time limits)")
    given_up = _given_up(subject)
    if given_up:
        notes.append(f"in {given_up:,} games the agent failed, or its time was up")
    named = [row for row in board if row.agent == subject.agent and subject.manifest is not None]
    if named:
        notes.append(f"{named[0].id} has this name and contact: is it from the same author?")
    if result.get("machine") not in (None, "x86_64"):
        notes.append("was played on another machine type: seeds may give other games here")
    return notes


def _given_up(subject: Subject) -> int:
    """Games that no key ended: only the agent can say that it failed there."""
    return sum(
        row["end_status"] == "crashed" or (row["end_status"] == "stalled" and row["cause"] != "")
        for row in subject.rows
    )


def name_problems(subject: Subject, board: Sequence[Row] = ()) -> list[str]:
    """One name, one agent: nobody stands on the board under another's."""
    if subject.manifest is None:
        return []
    name = _skeleton(subject.agent)
    taken = [_skeleton(listed) for listed in registry.BUILT_IN]
    if name in taken:
        return [f"{subject.agent} is the name of an agent of nhzoo's; choose another"]
    for row in board:
        mine = row.contact == subject.manifest.contact and row.agent == subject.agent
        if _skeleton(row.agent) == name and not mine:
            return [f"{row.agent} is on the board already, from somebody else; choose another name"]
    return []


def _skeleton(name: str) -> str:
    """What is left of a name without what the eye passes over."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return plain.translate(str.maketrans("0150", "olso")).replace("rn", "m").replace("vv", "w")


def _copies(subject: Subject, board: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Games that another row has: (with the same keys, only much alike).

    Game i is the same dungeon for all, but no two agents that were tried pressed the same 130 keys
    in one, or came to the same score, turn and death.
    """
    copied: list[str] = []
    alike: list[str] = []
    rows = [row for row in subject.rows if row["score"] > 0]
    heads: dict[int, bytes] = {}
    for other in board:
        if other.protocol != subject.protocol.id or other.id == subject.id:
            continue
        if subject.weights and other.sha256 == subject.weights:
            copied.append(f"its weights are those of {other.id}, on the board already")
            continue
        theirs = {row["index"]: row for row in results.read_episodes(other.folder)}
        pairs = [(row, theirs[row["index"]]) for row in rows if row["index"] in theirs]
        same = [
            a["index"] for a, b in pairs if a["sha256"] == b["sha256"] and a["keys"] >= _SAME_KEYS
        ]
        if same:
            copied.append(f"game {same[0]} and {len(same) - 1:,} more are those of {other.id}")
        near = [
            a["index"] for a, b in pairs if _outcome(a) == _outcome(b) and a["turns"] >= _SAME_TURNS
        ]
        for row, their in pairs:
            if (
                min(row["keys"], their["keys"]) >= _SAME_OPENING
                and (other.folder / "traces").is_dir()
            ):
                mine = heads.setdefault(row["index"], _head(subject.folder, row["index"]))
                if len(set(mine)) >= 8 and mine == _head(other.folder, row["index"]):
                    near.append(row["index"])
        near = sorted(set(near) - set(same))
        if near:
            alike.append(
                f"game {near[0]} and {len(near) - 1:,} more go as those of {other.id}: the same "
                "end, or the same first keys"
            )
    return copied, alike


def _outcome(row: results.Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("score", "turns", "max_depth", "experience_level"))


def _head(folder: Path, index: int) -> bytes:
    """The first keys of a game, without unpacking the others; b"" where that cannot be read."""
    try:
        data = files.read_bounded(files.inside(folder, f"traces/{index}.xz"), results.MAX_TRACE)
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 * files.MEGABYTE)
        return decompressor.decompress(data, max_length=_SAME_OPENING)
    except (InputError, lzma.LZMAError):
        return b""


def _verify(
    folder: Path, workers: int | None, progress: Progress, protocol: Protocol
) -> Verification:
    return verify(folder, workers, progress, stop_at_first=True, protocol=protocol)


def _audit(
    subject: Subject,
    report: Report,
    audit: str,
    agents: Path | None,
    workers: int | None,
    progress: Progress,
) -> None:
    from nhzoo.audit import audit as run

    given_up, games = _given_up(subject), len(subject.rows)
    if subject.weights and given_up > GIVEN_UP * games:
        report.reasons[AUDITED] = (
            f"{given_up:,} games were given up, which weights cannot be shown to do"
        )
        report.problems.append("the audit: " + report.reasons[AUDITED])
        return
    agent = player_of(subject, audit, agents)
    config = getattr(getattr(agent, "entry", None), "config", None)
    if config is not None:
        report.problems += config_problems(subject, config)
    found = run(subject.folder, agent, workers, progress, subject.protocol)
    report.problems += [f"the audit: {problem}" for problem in found.problems]
    report.problems += [
        f"game {index}: {found.agent} presses another key at its step {step:,}"
        for index, step in list(found.wrong.items())[:20]
    ]
    if not found.ok and not report.problems:
        report.problems.append(f"the audit: only {found.share:.2%} of the keys are {found.agent}'s")
    if subject.weights and found.near > NEAR + NEAR_SHARE * found.keys:
        report.problems.append(
            f"the audit: {found.near:,} keys are others than {found.agent}'s own, more than "
            "rounding explains; play on an x86_64 CPU with AVX-512, or leave out --audit"
        )
    if report.problems:
        report.reasons[AUDITED] = f"these are not the games that {found.agent} plays"
        return
    report.tier = AUDITED
    report.reasons[AUDITED] = (
        f"{found.matched:,} of {found.keys:,} keys are {found.agent}'s own, {found.near:,} more by "
        "rounding"
    )


def config_problems(subject: Subject, config: Mapping[str, Any]) -> list[str]:
    """Where the entry's own config is not what the submission says of it."""
    sampling, result = config["sampling"], subject.result
    found = []
    if result.get("temperature") != sampling.get("temperature"):
        found.append("was played at another temperature than the entry's")
    if (result.get("patience") or 0) != sampling.get("patience", 0):
        found.append("was played with another patience than the entry's")
    if result.get("params") != config.get("params"):
        found.append("has another number of parameters than the entry")
    if subject.manifest is not None:
        kind, claims = entry_claims(config)
        if claims != subject.manifest.claims:
            found.append("claims another training than the entry's config.json")
        if kind != subject.manifest.kind:
            found.append(f"says that it is {subject.manifest.kind}, the entry that it is {kind}")
    return found


def player_of(subject: Subject, named: str, agents: Path | None) -> Any:
    """The agent whose games these should be: weights, or one of the zoo's own; never other code."""
    from nhzoo import agents as players

    weights, manifest = subject.weights, subject.manifest
    if named != "auto":
        if named in registry.BUILT_IN and not subject.weights:
            return players.load(named)
        return _loaded(named, weights)
    if manifest is None:
        if not weights and subject.agent in registry.BUILT_IN:
            return players.load(subject.agent)
        if agents is None or not files.is_plain_name(subject.agent):
            raise InputError(f"{subject.folder}: whose games these are has to be said: --audit")
        return _loaded(str(agents / subject.agent), weights)
    if manifest.entry is None:
        raise InputError(
            f"{subject.folder / NAME}: points to no weights, so nothing can be audited"
        )
    source = manifest.entry.source
    if source == ENTRY_FOLDER:
        return _loaded(str(files.inside(subject.folder, ENTRY_FOLDER)), weights, manifest)
    return _loaded(source, weights, manifest)


def _loaded(named: str, weights: str, manifest: Manifest | None = None) -> Any:
    """An entry through the checkpoint reader, from a folder, the registry or the hub."""
    from nhzoo import agents as players
    from nhzoo import checkpoints, hub_pull

    source = None
    if named.startswith("hf://"):
        pulled = hub_pull.pull_entry(named)
        folder, source = pulled.folder, str(pulled.ref)
    else:
        found = registry.find(named) or Path(named)
        if not (found / "config.json").is_file():
            raise InputError(f"--audit {named[:200]!a}: is no entry (a folder with config.json)")
        folder = found
    if manifest is not None and manifest.entry is not None:
        data = files.read_bounded(files.inside(folder, "config.json"), files.MEGABYTE)
        if hashlib.sha256(data).hexdigest() != manifest.entry.config_sha256:
            raise CheckFailed(f"{folder}: its config.json is not the one that was submitted")
    entry = checkpoints.load_entry(folder)
    if entry.revision != weights:
        raise CheckFailed(f"{folder}: has other weights than those that played")
    return players.PolicyAgent(entry, source)
