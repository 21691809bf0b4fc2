"""Writes REPORT.md: every number and figure from the tables of runs, the results, the forecasts.

    python training/report.py [--published ../shared/data/published]

REPORT.in.md holds the words, with {{names}} where numbers go. With the paper's measured points,
which have no licence and stay out of the repository, the figure that compares is drawn as well.
"""

from __future__ import annotations

import math
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nhzoo import scaling
from nhzoo.forecast_ledger import FrozenForecast, read_forecasts
from nhzoo.law_intervals import Interval
from nhzoo.ledger import LedgerRow, RunRow, read_runs
from nhzoo.policy_cost import policy_cost
from nhzoo.scaling import Fit

HERE = Path(__file__).parent
ROOT = HERE.parent
SWEEP = HERE / "sweeps" / "iso1-measured.jsonl"
"""The sweep's runs with their loss on the expert's 32 first games of `monk-lite-v1`."""
AGENTS = HERE / "sweeps" / "agents.jsonl"
"""The published agents, measured the same way, with their returns."""
LAW_FIGURES = ("isoflop", "optimum", "loss")

PAPER = {1e14: 1.28, 2e14: 0.949, 5e14: 0.665, 1e15: 0.576, 5e15: 0.420}
"""Tuyls et al. 2023: lowest loss at a budget, from the runs that they released."""
PAPER_RETURN = {1e14: 43.0, 5e14: 228.0, 1e15: 476.0, 5e15: 1074.0, 1e16: 1389.0}
"""The same: highest mean score."""


RIVALS = {
    "last_size": "the last budget's size, by the surface",
    "power_law": "a bare power law of the minima",
    "last_loss": "the last budget's loss",
}
"""The baselines of a forecast, by their names in `grade.json`."""


@dataclass(frozen=True)
class Report:
    """All that the report is made of."""

    laws: dict[str, Fit]
    """By what the loss is measured on; the first is the one that forecasts were made from."""
    agents: list[RunRow]
    returns: Fit
    forecasts: list[FrozenForecast]

    @classmethod
    def read(cls) -> Report:
        """From the tables, the results and the forecasts of this checkout."""
        agents = sweep_rows(AGENTS)
        both = [*sweep_rows(SWEEP), *agents]
        return cls(
            {
                "32 games of `monk-lite-v1`": fit_of(SWEEP),
                "9 held-out games": fit_of(HERE / "runs.jsonl", "iso1-*"),
            },
            agents,
            scaling.fit(both, cost=policy_cost(both), resamples=400),
            read_forecasts(ROOT / "leaderboard" / "forecasts"),
        )


def sweep_rows(path: Path) -> list[RunRow]:
    """The rows of a table."""
    return [row for row in read_runs(path) if not (isinstance(row, LedgerRow) and row.checkpoint)]


def fit_of(path: Path, only: str = "*") -> Fit:
    """The fit that `nhzoo fit PATH` makes, on the policies' exact cost."""
    rows = sweep_rows(path)
    return scaling.fit(
        rows, cost=policy_cost(rows), only=only, source=str(path.relative_to(ROOT)), resamples=400
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def between(interval: Interval | None, form: str) -> str:
    """A value with its interval."""
    if interval is None:
        return "-"
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def percent(value: float | None) -> str:
    """A signed share."""
    return "-" if value is None else f"{value:+.1%}".replace("%", " %")


def profile_table(fit: Fit) -> str:
    """Losses of the sweep, a row a budget, best first in bold."""
    rows = []
    points = [fit.points, fit.others]
    for budget in fit.budgets:
        cells = sorted(
            (float(n), float(loss))
            for part in points
            for n, loss, b in zip(part.params, part.loss, part.budget, strict=True)
            if b == budget.label
        )
        best = min(loss for _, loss in cells)
        text = ", ".join(
            f"**{size(n)} {loss:.3f}**" if loss == best else f"{size(n)} {loss:.3f}"
            for n, loss in cells
        )
        rows.append((power(budget.label), text))
    return table(("FLOPs", "parameters and loss"), rows)


def size(params: float) -> str:
    """A number of parameters, short."""
    return f"{params / 1e6:.3g}M" if params >= 999_500 else f"{params / 1e3:.3g}k"


def power(flops: float) -> str:
    """FLOPs, short: 1.73e12."""
    return f"{flops:.3g}".replace("e+", "e")


def law_table(fits: dict[str, Fit]) -> str:
    """Exponents and losses of each fit and method."""
    rows = []
    for name, fit in fits.items():
        for law in fit.laws:
            entry = fit.estimates()[law.method]
            a, d, floor = (
                None if entry.get(key) is None else Interval(**entry[key])
                for key in ("exponent_params", "exponent_samples", "E")
            )
            rows.append(
                (
                    *(
                        name,
                        law.method,
                        between(a, ".2f"),
                        between(d, ".2f"),
                        between(floor, ".2f"),
                    ),
                    f"{law.noise:.1%}".replace("%", " %"),
                )
            )
    return table(("loss on", "method", "N ~ C^", "D ~ C^", "floor E", "residuals"), rows)


def holdout_table(fit: Fit) -> str:
    """The top budgets forecast from those below."""
    return table(
        (
            *("budget", "times the largest fitted", "loss", "inside", "size"),
            *("last size", "power law", "last loss"),
        ),
        [
            (
                *(power(h.flops), f"{h.factor:.3g}", percent(h.loss_error)),
                "yes" if h.loss_hit else "no",
                *(percent(h.size_error), percent(h.last_size_error)),
                *(percent(h.power_law_error), percent(h.last_loss_error)),
            )
            for h in fit.holdouts
        ],
    )


def forecast_table(forecasts: Sequence[FrozenForecast]) -> str:
    """The ledger of forecasts."""
    rows = []
    for one in forecasts:
        said, grade = one.said, one.grade
        seen = "-" if grade is None else f"{grade['loss']['observed']:.4f}"
        back = None if grade is None else grade["return"]
        rows.append(
            (
                *(f"`{one.name}`", said.created[:10], power(said.flops), size(said.params)),
                *(f"{said.samples / 1e6:.2f}M", between(said.loss, ".4f"), seen),
                "-" if said.ret is None else between(said.ret, ",.0f"),
                "-" if back is None else f"{back['observed']:,.0f}",
                one.status,
            )
        )
    head = ("forecast", "frozen", "FLOPs", "N", "D", "loss, 90 %", "came", "score, 90 %", "came")
    return table((*head, "status"), rows) if rows else "None is frozen yet."


def rival_table(forecasts: Sequence[FrozenForecast]) -> str:
    """Each graded forecast of a loss beside the baselines, as errors: forecast / observed - 1."""
    rows = []
    for one in forecasts:
        if one.grade is not None:
            rivals = one.grade["baselines"]
            errors = (one.grade["loss"]["error"], *(rivals[name]["error"] for name in RIVALS))
            rows.append((f"`{one.name}`", *map(percent, errors)))
    return table(("forecast", "its own", *RIVALS.values()), rows) if rows else "None is graded yet."


def agent_table(rows: Sequence[RunRow], fit: Fit) -> str:
    """The ladder: what each was trained with against what is optimal for its size."""
    lines = []
    for row in sorted(rows, key=lambda row: row.params):
        best = optimal_samples(fit, row.params)
        lines.append(
            (
                *(f"`{row.run_id}`", f"{row.params:,}", power(row.flops)),
                f"{row.samples / 1e6:.1f}M",
                "-" if best is None else f"{row.samples / best:.2g}",
                f"{row.samples / row.unique_samples:.2f}" if row.unique_samples else "-",
                f"{row.loss:.3f}",
                "-" if row.mean_return is None else f"{row.mean_return:,.0f}",
                "-" if row.se_return is None else f"{row.se_return:,.0f}",
            )
        )
    head = ("agent", "parameters", "FLOPs", "frames", "times the optimal data", "epochs")
    return table((*head, "loss", "mean score", "s.e."), lines)


def optimal_samples(fit: Fit, params: float) -> float | None:
    """The data for which `params` is the optimal size, by the surface."""
    grid = np.geomspace(1e9, 1e17, 400)
    sizes = [fit.size("vp", float(c)) for c in grid]
    known = [(s.value, c) for s, c in zip(sizes, grid, strict=True) if s is not None]
    if not known or not known[0][0] <= params <= known[-1][0]:
        return None
    ln_c = np.interp(math.log(params), *np.log(np.array(known).T))
    return float(fit.cost.samples(math.exp(ln_c), params))


def against_paper(fit: Fit, rows: Sequence[RunRow]) -> str:
    """Our best loss at a budget beside the paper's at 100 and 500 times that."""
    best: dict[float, float] = {}
    runs = [(row.flops, row.loss) for row in rows]
    for part in (fit.points, fit.others):
        runs += [(float(c), float(loss)) for c, loss in zip(part.budget, part.loss, strict=True)]
    for flops, loss in runs:
        budget = float(f"{flops:.2e}")
        best[budget] = min(loss, best.get(budget, math.inf))
    lines = []
    for budget, loss in sorted(best.items()):
        if budget >= 1e12:
            cells = (beside(loss, times * budget) for times in (100, 500))
            lines.append((power(budget), f"{loss:.3f}", *cells))
    return table(("FLOPs", "our loss", "paper at 100x", "paper at 500x"), lines)


def beside(loss: float, flops: float) -> str:
    """The paper's lowest loss at `flops`, and whether `loss` is below it."""
    theirs = paper_at(PAPER, flops)
    if theirs is None:
        return f"below {min(PAPER.values()):.3f} (ours is above)" if flops > max(PAPER) else "-"
    return f"{theirs:.3f} (ours is {'below' if loss < theirs else 'above'})"


def scores_against_paper(rows: Sequence[RunRow]) -> str:
    """Each agent's mean score beside the paper's best at 100 times its FLOPs."""
    lines = []
    for row in sorted(rows, key=lambda row: row.flops):
        best = paper_at(PAPER_RETURN, 100 * float(f"{row.flops:.2e}"))
        if row.mean_return is not None:
            lines.append(
                (
                    *(f"`{row.run_id}`", power(row.flops), f"{row.mean_return:,.0f}"),
                    "-" if best is None else f"{best:,.0f}",
                )
            )
    return table(("agent", "FLOPs", "our score", "paper's best at 100x"), lines)


def paper_at(known: dict[float, float], flops: float) -> float | None:
    """The paper's figure, between its budgets by a straight line in logs; None outside."""
    if not min(known) <= flops <= max(known):
        return None
    x, y = np.log(np.array(sorted(known.items())).T)
    return float(np.exp(np.interp(math.log(flops), x, y)))


def return_lines(fit: Fit) -> str:
    """The laws of the return."""
    lines = [
        f"- R ~ {'C' if law.of == 'compute' else 'L'}^{between(law.slope_interval, '.2f')}: "
        f"{law.points} points, scatter between runs {law.tau:.0%}".replace("%", " %")
        for law in fit.returns
    ]
    return "\n".join(lines) or "Too few runs were evaluated for a law."


def diagnostics(fit: Fit) -> str:
    """What is wrong, by name."""
    return "\n".join(f"- `{d.code}` ({d.level}): {d.message}" for d in fit.diagnostics) or "- none"


def fill(template: str, values: dict[str, str]) -> str:
    """The template with every name filled in; KeyError for one that is not known."""
    used = set(re.findall(r"\{\{(\w+)\}\}", template))
    unused = set(values) - used
    if unused:
        raise KeyError(f"not in the template: {', '.join(sorted(unused))}")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def draw_comparison(path: Path, rows: Sequence[RunRow], published: Path) -> None:
    """Loss and score against FLOPs, ours over the paper's; PNG, for its points stay out."""
    import matplotlib
    from matplotlib.figure import Figure

    from nhzoo.plot_style import BLUE, GREY, ORANGE, STYLE, ticks

    theirs = read_runs(published)
    kinds = (
        ("Tuyls et al., their runs", theirs, ".", GREY),
        ("our sweep", [r for r in rows if not r.run_id.startswith("bc-")], "o", BLUE),
        ("our agents", [r for r in rows if r.run_id.startswith("bc-")], "D", ORANGE),
    )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 4.4))
        left, right = figure.subplots(1, 2)
        for name, runs, mark, colour in kinds:
            losses = np.array([(r.flops, r.loss) for r in runs]).T
            scores = np.array([(r.flops, r.mean_return) for r in runs if (r.mean_return or 0) > 0])
            left.plot(*losses, mark, color=colour, ms=4, label=name)
            right.plot(*scores.T, mark, color=colour, ms=4)
        for known, axis in ((PAPER, left), (PAPER_RETURN, right)):
            line = np.array(sorted(known.items())).T
            axis.plot(*line, color=GREY, lw=1.4, label="their best at a budget, up to 1e16")
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel("training FLOPs, as each counts them")
            ticks(axis)
        left.set_ylabel("loss: ours on games held out, theirs on training data")
        right.set_ylabel("mean score, each under its own limits")
        left.legend(loc="upper right")
        figure.savefig(path, dpi=100)


def words(report: Report) -> str:
    """REPORT.md."""
    main, few = report.laws.values()
    return fill(
        (HERE / "REPORT.in.md").read_text(),
        {
            "runs": str(len(main.points) + len(main.others)),
            "profiles": profile_table(main),
            "laws": law_table(report.laws),
            "seeds": seed_scatter(report.laws),
            "holdouts": holdout_table(main),
            "holdouts_few": holdout_table(few),
            "diagnostics": diagnostics(main),
            "forecasts": forecast_table(report.forecasts),
            "rivals": rival_table(report.forecasts),
            "agents": agent_table(report.agents, main),
            "paper": against_paper(main, report.agents),
            "paper_scores": scores_against_paper(report.agents),
            "returns": return_lines(report.returns),
        },
    )


def draw(report: Report, folder: Path, published: Path | None) -> None:
    """The figures; that beside the paper only with its measured points."""
    from nhzoo.scaling_plots import plot_fit

    main = next(iter(report.laws.values()))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as drawn:
        for fit, names in ((main, LAW_FIGURES), (report.returns, ("loss-return",))):
            plot_fit(fit, Path(drawn), [f.said for f in report.forecasts])
            for name in names:
                shutil.copy(Path(drawn) / f"{name}.svg", folder)
    if published is not None:
        rows = [*sweep_rows(SWEEP), *report.agents]
        draw_comparison(folder / "paper.png", rows, published / "nethack_isoflop.csv")


def seed_scatter(fits: dict[str, Fit]) -> str:
    """How far seeds of one cell lie apart, on each set of games."""
    lines = []
    for name, fit in fits.items():
        cells: dict[tuple[float, float], list[float]] = {}
        for part in (fit.points, fit.others):
            for n, budget, loss in zip(part.params, part.budget, part.loss, strict=True):
                cells.setdefault((float(budget), float(n)), []).append(float(loss))
        for (budget, n), losses in sorted(cells.items()):
            if len(losses) > 1:
                spread = float(np.std(np.log(losses), ddof=1))
                text = ", ".join(f"{x:.3f}" for x in losses)
                lines.append((name, power(budget), size(n), text, f"{spread:.1%}"))
    head = ("loss on", "FLOPs", "N", "seeds", "standard deviation")
    return table(head, lines).replace("% |", " % |")


def main(arguments: Sequence[str]) -> None:
    """Write the report."""
    published = Path(arguments[1]) if arguments[:1] == ["--published"] else None
    report = Report.read()
    draw(report, HERE / "figures" / "report", published)
    (HERE / "REPORT.md").write_text(words(report))


if __name__ == "__main__":
    main(sys.argv[1:])
