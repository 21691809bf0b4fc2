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
from pathlib import Path
from typing import Any

from nhzoo import files, registry, results
from nhzoo.board import TIERS, Row, entry_claims
from nhzoo.errors import CheckFailed, InputError
from nhzoo.protocols import Protocol
from nhzoo.row_digest import digest
from nhzoo.submission import ENTRY_FOLDER, NAME, Manifest
from nhzoo.submission_claims import Subject, given_up, static_problems
from nhzoo.verification import Verification, verify

REPORTED, REPLAYED, AUDITED, RERUN = TIERS

GIVEN_UP = 0.01
"""Share of games in which an agent may have failed, or run out of time, and still be audited."""

HOURS = 12.0
"""What a check may take in all."""

_SAME_KEYS, _SAME_OPENING, _SAME_TURNS = 100, 512, 300
Progress = Callable[[int, int], None]
Replay = Callable[[Path, int | None, Progress, Protocol], Verification]


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


def _notes(subject: Subject, board: Sequence[Row]) -> list[str]:
    result, notes = subject.result, []
    if result.get("exempt") is True:
        notes.append("clocks decided how some games ended (a bot's time limits)")
    failed = given_up(subject)
    if failed:
        notes.append(f"in {failed:,} games the agent failed, or its time was up")
    named = [row for row in board if row.agent == subject.agent and subject.manifest is not None]
    if named:
        notes.append(f"{named[0].id} has this name and contact: is it from the same author?")
    if result.get("machine") not in (None, "x86_64"):
        notes.append("was played on another machine type: seeds may give other games here")
    return notes


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

    failed, games = given_up(subject), len(subject.rows)
    if subject.weights and failed > GIVEN_UP * games:
        report.reasons[AUDITED] = (
            f"{failed:,} games were given up, which weights cannot be shown to do"
        )
        report.problems.append("the audit: " + report.reasons[AUDITED])
        return
    agent = player_of(subject, audit, agents)
    config = getattr(getattr(agent, "entry", None), "config", None)
    if config is not None:
        report.problems += config_problems(subject, config)
    if subject.weights and subject.result.get("numerics") is None:
        # Its keys could only be audited with a tolerance for rounding, and whoever may choose
        # among the keys within a tolerance has as many tries as there are such keys.
        report.reasons[AUDITED] = (
            "its result.json names no numerics: it was played by an earlier nhzoo, whose rounding "
            "depended on the processor; evaluate it again with this version"
        )
        return
    found = run(subject.folder, agent, workers, progress, subject.protocol)
    report.problems += [f"the audit: {problem}" for problem in found.problems]
    report.problems += [
        f"game {index}: {found.agent} presses another key at its step {step:,}"
        for index, step in list(found.wrong.items())[:20]
    ]
    if not found.ok and not report.problems:
        report.problems.append(f"the audit: only {found.share:.2%} of the keys are {found.agent}'s")
    if report.problems:
        report.reasons[AUDITED] = f"these are not the games that {found.agent} plays"
        return
    report.tier = AUDITED
    report.reasons[AUDITED] = f"all {found.keys:,} keys are {found.agent}'s own"


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
