"""Commands that look at results: `compare`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nhzoo.cli.options import AS_JSON, FOLDER, WORKERS
from nhzoo.runtime import console

if TYPE_CHECKING:
    from nhzoo.evaluation.statistics import Interval


@click.command()
@click.argument("a", type=FOLDER)
@click.argument("b", type=FOLDER)
@AS_JSON
def compare(a: Path, b: Path, as_json: bool) -> None:
    """Which of two results under one protocol scores higher, and how sure that is.

    Games are paired by their number where both played the same protocol on the same machine type.

    \b
    Example: nhzoo compare results/mine results/theirs
    """
    from nhzoo.evaluation.comparison import compare as run

    found = run(a, b)
    if as_json:
        console.print_json(found.as_json())
        return
    console.print_table(
        ("", "agent", "games", "mean score", "median", "IQM", "progression %"),
        [
            (
                name,
                side.agent,
                side.games,
                _interval(side.mean_score),
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
            *((f"{name} score", _interval(value)) for name, value in found.difference.items()),
            ("progression %", _interval(found.progression, 100)),
        ],
    )
    pairing = "games paired" if found.paired else f"games not paired: {found.reason}"
    console.show(f"{found.verdict} (p = {found.p_value:.2g}, {found.test}; {pairing})")
    wins = found.wins
    console.show(f"a won {wins.won:,}, b won {wins.lost:,}, {wins.tied:,} tied")
    console.show(found.power.text)
    for note in found.notes:
        console.say(note)


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--game", "games", type=int, multiple=True, help="A game to show. Repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="Default: report.html in the folder.")
@WORKERS
def report(folder: Path, games: tuple[int, ...], out: Path | None, workers: int | None) -> None:
    """One page of a result, with its best, median and worst game to watch.

    The page is a single file that needs no network.

    \b
    Example: nhzoo report results/bc-lstm-1m
    """
    from nhzoo.publishing.report import write_report

    with console.LiveProgress(f"report {folder}", "games") as bar:
        path = write_report(folder, out, games or None, workers, bar.update)
    console.show(f"{path}: {path.stat().st_size:,} bytes")


def _interval(value: Interval, scale: float = 1.0) -> str:
    from nhzoo.evaluation.statistics import ends_text

    return f"{scale * value.estimate:,.1f} {ends_text(value.ends, scale=scale)}"
