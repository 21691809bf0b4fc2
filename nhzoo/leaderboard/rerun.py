"""Re-runs: the same agent on games whose seeds nobody could know at submission.

A secret is committed to in the log by its hash, then submissions are accepted, then the seeds are
drawn from SHA-256 of ``nhzoo:rerun:<secret>:<digest of the submission>:<game>``: its author did not
know the secret, and we could not choose it any more. Later it is revealed, and anybody can draw the
same seeds and replay the games.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from nhzoo.envs.protocols import GameSpec, Protocol, action_stream, get_protocol, seeds_of
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation import results, statistics
from nhzoo.evaluation.statistics import Interval
from nhzoo.leaderboard.board_log import LogLine, whole_digest
from nhzoo.leaderboard.board_log import digest as games_digest
from nhzoo.runtime import files

GAMES = 128
FOLDER = "reruns"
LEVEL = 0.05


@dataclass(frozen=True)
class FreshProtocol(Protocol):
    """The character and limits of a protocol, on games drawn from a secret and a submission."""

    secret: str = ""
    digest: str = ""

    def game(self, index: int) -> GameSpec:
        """What decides game `index` (0 <= index < games)."""
        if not 0 <= index < self.games:
            raise InputError(f"{self.id} has games 0 to {self.games - 1}, there is no {index}")
        core, disp = seeds_of(self._text(index))
        return GameSpec(core=core, disp=disp, character=self.character)

    def uniforms(self, index: int) -> Any:
        """The sampling stream of game `index`."""
        return action_stream(f"{self._text(index)}:actions")

    def _text(self, index: int) -> str:
        return f"nhzoo:rerun:{self.secret}:{self.digest}:{index}"


@dataclass(frozen=True)
class Agreement:
    """The submitted games beside fresh ones. `difference` is submitted minus fresh mean score.

    They differ when the 95 % interval of the difference (BCa, both resampled) leaves out 0 and a
    permutation test of the means gives less than 0.05. Of an honest agent that happens in at most
    one re-run of twenty. `agrees` is False only when the submitted games are the better ones:
    games that were chosen, or trained on, do not get worse by it.
    """

    submitted: dict[str, Any]
    fresh: dict[str, Any]
    difference: Interval
    p_value: float
    differs: bool
    agrees: bool

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def fresh_protocol(protocol: str, secret: str, digest: str, games: int = GAMES) -> FreshProtocol:
    """The games of a re-run."""
    known = get_protocol(protocol)
    if not 1 <= games <= 100_000:
        raise InputError(f"--episodes {games}: 1 to 100,000 games can be re-run")
    if not re.fullmatch(r"[0-9a-f]{64}", secret) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InputError("a secret and a digest are 64 hexadecimal digits")
    name = hashlib.sha256(f"{secret}:{digest}".encode()).hexdigest()[:16]
    limits = known.step_cap, known.no_progress
    return FreshProtocol(
        f"{known.id}-rerun-{name}", known.character, games, *limits, secret, digest
    )


def commitment(secret: str) -> str:
    """What is published of a secret beforehand."""
    return hashlib.sha256(f"nhzoo:rerun:{secret}".encode()).hexdigest()


def new_secret(path: Path, committed: Container[object] = ()) -> str:
    """Draw a secret into a new file that only its owner can read.

    One that lies there unused, with none of the commitments `committed`, is taken; one that was
    not written to its end is drawn anew. InputError when anything else is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    left = _left_secret(path)
    if left is not None and re.fullmatch(r"[0-9a-f]{64}", left):
        if commitment(left) not in committed:
            return left
    elif left is not None:
        path.unlink()
    secret = secrets.token_hex(32)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InputError(f"{path}: is there already; a secret is never written over") from None
    with files.naming(path), os.fdopen(handle, "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    return secret


def _left_secret(path: Path) -> str | None:
    """What a file holds: a secret, or the beginning of one, that only this user can read."""
    with contextlib.suppress(OSError, InputError):
        found = path.lstat()
        private = stat.S_ISREG(found.st_mode) and not found.st_mode & 0o077
        if private and found.st_uid == os.getuid():
            text = files.read_bounded(path, 65).decode("utf-8", "replace")
            return text.rstrip() if re.fullmatch(r"[0-9a-f]{0,64}\n?", text) else None
    return None


def read_secret(path: Path) -> str:
    """The secret of a file."""
    text = files.read_bounded(path, 1_000).decode("utf-8", "replace").strip()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise InputError(f"{path}: holds no secret (64 hexadecimal digits)")
    return text


def check_order(log: Sequence[LogLine], id: str, secret: str) -> tuple[LogLine, LogLine]:
    """The lines that committed to a secret and accepted a row; CheckFailed when it was not so.

    The secret has to have been committed to before the row was first accepted with these games, be
    the newest one then, and not be revealed before.
    """
    accepts = [line for line in log if line.event == "accept" and line.id == id]
    removed = any(
        line.event == "remove" and line.id == id and line.number > accepts[-1].number
        for line in log
        if accepts
    )
    if not accepts or removed:
        raise CheckFailed(f"{id}: is not accepted; accept it first")
    digest = accepts[-1].facts.get("digest")
    accepted = next(line for line in accepts if line.facts.get("digest") == digest)
    before = [line for line in log if line.event == "commit" and line.number < accepted.number]
    if not before or before[-1].facts.get("commitment") != commitment(secret):
        raise CheckFailed(
            f"{id}: the secret is not the one committed to last before the row was accepted; "
            "with another, seeds could have been chosen"
        )
    shown = [line for line in log if line.event == "reveal" and line.number < accepted.number]
    if any(line.facts.get("secret") == secret for line in shown):
        raise CheckFailed(f"{id}: the secret was revealed before the row was accepted")
    return before[-1], accepted


def compare(folder: Path, fresh: Sequence[results.Row]) -> Agreement:
    """The games of a row's folder beside those of its re-run."""
    submitted = results.read_episodes(folder)
    reason = results.no_score(fresh)
    if reason:
        raise CheckFailed(f"{folder}: re-run, {reason}")
    first, second = ([float(r["score"]) for r in rows] for rows in (submitted, fresh))
    difference = statistics.unpaired_difference(first, second)
    p_value = statistics.permutation_test(first, second).value
    ends = difference.ends
    differs = p_value < LEVEL and not (ends and ends[0] <= 0 <= ends[1])
    return Agreement(
        results.summarize(submitted),
        results.summarize(fresh),
        difference,
        p_value,
        differs,
        not (differs and difference.estimate > 0),
    )


@dataclass(frozen=True)
class Held:
    """A re-run that its line of the log, the secret and its games agree on."""

    line: LogLine
    folder: Path
    protocol: FreshProtocol
    agrees: bool


def folder_of(leaderboard: Path, id: str, protocol: str) -> Path:
    """Where the games of a re-run are."""
    return leaderboard / FOLDER / id / protocol


def hold(leaderboard: Path, log: Sequence[LogLine], id: str, protocol: str, folder: Path) -> Held:
    """Ask of a row's latest re-run all that can be asked without playing; CheckFailed if not so.

    That its secret is revealed, was committed to before the row was accepted, gives the protocol
    and the seeds of the games that are there, that these are the files of the log, and what
    comparing them with the row's in `folder` comes to. `nhzoo leaderboard rerun --check` replays
    them as well.
    """
    secret, line = revealed(log, id)
    facts = line.facts
    _, accepted = check_order([other for other in log if other.number < line.number], id, secret)
    games = facts.get("games")
    if type(games) is not int:
        raise CheckFailed(f"{id}: the log does not say how many games were re-run")
    row_digest = games_digest(folder)
    if not row_digest == facts.get("digest") == accepted.facts.get("digest"):
        raise CheckFailed(f"{id}: was re-run with other games than it was accepted with")
    fresh = fresh_protocol(protocol, secret, row_digest, games)
    out = folder_of(leaderboard, id, fresh.id)
    where = f"is not the re-run of line {line.number + 1} of the log"
    if facts.get("protocol") != fresh.id or not out.is_dir():
        raise CheckFailed(f"{out}: {where}")
    whole = files_of(log, line)
    if games_digest(out) != facts.get("result") or (whole and whole_digest(out) != whole):
        raise CheckFailed(f"{out}: {where}")
    agreement = _agreement(folder, row_digest, out, str(facts.get("result")), fresh)
    said = facts.get("fresh")
    same = isinstance(said, dict) and results.same(
        results.completed(said, agreement.fresh), agreement.fresh
    )
    if not same or agreement.agrees is not facts.get("agrees"):
        raise CheckFailed(f"{out}: its games do not come to what line {line.number + 1} has")
    return Held(line, out, fresh, agreement.agrees)


@lru_cache(maxsize=1_000)
def _agreement(
    folder: Path, row_digest: str, out: Path, result: str, protocol: FreshProtocol
) -> Agreement:
    """Compared once for the same games: the digests are part of the key."""
    rows = results.read_episodes(out)
    for i, row in enumerate(rows):
        spec = protocol.game(i) if i < protocol.games else None
        if spec is None or (row["index"], row["core"], row["disp"]) != (i, spec.core, spec.disp):
            raise CheckFailed(f"{out}: its seeds are not those of the revealed secret")
    if len(rows) != protocol.games:
        raise CheckFailed(f"{out}: has {len(rows):,} games, the log {protocol.games:,}")
    return compare(folder, rows)


def files_of(log: Sequence[LogLine], line: LogLine) -> str:
    """The digest of every file that a line, or else the first that seals it, binds; "" for none."""
    seals = (x.facts for x in log if x.event == "seal" and x.facts.get("line") == line.number)
    facts: Mapping[str, Any] = next(seals, {})
    return str(line.facts.get("files_sha256") or facts.get("files_sha256") or "")


def revealed(log: Sequence[LogLine], id: str) -> tuple[str, LogLine]:
    """The secret of a row's latest re-run, and the line of that; CheckFailed before the reveal."""
    runs = [line for line in log if line.event == "rerun" and line.id == id]
    if not runs:
        raise InputError(f"{id}: was not re-run")
    wanted = runs[-1].facts.get("commitment")
    for line in log:
        secret = str(line.facts.get("secret", ""))
        if line.event == "reveal" and commitment(secret) == wanted:
            return secret, runs[-1]
    raise CheckFailed(f"{id}: the secret of its re-run is not revealed yet")
