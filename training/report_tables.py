"""The tables of REPORT.md, in Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nhzoo.evaluation.statistics import ends_text, summary_ci95
from nhzoo.scaling.fitting import Fit
from nhzoo.scaling.grading import FrozenForecast
from nhzoo.scaling.intervals import LawInterval
from nhzoo.training.run_table import LedgerRow, RunRow

RESULTS = Path(__file__).parents[1] / "leaderboard" / "results"

PAPER_RETURN = {
    **{1e14: 43.0, 5e14: 228.0, 1e15: 476.0, 5e15: 1074.0, 1e16: 1389.0},
    **{2e16: 1784.0, 5e16: 2580.0, 1e17: 2887.0},
}
"""Tuyls et al. 2023: highest mean score at a budget, from the runs that they released."""


RIVALS = {
    "last_size": "the last budget's size, by the surface",
    "power_law": "a bare power law of the minima",
    "last_loss": "the last budget's loss",
}
"""The baselines of a forecast, by their names in `grade.json`."""


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def between(interval: LawInterval | None, form: str) -> str:
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
                None if (entry.get(key) or {}).get("low") is None else LawInterval(**entry[key])
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
        said, grade = one.forecast, one.grade
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


def scores_against_paper(rows: Sequence[RunRow]) -> str:
    """Each agent's mean score beside the paper's best: at 100 times its FLOPs, and where equal."""
    lines = []
    budgets, scores = (list(column) for column in zip(*sorted(PAPER_RETURN.items()), strict=True))
    for row in sorted(rows, key=lambda row: row.flops):
        if row.mean_return is not None:
            best = between_logs(100 * float(f"{row.flops:.2e}"), budgets, scores)
            equal = between_logs(row.mean_return, scores, budgets)
            lines.append(
                (
                    *(f"`{row.run_id}`", power(row.flops), f"{row.mean_return:,.0f}"),
                    "-" if best is None else f"{best:,.0f}",
                    "-" if equal is None else f"{equal:.1e}".replace("e+", "e"),
                    "-" if equal is None else f"{equal / row.flops:,.0f}",
                )
            )
    head = (
        "agent",
        "FLOPs",
        "our score",
        "paper's best at 100x",
        "paper's best is equal at",
        "times",
    )
    return table(head, lines)


def between_logs(x: float, known: Sequence[float], values: Sequence[float]) -> float | None:
    """Between known points by straight lines in logs; None outside."""
    if not known[0] <= x <= known[-1]:
        return None
    return float(np.exp(np.interp(math.log(x), np.log(known), np.log(values))))


def return_lines(fit: Fit) -> str:
    """The laws of the return."""
    lines = [
        f"- R ~ {'C' if law.of == 'compute' else 'L'}^{between(law.slope_interval, '.2f')}: "
        f"{law.points} points, scatter between runs {law.tau:.0%}".replace("%", " %")
        for law in fit.returns
    ]
    return "\n".join(lines) or "Too few runs were evaluated for a law."


def playing_table(rows: Sequence[LedgerRow]) -> str:
    """The ends of the runs that learnt by playing, and what the agents are worth."""
    lines = []
    for name in sorted({row.run_id for row in rows}):
        last = max((row for row in rows if row.run_id == name), key=lambda row: row.samples)
        clone = name.replace("ks-", "bc-") if name.startswith("ks-") else ""
        lines.append(
            (
                *(f"`{name}`", f"{last.params:,}", f"{last.samples:.1e}".replace("e+0", "e")),
                *(power(last.flops), f"{last.mean_return:,.0f} ({last.se_return:,.0f})"),
                *(score_of(name), score_of(clone)),
            )
        )
    head = ("agent", "parameters", "steps", "FLOPs", "actors' score (s.e.)", "score", "its clone's")
    return table(head, sorted(lines, key=lambda line: (line[0][:2], int(line[1].replace(",", "")))))


def score_of(agent: str) -> str:
    """Mean score on `monk-lite-v1` with its 95 % interval."""
    path = RESULTS / agent / "monk-lite-v1" / "result.json"
    if not agent or not path.is_file():
        return "-"
    summary = json.loads(path.read_text())["summary"]
    return f"{summary['mean_score']:,.0f} {ends_text(summary_ci95(summary), ',.0f')}"


def playing_laws(laws: dict[str, Fit]) -> str:
    """Score against training FLOPs, by how the agents began."""
    lines: list[tuple[Any, ...]] = []
    for start, fit in laws.items():
        law = next((law for law in fit.returns if law.of == "compute"), None)
        if law is None:
            lines.append((start, "none", "-", "-", "-", "-"))
            continue
        lines.append(
            (
                *(start, between(law.slope_interval, ".2f"), law.points, f"{law.tau:.0%}"),
                between(None if fit.intrinsic is None else fit.intrinsic.exponent, ".2f"),
                ", ".join(f"`{code}`" for code in sorted({d.code for d in fit.diagnostics})),
            )
        )
    head = (
        "start",
        "R ~ C^",
        "points",
        "scatter",
        "intrinsic N ~ C^",
        "diagnostics",
    )
    return table(head, lines).replace("% |", " % |")


def diagnostics(fit: Fit) -> str:
    """What is wrong, by name."""
    return "\n".join(f"- `{d.code}` ({d.level}): {d.message}" for d in fit.diagnostics) or "- none"


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
