"""The command `compare`: two results in detail, or a matrix of many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nhzoo.cli.evaluate import interval_text
from nhzoo.cli.options import AS_JSON, FOLDER, as_share
from nhzoo.errors import CheckFailed, InputError
from nhzoo.runtime import console

if TYPE_CHECKING:
    from nhzoo.evaluation.comparison import Comparison
    from nhzoo.evaluation.matrix import Matrix, MatrixAgent


@click.command()
@click.argument("folders", metavar="A B...", nargs=-1, required=True, type=FOLDER)
@click.option(
    "--no-worse",
    callback=as_share,
    metavar="SHARE",
    help="Exit with 1 unless it is excluded that A's mean score is worse than B's by more than "
    "this share of it, as 5%.",
)
@AS_JSON
def compare(folders: tuple[Path, ...], no_worse: float | None, as_json: bool) -> None:
    """Compare results of one protocol, with intervals.

    Of two results it says which scores higher and how certain that is. Games are paired by number
    where results are of the same machine type.

    Of three or more it prints how likely the agent of a row scores more in a game than that of a
    column, with 95 % intervals. It says which pairs separate (p-values adjusted for the number of
    pairs, by Holm's method), and how many more games would settle the others.

    With --no-worse 5%, A's scores are compared with 95 % of B's. It is excluded that A is worse by
    more than 5 % when the whole 95 % interval of that difference is above 0 and its permutation
    test gives p < 0.05, or when both results have the same games.

    \b
    Example: nhzoo compare results/mine results/theirs --no-worse 5%
             nhzoo compare results/mine results/theirs results/random
    """
    if len(folders) < 2:
        raise InputError("give two or more result folders to compare")
    if len(folders) > 2:
        if no_worse is not None:
            raise InputError("--no-worse compares two results; give two folders")
        _compare_many(folders, as_json)
        return
    a, b = folders
    from nhzoo.evaluation.comparison import compare as run

    found = run(a, b, no_worse)
    if as_json:
        console.print_json(found.as_json())
    else:
        _show_comparison(found)
    if found.no_worse is not None and not found.no_worse.holds:
        raise CheckFailed(found.no_worse.text)


def _show_comparison(found: Comparison) -> None:
    console.print_table(
        ("", "agent", "games", "mean score", "median", "IQM", "progression %"),
        [
            (
                name,
                side.agent,
                side.games,
                interval_text(side.mean_score),
                side.median_score,
                side.iqm_score,
                100 * side.mean_progression,
            )
            for name, side in (("a", found.a), ("b", found.b))
        ],
    )
    console.print_table(
        ("a minus b", "difference [95 %]"),
        [
            *((f"{name} score", interval_text(value)) for name, value in found.difference.items()),
            ("progression %", interval_text(found.progression, 100)),
        ],
    )
    pairing = "games paired" if found.paired else f"games not paired: {found.reason}"
    console.show(f"{found.verdict} (p = {found.p_value:.2g}, {found.test}; {pairing})")
    wins = found.wins
    console.show(f"a won {wins.won:,}, b won {wins.lost:,}, {wins.tied:,} tied")
    console.show(found.power.text)
    if found.no_worse is not None and found.no_worse.holds:
        console.show(found.no_worse.text)
    for note in found.notes:
        console.say(note)


def _compare_many(folders: tuple[Path, ...], as_json: bool) -> None:
    from nhzoo.evaluation.matrix import compare_all

    with console.LiveProgress("compare", "pairs") as bar:
        found = compare_all(folders, bar.update)
    if as_json:
        console.print_json(found.as_json())
        return
    agents = found.agents
    console.print_table(
        ("no.", "agent", "games", "mean score [95 %]"),
        [
            (i + 1, one.label, one.games, interval_text(one.mean_score))
            for i, one in enumerate(agents)
        ],
    )
    console.show("How likely the row's agent scores more than the column's in a game, in % [95 %]:")
    numbers = range(len(agents))
    console.print_table(
        ("agent", *(f"{b + 1}" for b in numbers)),
        [
            (f"{a + 1} {agents[a].label}", *(_win_text(found, a, b) for b in numbers))
            for a in numbers
        ],
    )
    _show_pairs(found)
    for note in found.notes:
        console.say(note)


def _win_text(found: Matrix, a: int, b: int) -> str | None:
    win = found.win(a, b)
    if win is None or win.ends is None:
        return None
    low, high = (f"{100 * end:.0f}" for end in win.ends)
    return f"{100 * win.estimate:.0f} [{low}, {high}]"


def _show_pairs(found: Matrix) -> None:
    """How many pairs separate, and what would settle each of the others."""
    pairs, rest = found.pairs, found.unsettled
    settled = len(pairs) - len(rest)
    console.show(f"{settled:,} of {len(pairs):,} pairs separate by mean score (Holm, 5 % level)")
    if not rest:
        return
    console.print_table(
        ("not settled", "difference [95 %]", "p, adjusted", "games", "more games of each"),
        [
            (
                _versus(found.agents[pair.a], found.agents[pair.b]),
                interval_text(pair.difference),
                f"{pair.p_adjusted:.2g}",
                pair.games,
                pair.more_games,
            )
            for pair in rest
        ],
    )
    console.show(
        "More games: for 80 % power, if the difference is what it seems; of paired games where "
        f"games are paired. {found.protocol} has {found.protocol_games:,}."
    )


def _versus(a: MatrixAgent, b: MatrixAgent) -> str:
    return f"{a.label} - {b.label}"
