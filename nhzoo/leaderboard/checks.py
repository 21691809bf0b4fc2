"""The check of a submission: refused, reported, replayed or audited, and why not more.

Nothing of the submitter's is run: files are bounded and hashed, games replayed by NLE, and weights
computed with by this package's own code, once the checkpoint reader has let them in.
"""

from __future__ import annotations

import hashlib
import lzma
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nhzoo.agents import registry
from nhzoo.envs.protocols import Protocol
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation import results
from nhzoo.evaluation.verification import Verification, verify
from nhzoo.leaderboard import claims as names
from nhzoo.leaderboard.board import TIERS, BoardRow, entry_claims
from nhzoo.leaderboard.board_log import digest, whole_digest
from nhzoo.leaderboard.claims import Candidate, given_up, holds, static_problems
from nhzoo.leaderboard.submission import ENTRY_FOLDER, NAME
from nhzoo.runtime import files
from nhzoo.runtime.console import ProgressCallback

if TYPE_CHECKING:
    from nhzoo.policy.checkpoint import Entry

REPORTED, REPLAYED, AUDITED, _ = TIERS

HOURS = 12.0
"""What a check may take in all."""

_SAME_KEYS, _SAME_OPENING, _SAME_TURNS = 100, 512, 300
Replay = Callable[[Path, int | None, ProgressCallback, Protocol], Verification]


@dataclass
class Report:
    """What a check came to. `tier` is the highest reached, "" when it is refused.

    `reasons` says for each tier why it was reached or was not; `problems` why it is refused;
    `notes` what a reader of the row should know. `tensors_sha256` names the weights that played,
    whatever their file is like; `files_sha256` every file that was checked.
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
    tensors_sha256: str = ""
    files_sha256: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is what it asks to be."""
        reached = bool(self.tier) and TIERS.index(self.tier) >= TIERS.index(self.asked)
        return reached and not self.problems

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self) | {"ok": self.ok}


def check(
    candidate: Candidate,
    board: Sequence[BoardRow] = (),
    audit: str | None = None,
    agents: Path | None = None,
    workers: int | None = None,
    progress: Callable[[str, float, float], None] = lambda what, done, total: None,
    replay: Replay | None = None,
    hours: float = HOURS,
    on_hub: bool = False,
) -> Report:
    """Find the tier of a submission, among the rows that are on the board already.

    `audit` computes every key anew: with "auto" from the weights that the submission points to, or
    with an entry's name, folder or hf:// reference. Weights are looked at whatever is asked for;
    with `on_hub` they are held against entries on the hub, too. CheckFailed when it takes more than
    `hours`.
    """
    asked = REPORTED if candidate.reported_only else AUDITED if audit else REPLAYED
    report = Report(
        candidate.id, candidate.agent, candidate.protocol.id, digest(candidate.folder), asked
    )
    report.files_sha256 = whole_digest(candidate.folder)
    until = time.monotonic() + 3600 * hours

    def shown_as(what: str) -> ProgressCallback:
        def report_progress(done: float, total: float) -> None:
            if time.monotonic() > until:
                raise CheckFailed(f"{candidate.folder}: the check took more than {hours:g} hours")
            progress(what, done, total)

        return report_progress

    report.problems += static_problems(candidate)
    report.notes += _notes(candidate, board)
    copied, alike = _copies(candidate, board)
    report.problems += name_problems(candidate, board, agents) + copied
    weights = None if report.problems else _weights(candidate, audit, agents)
    held = _Held(candidate, weights, report, board, agents, on_hub) if weights else None
    if report.problems:
        report.reasons[REPORTED] = "it is not what its format and its protocol ask for"
        return report
    report.tier = REPORTED
    report.reasons[REPORTED] = "complete, in order, and each file is the one that is named"
    if candidate.reported_only:
        report.reasons[REPLAYED] = "not asked for"
        return report
    replayed = (replay or _verify)(
        candidate.folder, workers, shown_as("replay"), candidate.protocol
    )
    wrong = [f"game {index}: {reason}" for index, reason in replayed.reasons.items()]
    wrong += replayed.problems
    if wrong:
        report.tier, report.problems = "", wrong
        report.reasons[REPLAYED] = "it does not replay"
        return report
    if held is not None and held.plays_as_another(workers):
        report.tier = ""
        report.reasons[REPLAYED] = "it is another's"
        return report
    report.tier = REPLAYED
    report.reasons[REPLAYED] = f"all {replayed.verified:,} games gave what is claimed, key by key"
    if audit is None:
        report.reasons[AUDITED] = "not asked for (--audit auto)"
        report.problems += alike
    else:
        player = player_of(candidate, audit, agents, weights)
        _audit(candidate, report, player, workers, shown_as("audit"))
        (report.notes if report.tier == AUDITED else report.problems).extend(alike)
    if report.problems:
        report.tier = ""
    return report


def _notes(candidate: Candidate, board: Sequence[BoardRow]) -> list[str]:
    result, notes = candidate.result, []
    if result.get("exempt") is True:
        notes.append("clocks decided how some games ended (a bot's time limits)")
    failed = given_up(candidate)
    if failed:
        notes.append(f"in {failed:,} games the agent failed, or its time was up")
    manifest = candidate.manifest
    if manifest is not None:
        if not candidate.author:
            notes.append("nobody has seen whose account it came from: contact and name are as said")
        others = [r for r in board if r.contact == manifest.contact and not _is_own(candidate, r)]
        if others:
            notes.append(f"gives the contact of {others[0].id}, from another account or none seen")
    if result.get("machine") not in (None, "x86_64"):
        notes.append("was played on another machine type: seeds may give other games here")
    return notes


def name_problems(
    candidate: Candidate, board: Sequence[BoardRow] = (), agents: Path | None = None
) -> list[str]:
    """One name, one agent: nobody stands on the board under another's, or one that looks like it.

    A name that is taken may be used by the account that its row came from, and by nobody else.
    """
    if candidate.manifest is None:
        return []
    name = names.skeleton(candidate.agent)
    if name in {names.skeleton(taken) for taken in (*registry.BUILT_IN, *names.RESERVED)}:
        return [f"{candidate.agent} is the name of an agent of nhzoo's; choose another"]
    for row in board:
        if names.skeleton(row.agent) == name and not (
            row.agent == candidate.agent and _is_own(candidate, row)
        ):
            return [
                f"{row.agent} is on the board already, from somebody else or from an account that "
                "was not seen; choose another name, or let a maintainer say whose it is (--author)"
            ]
    for path in sorted(agents.glob("*/config.json")) if agents else ():
        taken = path.parent.name
        if names.skeleton(taken) == name and not holds(path.parent, candidate):
            return [f"{taken} is an entry of the zoo's; choose another name"]
    return []


def _is_own(candidate: Candidate, row: BoardRow) -> bool:
    return row.id == candidate.id or (bool(row.author) and row.author == candidate.author)


def _copies(candidate: Candidate, board: Sequence[BoardRow]) -> tuple[list[str], list[str]]:
    """Games that another row has: (with the same keys, only much alike).

    Game i is the same dungeon for all, but no two agents that were tried pressed the same 130 keys
    in one, or came to the same score, turn and death.
    """
    copied: list[str] = []
    alike: list[str] = []
    rows = [row for row in candidate.rows if row["score"] > 0]
    heads: dict[int, bytes] = {}
    for other in board:
        stolen = bool(candidate.weights) and other.sha256 == candidate.weights
        here = other.protocol == candidate.protocol.id
        own = candidate.manifest is None or _is_own(candidate, other)
        if other.id == candidate.id or (
            stolen and not here and own and other.agent == candidate.agent
        ):
            continue  # one agent may stand on the board of each protocol
        if stolen:
            copied.append(f"its weights are those of {other.id}, on the board already")
            continue
        if not here:
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
                index = row["index"]
                if index not in heads:
                    heads[index] = _head(candidate.folder, index)
                mine = heads[index]
                if len(set(mine)) >= 8 and mine == _head(other.folder, index):
                    near.append(index)
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
    folder: Path, workers: int | None, progress: ProgressCallback, protocol: Protocol
) -> Verification:
    return verify(folder, workers, progress, stop_at_first=True, protocol=protocol)


def _audit(
    candidate: Candidate,
    report: Report,
    agent: Any,
    workers: int | None,
    progress: ProgressCallback,
) -> None:
    from nhzoo.evaluation.auditing import audit as run

    failed = given_up(candidate)
    if candidate.weights and failed:  # each would be a choice of where to stop
        report.reasons[AUDITED] = (
            f"{failed:,} games were given up, which weights cannot be shown to do"
        )
        report.problems.append("the audit: " + report.reasons[AUDITED])
        return
    if candidate.weights and candidate.result.get("numerics") is None:
        # Its keys could only be audited with a tolerance for rounding, and whoever may choose
        # among the keys within a tolerance has as many tries as there are such keys.
        report.reasons[AUDITED] = (
            "its result.json names no numerics: it was played by an earlier nhzoo, whose rounding "
            "depended on the processor; evaluate it again with this version"
        )
        return
    found = run(candidate.folder, agent, workers, progress, candidate.protocol)
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


def config_problems(candidate: Candidate, config: Mapping[str, Any]) -> list[str]:
    """Where the entry's own config is not what the submission says of it."""
    sampling, result = config["sampling"], candidate.result
    found = []
    if result.get("temperature") != sampling.get("temperature"):
        found.append("was played at another temperature than the entry's")
    if (result.get("patience") or 0) != sampling.get("patience", 0):
        found.append("was played with another patience than the entry's")
    if (result.get("min_p") or 0) != sampling.get("min_p", 0):
        found.append("was played with another min_p than the entry's")
    if result.get("params") != config.get("params"):
        found.append("has another number of parameters than the entry")
    if candidate.manifest is not None:
        kind, claims = entry_claims(config)
        if claims != candidate.manifest.claims:
            found.append("claims another training than the entry's config.json")
        if kind != candidate.manifest.kind:
            found.append(f"says that it is {candidate.manifest.kind}, the entry that it is {kind}")
    return found


@dataclass(frozen=True)
class Weights:
    """The entry that played, where it lies here, and where on the hub it is from."""

    entry: Entry
    folder: Path
    source: str | None


class _Held:
    """The weights of a submission, held against their config and against all other entries."""

    def __init__(
        self,
        candidate: Candidate,
        weights: Weights,
        report: Report,
        board: Sequence[BoardRow],
        agents: Path | None,
        on_hub: bool,
    ) -> None:
        from nhzoo.leaderboard import entry_checks, kinship

        self._candidate, self._entry, self._report = candidate, weights.entry, report
        report.tensors_sha256 = kinship.tensor_hash(weights.entry.policy)
        self._known, notes = entry_checks.known_entries(candidate, board, agents)
        if on_hub:
            more, said = entry_checks.on_the_hub(candidate, weights.entry)
            self._known, notes = [*self._known, *more], [*notes, *said]
        config = weights.entry.config
        report.problems += config_problems(candidate, config)
        report.problems += entry_checks.training_problems(weights.folder, config, self._known)
        problems, said = entry_checks.identity(weights.entry, self._known)
        report.problems += problems
        report.notes += [*notes, *said]

    def plays_as_another(self, workers: int | None) -> bool:
        """Whether, on the screens of its own games, it says what another entry says."""
        from nhzoo.leaderboard import entry_checks, kinship

        candidate = self._candidate
        if not self._known or not (candidate.folder / "traces").is_dir():
            return False
        games = kinship.first_screens(candidate.folder, candidate.rows, candidate.protocol)
        problems, _ = entry_checks.identity(self._entry, self._known, games)
        self._report.problems += problems
        return bool(problems)


def _weights(candidate: Candidate, audit: str | None, agents: Path | None) -> Weights | None:
    """The weights that played; None for a bot, and for a result of ours whose entry is not here."""
    if not candidate.weights:
        return None
    if candidate.manifest is None and audit is None:
        folder = (agents or Path()) / candidate.agent
        if (
            agents is None
            or not files.is_plain_name(candidate.agent)
            or not holds(folder, candidate)
        ):
            return None
    return weights_of(candidate, audit or "auto", agents)


def player_of(
    candidate: Candidate, named: str, agents: Path | None, weights: Weights | None = None
) -> Any:
    """The agent whose games these should be: weights, or one of the zoo's own; never other code."""
    from nhzoo.agents import loading
    from nhzoo.agents.base import PolicyAgent

    if not candidate.weights:
        if named in registry.BUILT_IN:
            return loading.load(named)
        own = candidate.manifest is None and named == "auto"
        if own and candidate.agent in registry.BUILT_IN:
            return loading.load(candidate.agent)
    held = weights or weights_of(candidate, named, agents)
    return PolicyAgent(held.entry, held.source)


def weights_of(candidate: Candidate, named: str, agents: Path | None) -> Weights:
    """The weights that `named`, or with "auto" the subject, points to, through the strict reader.

    InputError when there are none, CheckFailed when they are not those that played.
    """
    from nhzoo.policy import checkpoint

    manifest = candidate.manifest
    if named == "auto" and manifest is None:
        if agents is None or not files.is_plain_name(candidate.agent):
            raise InputError(f"{candidate.folder}: whose games these are has to be said: --audit")
        named = str(agents / candidate.agent)
    elif named == "auto":
        assert manifest is not None
        if manifest.entry is None:
            raise InputError(
                f"{candidate.folder / NAME}: points to no weights, so nothing can be audited"
            )
        named = manifest.entry.source
        if named == ENTRY_FOLDER:
            named = str(files.inside(candidate.folder, ENTRY_FOLDER))
    else:
        manifest = None  # somebody else says which, wherever the submission points to
    found = registry.find_entry(named, "--audit")
    folder, source = found.folder, found.source
    if manifest is not None and manifest.entry is not None:
        data = files.read_bounded(files.inside(folder, "config.json"), files.MEGABYTE)
        if hashlib.sha256(data).hexdigest() != manifest.entry.config_sha256:
            raise CheckFailed(f"{folder}: its config.json is not the one that was submitted")
    entry = checkpoint.load_entry(folder)
    if entry.revision != candidate.weights:
        raise CheckFailed(f"{folder}: has other weights than those that played")
    return Weights(entry, folder, source)
