"""Maintaining the board: accept, remove, rescore, re-run; each is a line of the log."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nhzoo.agents.base import PolicyAgent
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation import results
from nhzoo.evaluation.evaluator import Progress, evaluate
from nhzoo.evaluation.verification import verify
from nhzoo.leaderboard import board_log, rerun
from nhzoo.leaderboard.board import TIERS, Board, BoardRow, read_board
from nhzoo.leaderboard.board_log import LogLine, digest, whole_digest
from nhzoo.leaderboard.checks import Report, config_problems, player_of
from nhzoo.leaderboard.claims import Candidate, candidate_of, own_candidate
from nhzoo.leaderboard.submission import NAME, check_text
from nhzoo.runtime import files


@dataclass(frozen=True)
class Checkout:
    """A checkout: `leaderboard/` and `agents/` below its root."""

    root: Path

    @property
    def leaderboard(self) -> Path:
        """Where the log, the results and the submissions are."""
        return self.root / "leaderboard"

    @property
    def agents(self) -> Path:
        """Where the zoo's entries are."""
        return self.root / "agents"

    def board(self) -> Board:
        """The board as it is now."""
        return read_board(self.leaderboard, self.agents)

    def row(self, id: str) -> BoardRow:
        """The row of that id."""
        for row in self.board().rows:
            if row.id == id:
                return row
        raise InputError(f"{id[:200]!a}: no such row; `nhzoo leaderboard export` lists the ids")

    def candidate(self, folder: Path) -> Candidate:
        """What is to be checked: a submission, or one of our own results, without a manifest."""
        ours = (self.leaderboard / "results").resolve()
        if not (folder / NAME).exists() and folder.resolve().parent.parent == ours:
            return own_candidate(folder)
        return candidate_of(folder)


def from_account(candidate: Candidate, author: str) -> Candidate:
    """The candidate, as it came from the account of its pull request; InputError for no account."""
    if author and not re.fullmatch(r"(hf|github):[A-Za-z0-9][A-Za-z0-9._-]{0,95}", author):
        raise InputError(f"--author {author[:80]!a}: is hf:NAME or github:NAME")
    if author and candidate.manifest is None:
        raise InputError("--author: a result of the zoo's own has none")
    return replace(candidate, author=author)


def accept(checkout: Checkout, candidate: Candidate, report: Report, reason: str) -> LogLine:
    """Put a checked candidate on the board, at the tier that the check found."""
    if not report.ok or report.digest != digest(candidate.folder):
        raise CheckFailed(
            f"{candidate.folder}: was refused; only what passes the check is accepted"
        )
    placed = candidate.folder if candidate.manifest is None else _bring(checkout, candidate)
    if whole_digest(placed) != report.files_sha256:
        raise CheckFailed(f"{placed}: was changed since it was checked; check it again")
    facts = {
        "agent": candidate.agent,
        "protocol": candidate.protocol.id,
        "tier": report.tier,
        "digest": report.digest,
        "files_sha256": report.files_sha256,
        "weights_sha256": candidate.weights,
        "tensors_sha256": report.tensors_sha256,
        "author": candidate.author,
        "mean_score": candidate.result["summary"]["mean_score"],
        "checked": report.reasons,
        "notes": report.notes,
    }
    return board_log.append(checkout.leaderboard, "accept", candidate.id, reason, facts)


def remove(checkout: Checkout, id: str, reason: str) -> LogLine:
    """Take a row out of the ranking; it stays visible, with the reason."""
    row = checkout.row(id)
    return board_log.append(
        checkout.leaderboard, "remove", id, reason, {"mean_score": row.summary["mean_score"]}
    )


def rescore(checkout: Checkout, id: str, reason: str, result: Path | None) -> LogLine:
    """Give a row other figures: of its latest re-run, or of a result that replays."""
    row = checkout.row(id)
    if row.tier == TIERS[0]:
        raise CheckFailed(f"{id}: is only reported; accept it first")
    if result is None:
        runs = [line for line in checkout.board().log if line.event == "rerun" and line.id == id]
        if not runs:
            raise InputError(f"{id}: was not re-run; give --result")
        facts: dict[str, Any] = {"from": "re-run", "summary": runs[-1].facts["fresh"]}
    else:
        found, protocol, rows = results.read_result(result)
        if protocol.id != row.protocol or found.get("weights_sha256") != (row.sha256 or None):
            raise CheckFailed(f"{result}: is of another protocol or other weights than {id}")
        if not verify(result, stop_at_first=True).ok:
            raise CheckFailed(f"{result}: does not replay")
        facts = {"from": digest(result), "summary": results.summarize(rows)}
    return board_log.append(checkout.leaderboard, "rescore", id, reason, facts)


def commit(checkout: Checkout, secret: Path, reason: str) -> LogLine:
    """Draw a secret into a new file, and its hash into the log.

    A secret whose hash did not come into the log, for a full disk or a kill, is taken up again.
    """
    log = checkout.board().log
    drawn = rerun.new_secret(secret, {line.facts.get("commitment") for line in log})
    return board_log.append(
        checkout.leaderboard, "commit", "", reason, {"commitment": rerun.commitment(drawn)}
    )


def reveal(checkout: Checkout, secret: str, reason: str) -> LogLine:
    """Write a secret into the log, once its re-runs are done."""
    made = rerun.commitment(secret)
    log = board_log.read_log(checkout.leaderboard)
    if not any(line.facts.get("commitment") == made for line in log if line.event == "commit"):
        raise CheckFailed("the log holds no commitment to this secret")
    if any(line.facts.get("secret") == secret for line in log if line.event == "reveal"):
        raise CheckFailed("this secret is revealed already")
    facts = {"commitment": made, "secret": secret}
    return board_log.append(checkout.leaderboard, "reveal", "", reason, facts)


def run_again(
    checkout: Checkout,
    id: str,
    secret: str,
    agent: str | None = None,
    games: int = rerun.GAMES,
    workers: int | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> tuple[rerun.Agreement, LogLine]:
    """Play a row's agent on fresh games, compare, and write both into the log.

    Without `agent` it is the weights of the row; what is named instead may be a bot's code, which
    is then run. Run again to resume.
    """
    row = checkout.row(id)
    committed, _ = rerun.check_order(board_log.read_log(checkout.leaderboard), row.id, secret)
    protocol = rerun.fresh_protocol(row.protocol, secret, digest(row.folder), games)
    candidate = checkout.candidate(row.folder)
    player: Any = agent
    if row.sha256 or agent is None:
        player = player_of(candidate, agent or "auto", checkout.agents)
        own = isinstance(player, PolicyAgent)
        if own and (problems := config_problems(candidate, player.entry.config)):
            raise CheckFailed(f"{id}: {problems[0]}")
    out = rerun.folder_of(checkout.leaderboard, id, protocol.id)
    batch = candidate.result.get("batch")
    done = evaluate(player, protocol, games, workers, out, batch, progress)
    found = rerun.compare(row.folder, done.episodes)
    facts = {
        "commitment": committed.facts["commitment"],
        "digest": digest(row.folder),
        "protocol": protocol.id,
        "games": games,
        "result": digest(out),
        "files_sha256": whole_digest(out),
        **found.as_json(),
    }
    verdict = "they differ" if found.differs else "no difference"
    reason = (
        f"{games:,} fresh games: mean score {found.fresh['mean_score']:,.1f}, submitted "
        f"{found.submitted['mean_score']:,.1f}; {verdict} (p = {found.p_value:.3f})"
    )
    return found, board_log.append(checkout.leaderboard, "rerun", id, reason, facts)


def check_rerun(checkout: Checkout, id: str, workers: int | None = None) -> Mapping[str, Any]:
    """Replay a row's re-run on the seeds that the revealed secret gives; for anybody to do."""
    log, row = board_log.read_log(checkout.leaderboard), checkout.row(id)
    held = rerun.hold(checkout.leaderboard, log, id, row.protocol, row.folder)
    report = verify(held.folder, workers, stop_at_first=True, protocol=held.protocol)
    if not report.ok or report.verified != held.protocol.games:
        raise CheckFailed(f"{held.folder}: does not replay on the seeds of the revealed secret")
    fresh = held.line.facts["fresh"]
    return {"id": id, "games": report.verified, "verified": report.verified, "fresh": fresh}


def seal(checkout: Checkout, reason: str) -> list[LogLine]:
    """Bind every file of what was accepted, or re-run, when lines of the log bound three of them.

    Their traces are read: `episodes.jsonl`, which was bound, has the hash of each. CheckFailed for
    a row whose files are not those that were accepted.
    """
    board_log.write_pin(checkout.leaderboard)
    board = checkout.board()
    written: list[LogLine] = []
    for row in board.rows:
        accepts = [line for line in board.log if line.event == "accept" and line.id == row.id]
        reruns = [line for line in board.log if line.event == "rerun" and line.id == row.id]
        for line in (*accepts[-1:], *reruns[-1:]):
            folder, bound = row.folder, line.facts.get("digest")
            if line.event == "rerun":
                bound = line.facts.get("result")
                folder = rerun.folder_of(checkout.leaderboard, row.id, str(line.facts["protocol"]))
            if row.status == "removed" or rerun.files_of(board.log, line):
                continue
            if digest(folder) != bound:
                raise CheckFailed(f"{folder}: is not what line {line.number + 1} of the log has")
            if row.tier != TIERS[0]:
                _own_files(folder)
            facts = {"line": line.number, "files_sha256": whole_digest(folder)}
            written.append(board_log.append(checkout.leaderboard, "seal", row.id, reason, facts))
    return written


def _own_files(folder: Path) -> None:
    """CheckFailed unless each trace is the one of its game, and nothing else is there."""
    rows = results.read_episodes(folder)
    for row in rows:
        keys = results.read_trace(folder, row["index"])
        if hashlib.sha256(keys).hexdigest() != row["sha256"]:
            raise CheckFailed(f"{folder}: trace {row['index']} is not that of its game")
    if (folder / NAME).exists():
        candidate_of(folder)  # its manifest, which was bound, has the hash of every file
        return
    known = {f"{row['index']}.xz" for row in rows}
    known |= {"result.json", "evaluation.json", "episodes.jsonl", "traces"}
    odd = sorted(path.name for path in folder.rglob("*") if path.name not in known)
    if odd:
        raise CheckFailed(f"{folder}: holds {odd[0]!a}, which no result has; remove it")


def check_reason(reason: str) -> str:
    """A reason, before anything is done for it."""
    return check_text(reason, "--reason", 500)


def _bring(checkout: Checkout, candidate: Candidate) -> Path:
    """Copy a submission to its place, unless it is there; only the files that it names."""
    assert candidate.manifest is not None
    target = checkout.leaderboard / "submissions" / candidate.id
    if target.resolve() == candidate.folder.resolve():
        return target
    if target.exists():
        if whole_digest(target) == whole_digest(candidate.folder):
            return target
        raise InputError(f"{target}: is there already, and another one; remove it by hand")
    with files.temporary_folder(target) as temporary:
        whole = temporary / candidate.id
        for name in (*candidate.manifest.files, NAME):
            (whole / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(
                files.inside(candidate.folder, name), whole / name, follow_symlinks=False
            )
        if digest(whole) != digest(candidate.folder) or candidate_of(whole).id != candidate.id:
            raise CheckFailed(f"{candidate.folder}: changed while it was copied")
        whole.rename(target)
    return target
