"""First steps: `tour`, from nothing to a watched game, a verified score and a page; and `demo`."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from nhzoo.cli.evaluate import evaluate_games, print_scores, say_faults, score_row
from nhzoo.cli.options import AGENT, FOLDER, PROTOCOL, WORKERS
from nhzoo.errors import CheckFailed, InputError
from nhzoo.runtime import console

_TOUR_PROTOCOL = "smoke-v1"
_TOUR_STEPS = 200
_STEPS_PER_SECOND = 12.0


@click.command()
@click.argument("agent", type=AGENT, default="bc-lstm-483k")
@click.option("--out", type=FOLDER, help="Folder to write to (default: a new temporary one).")
@click.option("--yes", is_flag=True, help="Do not wait for Enter between the steps.")
@WORKERS
def tour(agent: str, out: Path | None, yes: bool, workers: int | None) -> None:
    """Take a tour of three minutes: a game, a score, a page.

    It watches an agent play, plays the 8 short games of smoke-v1, replays them key by key, and
    writes a page with games to watch. Each step shows the command that does the same. It waits for
    Enter before each step, unless --yes is given or standard input is no terminal.

    \b
    Example: nhzoo tour
    """
    folder = out or Path(tempfile.mkdtemp(prefix="nhzoo-tour-"))
    result = folder / "result"
    wait = sys.stdin.isatty() and not yes
    steps: list[tuple[str, str, Callable[[], None]]] = [
        (
            f"Watch {agent} play {_TOUR_STEPS} steps.",
            f"nhzoo watch {agent} --speed {_STEPS_PER_SECOND:g} --max-steps {_TOUR_STEPS}",
            lambda: _watch(agent),
        ),
        (
            "Measure it: play the 8 games of smoke-v1, at most 2,000 steps each.",
            f"nhzoo evaluate {agent} --protocol {_TOUR_PROTOCOL} --out {result}",
            lambda: _score(agent, result, workers),
        ),
        (
            "Verify it: replay every game, and recompute every key from the weights.",
            f"nhzoo verify {result} --audit {agent}",
            lambda: _verify(agent, result, workers),
        ),
        (
            "Write a page with the score and games to watch.",
            f"nhzoo report {result}",
            lambda: _page(result, workers),
        ),
    ]
    for number, (what, command, run) in enumerate(steps, 1):
        console.show(f"\n{number} of {len(steps)}. {what}\n   $ {command}")
        if wait:
            click.pause("   Press Enter.", err=True)
        run()
    console.show(f"\nAll of it is in {folder}; delete that folder when you are done.")
    _say_next(agent)


def _watch(agent: str) -> None:
    from nhzoo.agents.loading import load
    from nhzoo.cli.watch import watch
    from nhzoo.envs.protocols import get_protocol

    if not sys.stdout.isatty():
        console.show("   Left out: standard output is no terminal.")
        return
    watch(load(agent), get_protocol(_TOUR_PROTOCOL), 0, _STEPS_PER_SECOND, _TOUR_STEPS)


def _score(agent: str, out: Path, workers: int | None) -> None:
    from nhzoo.evaluation.results import need_score

    result, rows = evaluate_games(agent, _TOUR_PROTOCOL, None, workers, None, out)
    say_faults(rows)
    need_score(rows, out)
    print_scores([score_row(result, rows)])


def _verify(agent: str, folder: Path, workers: int | None) -> None:
    from nhzoo.evaluation.auditing import audit
    from nhzoo.evaluation.verification import verify

    with console.LiveProgress("verify", "games") as bar:
        report = verify(folder, workers, bar.update)
    if not report.ok:
        raise CheckFailed(f"{folder}: not reproduced; nhzoo verify {folder} says more")
    console.show(f"   {report.verified} of {report.episodes} games came to the same score.")
    with console.LiveProgress("audit", "games") as bar:
        audited = audit(folder, agent, workers, bar.update)
    if not audited.ok:
        raise CheckFailed(f"{folder}: these are not the games that {agent} plays")
    console.show(f"   {audited.matched:,} of {audited.keys:,} keys are its own.")


def _page(folder: Path, workers: int | None) -> None:
    from nhzoo.publishing.report import write_report

    with console.LiveProgress("report", "games") as bar:
        path = write_report(folder, workers=workers, progress=bar.update)
    console.show(f"   Open {path} in a browser; it needs no network.")


def _say_next(agent: str) -> None:
    console.show("Next:")
    for what, command in (
        ("the other agents", "nhzoo list"),
        ("all that is known of this one", f"nhzoo info {agent}"),
        ("two agents on the same game", f"nhzoo watch {agent} --beside scripted"),
        (
            "a score to compare (128 games; minutes)",
            f"nhzoo evaluate {agent} --protocol monk-lite-v1 --out results/{Path(agent).name}",
        ),
        ("train one yourself", "nhzoo train bc --help"),
    ):
        console.show(f"  {what}:\n    {command}")


@click.command()
@click.argument("agent", type=AGENT, default="bc-lstm-483k")
@click.option(
    "--protocol", type=PROTOCOL, default="smoke-v1", show_default=True, help="Protocol to play."
)
@click.option("--episodes", type=int, help="Play only the first N games.")
@click.option(
    "--watch",
    "seconds",
    type=click.FloatRange(0),
    default=0.0,
    help="On a terminal, show a game for so many seconds while the others are played.",
)
@click.option("--out", type=FOLDER, required=True, help="Folder for the results.")
@WORKERS
def demo(
    agent: str,
    protocol: str,
    episodes: int | None,
    seconds: float,
    out: Path,
    workers: int | None,
) -> None:
    """Evaluate an agent beside the random agent and the expert.

    With --watch 60 it shows the agent play meanwhile, where standard output is a terminal and not
    in CI.

    \b
    Example: nhzoo demo bc-lstm-1m --out build/demo
    """
    from nhzoo.evaluation import results
    from nhzoo.evaluation.expert import expert_summary
    from nhzoo.publishing.facts import facts_of

    games = {}
    rows = []
    for name in (agent, "random"):
        folder = out / Path(name).name
        terminal = sys.stdout.isatty() and not os.environ.get("CI")
        if seconds and name == agent and terminal:
            played = _play_and_show(name, protocol, episodes, workers, folder, seconds)
        else:
            played = evaluate_games(name, protocol, episodes, workers, None, folder)
        games[folder] = played[1]
        say_faults(played[1], Path(name).name)
        rows.append(_demo_row(played[0]["agent"], played[0]["summary"]))
    rows[1:1] = _published(protocol, [row["index"] for row in played[1]], agent)
    rows.insert(1, _demo_row("AutoAscend (reference)", expert_summary("autoascend-monk-v1")))
    console.print_table(("agent", "games", "mean score [95 %]", "median", "turns"), rows)
    console.say(
        f"These are games of {protocol}. AutoAscend's are the bundled expert games (100,000 steps "
        "at most): a reference, not a comparison."
    )
    with contextlib.suppress(InputError):  # of code of one's own nothing is known
        if known := facts_of(agent).groups.get("Scores", {}).get(protocol):
            console.say(f"{agent} on {protocol}, as published: {known}.")
    for folder, listed in games.items():
        results.need_score(listed, folder)
    _say_next(agent)


_Played = tuple[dict[str, Any], list[dict[str, Any]]]


def _play_and_show(
    agent: str, protocol: str, episodes: int | None, workers: int | None, out: Path, seconds: float
) -> _Played:
    """Evaluate in the background while a game of the agent is shown here."""
    from nhzoo.agents.loading import load
    from nhzoo.cli.watch import watch
    from nhzoo.envs.protocols import get_protocol
    from nhzoo.evaluation import evaluator

    latest: list[evaluator.Progress] = []
    found: list[_Played | BaseException] = []

    def play() -> None:
        try:
            done = evaluator.evaluate(
                agent, protocol, episodes, workers, out, progress=latest.append
            )
            found.append((done.result, done.episodes))
        except BaseException as error:  # handed over to the thread that waits
            found.append(error)

    shown, about = load(agent), get_protocol(protocol)
    background = threading.Thread(target=play, daemon=True)
    background.start()
    watch(shown, about, 0, _STEPS_PER_SECOND, seconds=seconds)
    console.say(f"That was the beginning of game 0. All of it, and more games, of {protocol}:")
    with console.LiveProgress(f"{agent} on {protocol}", "games") as bar:
        while background.is_alive():
            background.join(0.2)
            if latest:
                bar.update(latest[-1].done, latest[-1].total)
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def _published(protocol: str, games: Sequence[int], but: str) -> list[tuple[Any, ...]]:
    """The row of the rules of thumb in a checkout's leaderboard, over these games."""
    from nhzoo.evaluation.results import read_result, summarize
    from nhzoo.runtime.system import CHECKOUT

    folder = CHECKOUT / "leaderboard" / "results" / "scripted" / protocol if CHECKOUT else None
    if folder is None or but == "scripted" or not (folder / "result.json").is_file():
        return []
    rows = [row for row in read_result(folder)[2] if row["index"] in games]
    return [_demo_row("scripted (published, same games)", summarize(rows))]


def _demo_row(name: str, summary: Mapping[str, Any]) -> tuple[Any, ...]:
    from nhzoo.evaluation.statistics import score_text

    known = (summary["median_score"], summary["mean_turns"])
    return (name, summary["episodes"], score_text(summary), *known)
