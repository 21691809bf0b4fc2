"""The leaderboard as data: its rows, their tiers and ranks. It runs nothing.

A row is a result folder: ours (`results/AGENT/PROTOCOL`) or a submission (`submissions/ID`). What
it counts as is what the log says: a row that was never accepted is *reported*, one of whose files
any is not as it was accepted is *altered* and reported, and reported rows have no rank. A row is
*re-run* when its re-run's secret, commitment, seeds and games say so too, not by the log's word.

As CSV and JSON the board is for other programs. Columns are only added, at the end. `as_said` names
the fields of a row that are its author's word: nobody can compute them here.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nhzoo.agents import registry
from nhzoo.envs.protocols import Protocol
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation import results
from nhzoo.evaluation.outcomes import breakdown
from nhzoo.evaluation.statistics import known_interval
from nhzoo.leaderboard import board_log, rerun
from nhzoo.leaderboard.board_log import LogLine, digest, read_log, whole_digest
from nhzoo.leaderboard.submission import ENTRY_FOLDER, Claims, read_manifest
from nhzoo.runtime import files

TIERS = ("reported", "replayed", "audited", "re-run")
"""How sure a row is, least first; leaderboard/SUBMITTING.md says what each takes."""

RANKED = ("monk-lite-v1", "monk-v1", "allroles-v1")
"""Protocols that rank agents: 8 short games of smoke-v1 rank nobody."""

EXPERT = "autoascend"


@dataclass(frozen=True)
class BoardRow:
    """One agent on one protocol.

    `rank` is shared by agents whose intervals do not separate, None for reported and removed rows.
    `summary` is as accepted, its `faults` (see `results.faults`) by the games; of a rescored row it
    is the new one, and `claimed` the first. `roles` maps a role to its games, mean_score and
    mean_score_ci95, where the protocol draws roles.
    `normalized` is the share of AutoAscend's mean score on the same protocol. `author` is the
    account that the pull request came from, "" where nobody has seen one. `AS_SAID` names what is
    the author's word alone.
    """

    id: str
    agent: str
    protocol: str
    tier: str
    status: str  # listed, removed, rescored or altered
    reason: str
    rank: int | None
    summary: Mapping[str, Any]
    claimed: Mapping[str, Any] | None
    normalized: float | None
    roles: Mapping[str, Any]
    params: int | None
    flops: float | None
    samples: float | None
    held_out_loss: float | None
    kind: str  # bc, rl, bot or other
    date: str
    revision: str
    sha256: str
    contact: str
    licence: str
    folder: Path
    entry: Path | None
    author: str = ""


AS_SAID = ("flops", "samples", "held_out_loss", "kind", "contact", "licence")
"""Fields of a row that nobody can compute from its games and weights: its author says so."""


@dataclass(frozen=True)
class Reference:
    """A published figure, under a protocol that is not ours: never ranked, never beside a row.

    `interval` is as published. `source` says where it stands, `checked` how it was read (see
    leaderboard/references.json).
    """

    agent: str
    metric: str
    value: float
    interval: str
    games: str
    protocol: str
    source: str
    url: str
    checked: str


@dataclass(frozen=True)
class Board:
    """All of it. `warnings` are of rows that are not shown as the log has them, one line each."""

    rows: tuple[BoardRow, ...]
    references: tuple[Reference, ...]
    log: tuple[LogLine, ...]
    warnings: tuple[str, ...] = ()


def read_board(leaderboard: Path, agents: Path | None) -> Board:
    """The board of a leaderboard folder; `agents` holds the entries that its rows may be of."""
    if not leaderboard.is_dir():
        raise InputError(f"{leaderboard}: no such folder; give the leaderboard/ of a checkout")
    log = read_log(leaderboard)
    rows = [_own_row(path.parent, agents) for path in _sorted(leaderboard, "results/*/*")]
    rows += [_submitted_row(path.parent) for path in _sorted(leaderboard, "submissions/*")]
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise InputError(f"{row.folder}: there is a row {row.id} already; rename the folder")
        seen.add(row.id)
    found = [_judged(row, log, leaderboard) for row in rows]
    warnings = tuple(warning for _, warning in found if warning) + _missing(log, seen)
    judged = _normalized([row for row, _ in found])
    placed: list[BoardRow] = []
    for protocol in dict.fromkeys(row.protocol for row in judged):
        same = [row for row in judged if row.protocol == protocol]
        placed += ranked(same, protocol)
        placed += [row for row in same if row.rank is None and not _counts(row)]
    return Board(tuple(placed), read_references(leaderboard), log, warnings)


def ranked(rows: Iterable[BoardRow], protocol: str, role: str | None = None) -> list[BoardRow]:
    """The rows of a protocol that count, best mean first, each with its rank.

    A rank is 1 + the number of other agents whose 95 % interval lies entirely above the row's own.
    So agents that do not separate may share one, 1 means that nobody is clearly better, and it
    never depends on a chain of overlaps: of A > B > C where only A and C separate, the ranks are 1,
    1, 2. Several rows of one agent count once. A row without an interval has no rank: nobody can be
    told to be better than it.
    With `role`, by the games of that role alone; `summary` stays that of all games.
    """
    counted = [row for row in rows if row.protocol == protocol and _counts(row)]
    if role is not None:
        counted = [row for row in counted if role in row.roles]
    by = {id(row): row.summary if role is None else row.roles[role] for row in counted}
    ends = {row: summary["mean_score_ci95"] for row, summary in by.items()}
    placed = []
    for row in counted:
        own = ends[id(row)]
        above = {r.agent for r in counted if own and (its := ends[id(r)]) and its[0] > own[1]}
        placed.append(replace(row, rank=1 + len(above - {row.agent}) if own else None))
    means = {row.id: by[id(row)]["mean_score"] for row in counted}
    return sorted(placed, key=lambda row: (-means[row.id], row.id))


def row_id(folder: Path) -> str:
    """The id of a result folder AGENT/PROTOCOL of our own."""
    return re.sub(r"[^a-z0-9]+", "-", f"{folder.parent.name}-{folder.name}".lower()).strip("-")


def read_references(leaderboard: Path) -> tuple[Reference, ...]:
    """The rows of `references.json`."""
    path = leaderboard / "references.json"
    if not path.exists():
        return ()
    rows = files.read_json(path).get("references")
    if not isinstance(rows, list):
        raise InputError(f"{path}: needs a list named references")
    try:
        return tuple(Reference(**row) for row in rows)
    except TypeError as error:
        raise InputError(f"{path}: {error}") from None


def claimed_summary(result: Mapping[str, Any], protocol: Protocol, where: Path) -> dict[str, Any]:
    """The summary of a result.json, its numbers finite and its interval one; InputError if not.

    The interval may be null, as may the deviation of one game.
    """
    summary = files.as_object(result.get("summary"))
    kept = {name: summary.get(name, 0 if name == "voided" else None) for name in results.SUMMARY}
    interval, games = kept["mean_score_ci95"], kept["episodes"]
    mean: Any = kept["mean_score"]
    unknown = {"mean_score_ci95"} | ({"std_score"} if kept["std_score"] is None else set())
    good = all(_is_number(v) for name, v in kept.items() if name not in unknown)
    good = good and ("std_score" not in unknown or games == 1)
    try:
        ends = known_interval(interval)
    except ValueError:
        good = False
    else:
        good = good and "mean_score_ci95" in summary
        good = good and (ends is None or ends[0] <= mean <= ends[1])
    if not good or type(games) is not int or not 1 <= games <= protocol.games:
        raise InputError(f"{where}: result.json has no usable summary; evaluate again")
    return kept


def _is_number(value: object) -> bool:
    """JSON's numbers are finite here: the reader refuses others."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _sorted(leaderboard: Path, pattern: str) -> list[Path]:
    return sorted(leaderboard.glob(f"{pattern}/result.json"))


def _own_row(folder: Path, agents: Path | None) -> BoardRow:
    row = _row(folder, row_id(folder), folder.parent.name)
    entry = _entry_folder(agents, row.agent, row.sha256)
    kind, claims = ("other", None) if row.sha256 else ("bot", None)
    if entry is None:
        return replace(row, kind=kind)
    kind, claims = entry_claims(registry.read_config(entry))
    return replace(row, kind=kind, entry=entry, **asdict(claims))


def _submitted_row(folder: Path) -> BoardRow:
    manifest = read_manifest(folder)
    row = _row(folder, manifest.id, manifest.agent)
    if manifest.id != folder.name or manifest.protocol != row.protocol:
        raise InputError(f"{folder}: is not the submission {manifest.id} of {manifest.protocol}")
    pointer = manifest.entry
    entry = folder / ENTRY_FOLDER if pointer and pointer.source == ENTRY_FOLDER else None
    revision = pointer.source.partition("@")[2] if pointer else row.revision
    return replace(
        row,
        kind=manifest.kind,
        date=manifest.date,
        contact=manifest.contact,
        licence=manifest.licence,
        revision=revision,
        entry=entry,
        **asdict(manifest.claims),
    )


def _row(folder: Path, id: str, agent: str) -> BoardRow:
    """What the result itself says; nobody has looked at it yet."""
    result, protocol, rows = results.read_result(folder)
    results.need_score(rows, folder)
    weights, source = result.get("weights_sha256"), str(result.get("source") or "")
    revision = source.partition("@")[2] or ("" if weights else str(result.get("revision") or ""))
    params = result.get("params")
    return BoardRow(
        id=id,
        agent=agent,
        protocol=protocol.id,
        tier=TIERS[0],
        status="listed",
        reason="",
        rank=None,
        summary=claimed_summary(result, protocol, folder) | {"faults": results.faults(rows)},
        claimed=None,
        normalized=None,
        roles=_roles(rows) if protocol.character == "@" else {},
        params=params if isinstance(params, int) else None,
        flops=None,
        samples=None,
        held_out_loss=None,
        kind="other",
        date="",
        revision=revision,
        sha256=str(weights or ""),
        contact="",
        licence="",
        folder=folder,
        entry=None,
    )


def _roles(rows: Sequence[results.Row]) -> dict[str, Any]:
    return {
        role.role: {
            "games": role.games,
            "mean_score": role.mean_score.estimate,
            "mean_score_ci95": list(ends) if (ends := role.mean_score.ends) else None,
            "mean_progression": role.mean_progression,
        }
        for role in breakdown(rows).roles
    }


def entry_claims(config: Mapping[str, Any]) -> tuple[str, Claims]:
    """What an entry's config.json says of its kind and of what training it took.

    FLOPs are those of the entry that it was gone on from as well.
    """
    training = files.as_object(config.get("training"))
    held_out = files.as_object(training.get("validation"))
    kind = {"bc": "bc", "impala": "rl"}.get(str(training.get("method")), "other")
    start = training.get("start")
    before: Any = start.get("flops") if isinstance(start, dict) else None
    flops: Any = training.get("flops")
    if all(_is_number(part) and 0 < part < 1e40 for part in (flops, before)):
        flops += before  # bounded first: a float and a huge integer cannot be added
    numbers = {
        "params": config.get("params"),
        "flops": flops,
        "samples": training.get("samples"),
        "held_out_loss": held_out.get("loss"),
    }
    claims: dict[str, Any] = {n: v if _is_number(v) else None for n, v in numbers.items()}
    return kind, Claims(**{n: v if v and 0 < v < 1e40 else None for n, v in claims.items()})


def _entry_folder(agents: Path | None, name: str, weights: str) -> Path | None:
    """The bundled entry of that name, if it has these weights."""
    folder = agents / name if agents and files.is_plain_name(name) else None
    if folder is None or not weights or not (folder / "config.json").is_file():
        return None
    with files.open_regular(files.inside(folder, "model.safetensors")) as file:
        same = hashlib.file_digest(file, "sha256").hexdigest() == weights
    return folder if same else None


def _judged(first: BoardRow, log: Sequence[LogLine], leaderboard: Path) -> tuple[BoardRow, str]:
    """The row as the log has it, oldest line first; and a warning where it cannot be shown so."""
    accepted: LogLine | None = None
    again: LogLine | None = None
    row = first
    for line in (line for line in log if line.id == first.id):
        if line.event == "accept":
            accepted, again = line, None
            author = line.facts.get("author")
            author = author if isinstance(author, str) else ""
            row = replace(first, tier=str(line.facts.get("tier")), author=author)
        elif line.event == "remove":
            row = replace(row, status="removed", reason=line.reason)
        elif line.event == "rescore":
            row = replace(row, claimed=first.summary, summary=line.facts["summary"])
            if row.status != "removed":  # that it stays
                row = replace(row, status="rescored", reason=line.reason)
        elif line.event == "rerun" and accepted is not None:
            again = line
            if line.facts.get("agrees") is not True:
                row = replace(row, reason=line.reason)
    if accepted is None:
        return row, ""
    row = replace(row, date=row.date or accepted.date[:10])
    if row.tier not in TIERS[:3]:
        raise InputError(f"{row.folder}: the log accepts it as {row.tier!a}, which is no tier")
    if row.status == "removed":
        return row, ""
    if not _is_as_accepted(row.folder, log, accepted):
        return _altered(row), (
            f"{row.folder}: is not as it was accepted, and is shown as altered; restore it from "
            "the history, or check and accept it again"
        )
    if again is not None and again.facts.get("agrees") is True and _is_revealed(log, again):
        try:
            held = rerun.hold(leaderboard, log, row.id, row.protocol, row.folder)
        except (CheckFailed, InputError) as error:
            return row, f"{row.id}: is not shown as re-run: {error}"
        return replace(row, tier=TIERS[3]) if held.agrees else row, ""
    return row, ""


def _missing(log: Sequence[LogLine], there: set[str]) -> tuple[str, ...]:
    """A line for each row that the log has as accepted, and whose folder is not there."""
    last = {line.id: line.event for line in log if line.event in ("accept", "remove")}
    gone = sorted(id for id, event in last.items() if event == "accept" and id not in there)
    return tuple(
        f"{id}: is accepted by the log, and its folder is not there; restore it from the history"
        for id in gone
    )


def _is_revealed(log: Sequence[LogLine], line: LogLine) -> bool:
    """Whether a re-run's secret is in the log: before that nobody else can check it."""
    wanted = line.facts.get("commitment")
    shown = (one.facts for one in log if one.event == "reveal")
    return any(facts.get("commitment") == wanted for facts in shown)


def _is_as_accepted(folder: Path, log: Sequence[LogLine], accepted: LogLine) -> bool:
    whole = rerun.files_of(log, accepted)
    try:
        same = digest(folder) == accepted.facts.get("digest")
        return same and (not whole or whole_digest(folder) == whole)
    except InputError:
        return False


def _altered(row: BoardRow) -> BoardRow:
    """Nothing of the row's files is believed but what it takes to name it."""
    reason = "altered since it was accepted; it has to be checked and accepted again"
    nothing: dict[str, Any] = {"params": None, **dict.fromkeys(AS_SAID[:3])}
    return replace(row, tier=TIERS[0], status="altered", reason=reason, entry=None, **nothing)


def _counts(row: BoardRow) -> bool:
    return row.tier != TIERS[0] and row.status != "removed" and row.protocol in RANKED


def _normalized(rows: Sequence[BoardRow]) -> list[BoardRow]:
    """With each row's share of AutoAscend's mean score, where the board has it on the protocol."""
    experts = {
        row.protocol: row.summary["mean_score"]
        for row in rows
        if row.agent == EXPERT and _counts(row) and row.folder.parent.name == EXPERT
    }
    return [
        replace(row, normalized=row.summary["mean_score"] / experts[row.protocol])
        if experts.get(row.protocol)
        else row
        for row in rows
    ]


COLUMNS = (
    "id",
    "rank",
    "agent",
    "protocol",
    "tier",
    "status",
    "episodes",
    "mean_score",
    "ci95_low",
    "ci95_high",
    "normalized",
    "mean_progression",
    "mean_depth",
    "max_depth",
    "params",
    "flops",
    "samples",
    "held_out_loss",
    "kind",
    "date",
    "revision",
    "sha256",
    "contact",
    "licence",
    "reason",
    "crashed",
    "voided",
    "author",
    "as_said",
)


def as_csv(board: Board) -> str:
    """A line a row, in the order of the board; an empty field where a thing is not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in board.rows:
        values = _values(row)
        writer.writerow([_cell(values[name]) for name in COLUMNS])
    return text.getvalue()


def as_json(board: Board) -> dict[str, Any]:
    """All of it; `head` is the hash of the log's last line, `roles` the breakdown by role."""
    return {
        "schema_version": 1,
        "head": board_log.head(board.log),
        "lines": len(board.log),
        "warnings": list(board.warnings),
        "rows": [_values(row) | {"roles": dict(row.roles)} for row in board.rows],
        "references": [asdict(reference) for reference in board.references],
        "log": [asdict(line) for line in board.log],
    }


def _values(row: BoardRow) -> dict[str, Any]:
    low, high = row.summary["mean_score_ci95"] or (None, None)
    known = {**row.summary, **vars(row), "ci95_low": low, "ci95_high": high}
    known["as_said"] = " ".join(name for name in AS_SAID if getattr(row, name) not in (None, ""))
    values = {name: known.get(name) for name in COLUMNS}
    if row.claimed:
        values["claimed_mean_score"] = row.claimed["mean_score"]
    return values


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = "".join(char if char.isprintable() else " " for char in value)
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@|%") else text
