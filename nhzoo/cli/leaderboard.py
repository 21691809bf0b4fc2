"""Commands of the leaderboard: `submit`, and `leaderboard check`, `accept`, `rerun` and more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nhzoo.cli.options import AS_JSON, FOLDER, WORKERS
from nhzoo.errors import CheckFailed, InputError
from nhzoo.runtime import console, scratch

if TYPE_CHECKING:
    from nhzoo.leaderboard.board_log import LogLine
    from nhzoo.leaderboard.checks import Report
    from nhzoo.leaderboard.claims import Candidate

ROOT = click.option(
    "--root",
    type=FOLDER,
    default=".",
    show_default=True,
    help="Checkout with the folder leaderboard/.",
)
REASON = click.option("--reason", required=True, help="Reason for the log, in one line.")
AUDIT = click.option(
    "--audit", metavar="AGENT|auto", help="Also recompute every key from these weights."
)
AUTHOR = click.option(
    "--author",
    default="",
    metavar="hf:NAME|github:NAME",
    help="Account that opened the pull request, as you saw it; the hub is asked for its own.",
)
ON_HUB = click.option(
    "--hub",
    "on_hub",
    is_flag=True,
    help="Also compare the weights with entries on the hub (always done for a submission there).",
)
SECRET = click.option(
    "--secret",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File of the secret; keep it out of the repository.",
)


@click.command()
@click.argument("result", type=FOLDER)
@click.option("--entry", help="Weights that played: a folder, a name or hf://org/name@commit.")
@click.option(
    "--to",
    default="submissions",
    show_default=True,
    metavar="FOLDER|hub",
    help="Target: a folder, for a git pull request; or hub, for a pull request there.",
)
@click.option("--contact", required=True, help="Contact: a name, address or account.")
@click.option(
    "--licence", required=True, help="Licence of the games and the weights, for example MIT."
)
@click.option("--name", help="Name of the agent on the board (default: as evaluated).")
@click.option("--description", default="", help="One line about the agent.")
@click.option("--code", default="", help="Address of a bot's code.")
@click.option(
    "--reported-only", is_flag=True, help="List the score as claimed, unranked; needs no games."
)
@click.option("--repo", help="Dataset of results on the hub (default: the zoo's).")
@AS_JSON
def submit(
    result: Path,
    entry: str | None,
    to: str,
    contact: str,
    licence: str,
    name: str | None,
    description: str,
    code: str,
    reported_only: bool,
    repo: str | None,
    as_json: bool,
) -> None:
    """Submit a finished result to the leaderboard.

    The submission is one folder with everything that a check needs.

    \b
    Example: nhzoo submit results/mine --entry agents/mine --contact me@example.org --licence MIT
    """
    from nhzoo.leaderboard import submitting

    options: dict[str, Any] = {
        "entry": entry,
        "name": name,
        "reported_only": reported_only,
        "description": description,
        "code": code,
    }
    if to != "hub":
        folder = submitting.make(result, Path(to), contact, licence, **options)
        if as_json:
            console.print_json({"id": folder.name, "folder": str(folder), "pull_request": None})
        else:
            console.show(f"{folder} is ready: `nhzoo leaderboard check {folder}`, then commit it")
        return
    with scratch.temporary() as temporary:
        folder = submitting.make(result, temporary, contact, licence, on_hub=True, **options)
        pushed = submitting.to_hub(folder, repo)
    if as_json:
        document = {"id": folder.name, "folder": None, "pull_request": pushed.pull_request}
        console.print_json(document | {"url": pushed.url, "made": pushed.made})
    else:
        verb = "opened" if pushed.made else "open already"
        console.show(f"{folder.name}: pull request {verb}: {pushed.pull_request or pushed.url}")


@click.group()
def leaderboard() -> None:
    """Check submissions; maintain, export and show the board."""


@leaderboard.command()
@click.argument("submission")
@AUDIT
@AUTHOR
@ON_HUB
@ROOT
@click.option(
    "--hours", type=float, default=12.0, show_default=True, help="Give up after this many hours."
)
@WORKERS
@AS_JSON
def check(
    submission: str,
    audit: str | None,
    author: str,
    on_hub: bool,
    root: Path,
    hours: float,
    workers: int | None,
    as_json: bool,
) -> None:
    """Check a submission and say which tier it reaches.

    The tier is reported, replayed or audited; the reasons say why not more. SUBMISSION is a folder,
    or hf://datasets/ORG/results@refs/pr/N. No code of the submitter is run: NLE replays the games,
    and the weights are only data.

    \b
    Example: nhzoo leaderboard check submissions/mine-monk-lite-v1-0a1b2c3d --audit auto
    """
    with _candidate(submission, root, author) as candidate:
        on_hub = on_hub or submission.startswith("hf://")
        report = _check(candidate, root, audit, workers, hours, on_hub)
    _show(report, as_json)


@leaderboard.command()
@click.argument("submission")
@REASON
@AUDIT
@AUTHOR
@ON_HUB
@ROOT
@WORKERS
@AS_JSON
def accept(
    submission: str,
    reason: str,
    audit: str | None,
    author: str,
    on_hub: bool,
    root: Path,
    workers: int | None,
    as_json: bool,
) -> None:
    """Check a submission and put it on the board.

    SUBMISSION may also be a result in leaderboard/results.

    \b
    Example: nhzoo leaderboard accept leaderboard/results/random/monk-lite-v1 --reason first
    """
    from nhzoo.leaderboard import maintaining

    maintaining.check_reason(reason)
    checkout = maintaining.Checkout(root)
    with _candidate(submission, root, author) as candidate:
        on_hub = on_hub or submission.startswith("hf://")
        report = _check(candidate, root, audit, workers, 12.0, on_hub)
        if not report.ok:
            _show(report, as_json)
        line = maintaining.accept(checkout, candidate, report, reason)
    _tell(line, as_json, f"{report.id}: accepted as {report.tier}")


@leaderboard.command()
@click.argument("row")
@REASON
@ROOT
@AS_JSON
def remove(row: str, reason: str, root: Path, as_json: bool) -> None:
    """Remove a row from the ranking.

    The row stays visible, with the reason.

    \b
    Example: nhzoo leaderboard remove mine-monk-lite-v1-0a1b2c3d --reason 'withdrawn by its author'
    """
    from nhzoo.leaderboard import maintaining

    maintaining.check_reason(reason)
    line = maintaining.remove(maintaining.Checkout(root), row, reason)
    _tell(line, as_json, f"{row}: removed")


@leaderboard.command()
@click.argument("row")
@REASON
@click.option(
    "--result", type=FOLDER, help="Result that counts from now on (default: the row's re-run)."
)
@ROOT
@AS_JSON
def rescore(row: str, reason: str, result: Path | None, root: Path, as_json: bool) -> None:
    """Give a row the score of its re-run or of another result.

    The claimed score stays visible.

    \b
    Example: nhzoo leaderboard rescore mine-monk-lite-v1-0a1b2c3d --reason 'as on fresh seeds'
    """
    from nhzoo.leaderboard import maintaining

    maintaining.check_reason(reason)
    line = maintaining.rescore(maintaining.Checkout(root), row, reason, result)
    _tell(line, as_json, f"{row}: rescored to {line.facts['summary']['mean_score']:,.1f}")


@leaderboard.command()
@SECRET
@REASON
@ROOT
@AS_JSON
def commit(secret: Path, reason: str, root: Path, as_json: bool) -> None:
    """Draw a secret for re-runs and log its hash.

    The secret goes to a new file.

    \b
    Example: nhzoo leaderboard commit --secret ~/nhzoo-secret --reason 'for the coming month'
    """
    from nhzoo.leaderboard import maintaining

    maintaining.check_reason(reason)
    line = maintaining.commit(maintaining.Checkout(root), secret, reason)
    _tell(line, as_json, f"committed to {line.facts['commitment']}; the secret is in {secret}")


@leaderboard.command()
@SECRET
@REASON
@ROOT
@AS_JSON
def reveal(secret: Path, reason: str, root: Path, as_json: bool) -> None:
    """Reveal a secret in the log, after its re-runs.

    \b
    Example: nhzoo leaderboard reveal --secret ~/nhzoo-secret --reason 'the month is over'
    """
    from nhzoo.leaderboard import maintaining, rerun

    maintaining.check_reason(reason)
    line = maintaining.reveal(maintaining.Checkout(root), rerun.read_secret(secret), reason)
    _tell(line, as_json, f"revealed: {line.facts['secret']}")


@leaderboard.command()
@click.argument("row")
@click.option(
    "--secret",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of the secret that was committed to.",
)
@click.option("--episodes", type=int, default=128, show_default=True, help="Number of fresh games.")
@click.option(
    "--agent", help="Agent to run for a row without weights; its code runs here, so trust it."
)
@click.option(
    "--check",
    "only_check",
    is_flag=True,
    help="Play nothing; replay the re-run on the seeds of the revealed secret.",
)
@ROOT
@WORKERS
@AS_JSON
def rerun(
    row: str,
    secret: Path | None,
    episodes: int,
    agent: str | None,
    only_check: bool,
    root: Path,
    workers: int | None,
    as_json: bool,
) -> None:
    """Re-run a row's agent on seeds drawn after its submission.

    The seeds are SHA-256 of the secret, the submission's digest and the game. The exit code is 1 if
    the submitted games are better than the fresh ones by more than chance.

    \b
    Example: nhzoo leaderboard rerun bc-lstm-1m-monk-lite-v1 --secret ~/nhzoo-secret
    """
    from nhzoo.leaderboard import maintaining
    from nhzoo.leaderboard.rerun import read_secret

    checkout = maintaining.Checkout(root)
    if only_check:
        checked = maintaining.check_rerun(checkout, row, workers)
        if as_json:
            console.print_json(dict(checked))
        else:
            console.show(f"{row}: {checked['verified']} fresh games replayed, as the log has them")
        return
    if secret is None:
        raise InputError("--secret: give the file that `nhzoo leaderboard commit` wrote")
    with console.LiveProgress(f"re-run {row}", "games") as bar:
        found, line = maintaining.run_again(
            checkout,
            row,
            read_secret(secret),
            agent,
            episodes,
            workers,
            lambda state: bar.update(state.done, state.total),
        )
    _tell(line, as_json, f"{row}: {line.reason}")
    if not found.agrees:
        raise CheckFailed(f"{row}: the submitted games are better than chance allows")


@leaderboard.command()
@REASON
@ROOT
@AS_JSON
def seal(reason: str, root: Path, as_json: bool) -> None:
    """Bind every file of older rows in the log.

    Rows accepted since the log binds all files do not need it. Only files that are as they were
    accepted are bound. The command also pins the last line of the log.

    \b
    Example: nhzoo leaderboard seal --reason 'every file counts from now on'
    """
    from nhzoo.leaderboard import maintaining

    maintaining.check_reason(reason)
    lines = maintaining.seal(maintaining.Checkout(root), reason)
    if as_json:
        console.print_json({"sealed": [asdict(line) for line in lines]})
    else:
        console.show(f"{len(lines)} lines of the log bind every file now")


@leaderboard.command()
@ROOT
@click.option("--head", help="Check that this earlier last hash is still in the chain.")
@AS_JSON
def log(root: Path, head: str | None, as_json: bool) -> None:
    """Check the log and show it, with its last hash.

    \b
    Example: nhzoo leaderboard log
    """
    from nhzoo.leaderboard import board_log

    lines = board_log.read_log(root / "leaderboard")
    if head is not None and not board_log.holds(lines, head):
        raise CheckFailed(f"{root / 'leaderboard' / board_log.NAME}: {head[:80]!a} is not in it")
    if as_json:
        console.print_json({"head": board_log.head(lines), "log": [asdict(x) for x in lines]})
        return
    console.print_table(
        ("date", "event", "row", "reason"),
        [(line.date, line.event, line.id, line.reason) for line in lines],
    )
    console.say(f"head {board_log.head(lines)}")


@leaderboard.command()
@ROOT
@AS_JSON
def export(root: Path, as_json: bool) -> None:
    """Print the board as CSV on stdout.

    With --json, print all of it, with roles, references and the log.

    \b
    Example: nhzoo leaderboard export > board.csv
    """
    from nhzoo.leaderboard import board as board_export
    from nhzoo.leaderboard import maintaining

    board = maintaining.Checkout(root).board()
    if as_json:
        console.print_json(board_export.as_json(board))
    else:
        console.show(board_export.as_csv(board).rstrip("\n"))
    warn(board.warnings)


def warn(warnings: Sequence[str]) -> None:
    """CheckFailed, in one line, when rows are not shown as the log has them."""
    if warnings:
        more = f" (and {len(warnings) - 1} more rows)" if len(warnings) > 1 else ""
        raise CheckFailed(f"{warnings[0]}{more}")


@contextlib.contextmanager
def _candidate(named: str, root: Path, author: str) -> Iterator[Candidate]:
    """A submission in its folder; one on the hub is fetched for as long as it is looked at."""
    from nhzoo.hub import client
    from nhzoo.hub.repos import parse
    from nhzoo.leaderboard import maintaining, submitting

    checkout = maintaining.Checkout(root)
    if not named.startswith("hf://"):
        yield maintaining.from_account(checkout.candidate(Path(named)), author)
        return
    ref = parse(named)
    with scratch.temporary() as temporary:
        candidate = checkout.candidate(submitting.from_hub(ref, temporary))
        seen = f"hf:{client.author_of(ref)}"
        if author not in ("", seen):
            raise CheckFailed(f"--author {author[:80]!a}: the pull request is {seen}'s")
        yield maintaining.from_account(candidate, seen)


def _check(
    candidate: Candidate,
    root: Path,
    audit: str | None,
    workers: int | None,
    hours: float,
    on_hub: bool,
) -> Report:
    from nhzoo.leaderboard import maintaining
    from nhzoo.leaderboard.checks import check as run

    checkout = maintaining.Checkout(root)
    there = checkout.leaderboard.is_dir()
    rows = checkout.board().rows if there else ()
    with console.LiveProgress(f"check {candidate.id}", "games") as bar:
        report = run(
            candidate,
            rows,
            audit,
            checkout.agents,
            workers,
            lambda what, done, total: bar.update(done, total, what),
            hours=hours,
            on_hub=on_hub,
        )
    if not there:
        report.notes.append(f"not held against other rows: {checkout.leaderboard} is not there")
    return report


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        console.print_json(report.as_json())
    else:
        console.show(f"{report.id}: {report.tier or 'refused'}")
        for tier, reason in report.reasons.items():
            console.say(f"{tier}: {reason}")
    for note in report.notes:
        console.say(f"note: {note}")
    for problem in report.problems[:20]:
        console.say(problem)
    if not report.ok:
        raise CheckFailed(f"{report.id}: does not count as {report.asked}")


def _tell(line: LogLine, as_json: bool, text: str) -> None:
    if as_json:
        console.print_json(asdict(line))
    else:
        console.show(text)
