"""Writes REPORT.md: every number and figure from the tables of runs, the results, the forecasts.

    python training/report.py [--published ../shared/data/published]

REPORT.in.md holds the words, with {{names}} where numbers go. With the paper's measured points,
which have no licence and stay out of the repository, the figure that compares is drawn as well.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import report_tables as tables
from report_figures import draw_laws, draw_paper, draw_playing

from nhzoo.scaling import fitting
from nhzoo.scaling.cost import policy_cost
from nhzoo.scaling.fitting import Fit
from nhzoo.scaling.grading import FrozenForecast, read_forecasts
from nhzoo.training.run_table import LedgerRow, RunRow, read_runs

HERE = Path(__file__).parent
ROOT = HERE.parent
SWEEP = HERE / "sweeps" / "iso1-measured.jsonl"
"""The sweep's runs with their loss on the expert's 32 first games of `monk-lite-v1`."""
AGENTS = HERE / "sweeps" / "agents.jsonl"
"""The published agents, measured the same way, with their returns."""
RUNS = HERE / "runs.jsonl"
STARTS = {"from scratch": "impala-*", "from a clone": "ks-*"}
"""How agents that learn by playing begin, and their runs."""


@dataclass(frozen=True)
class Report:
    """All that the report is made of."""

    laws: dict[str, Fit]
    """By what the loss is measured on; the first is the one that forecasts were made from."""
    agents: list[RunRow]
    returns: Fit
    forecasts: list[FrozenForecast]
    playing: list[LedgerRow]
    """All moments of the runs of agents that learn by playing."""
    playing_laws: dict[str, Fit]

    @classmethod
    def read(cls) -> Report:
        """From the tables, the results and the forecasts of this checkout."""
        agents = sweep_rows(AGENTS)
        both = [*sweep_rows(SWEEP), *agents]
        playing = [
            row
            for row in read_runs(RUNS)
            if isinstance(row, LedgerRow) and row.run_id.startswith(("impala-", "ks-"))
        ]
        return cls(
            {
                "32 games of `monk-lite-v1`": fit_of(SWEEP),
                "9 held-out games": fit_of(RUNS, "iso1-*"),
            },
            agents,
            fitting.fit(both, cost=policy_cost(both), resamples=400),
            read_forecasts(ROOT / "leaderboard" / "forecasts"),
            playing,
            {
                start: fitting.fit(playing, cost=policy_cost(playing), only=only, resamples=400)
                for start, only in STARTS.items()
            },
        )


def sweep_rows(path: Path) -> list[RunRow]:
    """The rows of a table."""
    return [row for row in read_runs(path) if not (isinstance(row, LedgerRow) and row.checkpoint)]


def fit_of(path: Path, only: str = "*") -> Fit:
    """The fit that `nhzoo fit PATH` makes, on the policies' exact cost."""
    rows = sweep_rows(path)
    return fitting.fit(
        rows, cost=policy_cost(rows), only=only, source=str(path.relative_to(ROOT)), resamples=400
    )


def fill(template: str, values: dict[str, str]) -> str:
    """The template with every name filled in; KeyError for one that is not known."""
    used = set(re.findall(r"\{\{(\w+)\}\}", template))
    unused = set(values) - used
    if unused:
        raise KeyError(f"not in the template: {', '.join(sorted(unused))}")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def words(report: Report) -> str:
    """REPORT.md."""
    main, few = report.laws.values()
    return fill(
        (HERE / "REPORT.in.md").read_text(),
        {
            "runs": str(len(main.points) + len(main.others)),
            "profiles": tables.profile_table(main),
            "laws": tables.law_table(report.laws),
            "seeds": tables.seed_scatter(report.laws),
            "holdouts": tables.holdout_table(main),
            "holdouts_few": tables.holdout_table(few),
            "diagnostics": tables.diagnostics(main),
            "forecasts": tables.forecast_table(report.forecasts),
            "rivals": tables.rival_table(report.forecasts),
            "agents": tables.agent_table(report.agents, main),
            "paper_scores": tables.scores_against_paper(report.agents),
            "returns": tables.return_lines(report.returns),
            "playing": tables.playing_table(report.playing),
            "playing_laws": tables.playing_laws(report.playing_laws),
        },
    )


def draw(report: Report, folder: Path, published: Path | None) -> None:
    """The figures; that beside the paper only with its measured points."""
    folder.mkdir(parents=True, exist_ok=True)
    said = [frozen.forecast for frozen in report.forecasts]
    draw_laws(folder, next(iter(report.laws.values())), report.returns, said)
    draw_playing(folder / "playing.svg", report.playing)
    if published is not None:
        ours, theirs = [*sweep_rows(SWEEP), *report.agents], read_runs(published)
        draw_paper(folder / "paper.png", ours, theirs, tables.PAPER_RETURN)


def main(arguments: Sequence[str]) -> None:
    """Write the report."""
    published = None
    if arguments[:1] == ["--published"]:
        published = Path(arguments[1]) / "nethack_isoflop.csv"
    report = Report.read()
    draw(report, HERE / "figures" / "report", published)
    (HERE / "REPORT.md").write_text(words(report))


if __name__ == "__main__":
    main(sys.argv[1:])
