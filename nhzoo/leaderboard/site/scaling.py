"""The page on scaling: scores and losses against compute and size, the fit, the forecast ledger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markupsafe import Markup

from nhzoo.errors import NhzooError
from nhzoo.evaluation.statistics import summary_ci95
from nhzoo.leaderboard.board import TIERS, BoardRow
from nhzoo.leaderboard.site.charts import Band, Mark, drawn_lines, grid, scatter
from nhzoo.leaderboard.site.page import Page, agent_path
from nhzoo.publishing.charts import short
from nhzoo.publishing.html import count
from nhzoo.runtime import files
from nhzoo.runtime.console import say
from nhzoo.scaling.families.predicting import predict
from nhzoo.scaling.fitting import Fit, read_fit
from nhzoo.scaling.grading import FrozenForecast, read_forecasts
from nhzoo.scaling.intervals import LawInterval
from nhzoo.training import run_table
from nhzoo.training.run_table import RunRow

FLOPS, PARAMS, SCORE, LOSS = "training FLOPs", "parameters", "mean score", "held-out loss"
PAPER_TABLE: Final = "nethack_isoflop.csv"
_STATUS: Final = {
    "open": "open: its run is not trained yet",
    "superseded": "superseded before it was graded",
    "hit": "hit",
    "missed": "missed",
}


@dataclass(frozen=True)
class Laws:
    """What stands beside the agents: a fit, the forecasts, and rows of the paper's own table.

    `paper` is only there where its files were given: they have no licence, so no site that is
    published may hold them.
    """

    fit: Fit | None = None
    forecasts: Sequence[FrozenForecast] = ()
    paper: Sequence[RunRow] = ()


def read_laws(leaderboard: Path, training: Path | None, published: Path | None) -> Laws:
    """The fit that reaches the largest budget, of `fit.json` files below the folders given.

    What cannot be read is said and left out: a site without a law is better than none.
    """
    fits = []
    folders = [leaderboard, *([training] if training else [])]
    for path in sorted({p for folder in folders for p in folder.rglob("fit.json")}):
        try:
            fits.append(read_fit(path))
        except NhzooError as error:
            say(f"left out: {error}")
    fits = [fit for fit in fits if fit.laws or fit.returns]
    try:
        forecasts = read_forecasts(leaderboard / "forecasts")
    except NhzooError as error:
        forecasts = []
        say(f"forecasts left out: {error}")
    paper = tuple(run_table.read_runs(published / PAPER_TABLE)) if published else ()
    return Laws(max(fits, key=lambda fit: fit.largest, default=None), tuple(forecasts), paper)


def scaling_page(rows: Sequence[BoardRow], laws: Laws) -> Page:
    """The page; `rows` are all of the board."""
    shown = [row for row in rows if row.status != "removed"]
    fit = laws.fit
    values = {
        "scores": {
            protocol: charts
            for protocol in dict.fromkeys(row.protocol for row in shown)
            if (charts := score_charts([r for r in shown if r.protocol == protocol], laws))
        },
        "loss": loss_chart(shown, laws),
        "fit": fit and (len(fit.points), short(fit.largest), Path(fit.source).name),
        "forecasts": [
            (frozen, _observed(frozen, "loss"), _observed(frozen, "return"))
            for frozen in laws.forecasts
        ],
        "status_text": _STATUS,
        "paper": bool(laws.paper),
    }
    return Page("scaling.html", "scaling.html", values)


def score_charts(rows: Sequence[BoardRow], laws: Laws, paper: bool = True) -> list[Markup]:
    """Score against FLOPs and against parameters, of the rows of one protocol."""
    levels = [
        (f"{row.agent}", float(row.summary["mean_score"]))
        for row in rows
        if row.kind == "bot" and row.rank and not row.flops
    ]
    figures = []
    for x_name, name in ((FLOPS, "flops"), (PARAMS, "params")):
        known = [row for row in rows if getattr(row, name)]
        marks = [_score_mark(row, float(getattr(row, name))) for row in known]
        if not marks:
            continue
        bands: list[Band] = []
        if name == "flops":
            marks += _forecast_marks(laws.forecasts, "return")
            bands = _return_bands(laws, [mark.x for mark in marks])
        if paper:
            marks += [
                _paper_mark(run, float(getattr(run, name)), run.mean_return)
                for run in laws.paper
                if run.mean_return
            ]
        lines = drawn_lines(levels, [mark.y for mark in marks if mark.y > 0] or [math.inf])
        others = f" Lines: {', '.join(name for name, _ in lines)}." if lines else ""
        if any(row.tier == TIERS[0] for row in known):
            others += " Hollow: reported, not replayed."
        summary = (
            f"{count(len(known), 'agent')} with 95 % intervals of the mean.{others} "
            "Both axes are logarithmic."
        )
        summary += " FLOPs are as the entries say." if name == "flops" else ""
        title = f"Score against {x_name}"
        figures.append(scatter(title, summary, marks, x_name, SCORE, bands, levels))
    return [figure for figure in figures if figure]


def loss_chart(rows: Sequence[BoardRow], laws: Laws) -> Markup | None:
    """Held-out loss against FLOPs, of agents, runs of the fit, and forecasts; None of none."""
    marks = {}
    for row in rows:
        if row.flops and row.held_out_loss:
            key = (row.agent, row.flops, row.held_out_loss)  # once, on whatever protocols it is
            marks[key] = Mark(*key[1:], row.agent, row.kind, path=agent_path(row))
    bands: list[Band] = []
    found = [*marks.values(), *_forecast_marks(laws.forecasts, "loss")]
    if laws.fit is not None:
        points = laws.fit.points
        runs = zip(points.flops.tolist(), points.loss.tolist(), strict=True)
        found += [Mark(x, y, "run", "run", labelled=False) for x, y in runs]
        bands = _loss_bands(laws.fit, [mark.x for mark in found])
    found += [_paper_mark(run, run.flops, run.loss) for run in laws.paper]
    summary = f"{count(len(marks), 'agent')}"
    if bands:
        summary += (
            "; the best loss of each budget by the fit, with its 90 % interval, dashed beyond"
        )
    return scatter(
        "Held-out loss against training FLOPs",
        f"{summary}. Both axes are logarithmic. FLOPs and loss are as the entries say.",
        found,
        FLOPS,
        LOSS,
        bands,
        y_shown=lambda value: f"{value:.3f}",
    )


def _score_mark(row: BoardRow, x: float) -> Mark:
    low, high = summary_ci95(row.summary) or (None, None)
    mean = float(row.summary["mean_score"])
    believed = row.tier != TIERS[0]
    return Mark(x, mean, row.agent, row.kind, low, high, path=agent_path(row), believed=believed)


def _paper_mark(run: RunRow, x: float, y: float | None) -> Mark:
    return Mark(x, float(y or 0.0), run.run_id, "paper", labelled=False)


def _forecast_marks(forecasts: Sequence[FrozenForecast], of: str) -> list[Mark]:
    """Each forecast of "loss" or "return", and what came of it."""
    found = []
    for frozen in forecasts:
        forecast = frozen.forecast
        expected = forecast.loss if of == "loss" else forecast.ret
        if expected is None:
            continue
        flops, ends = forecast.flops, (expected.low, expected.high)
        found.append(Mark(flops, expected.value, frozen.name, frozen.status, *ends))
        if (observed := _observed(frozen, of)) is not None:
            name = f"{frozen.name}, as it came"
            found.append(Mark(flops, observed, name, "came", labelled=False))
    return found


def _return_bands(laws: Laws, xs: Sequence[float]) -> list[Band]:
    fit = laws.fit
    law = next((law for law in fit.returns if law.of == "compute"), None) if fit else None
    if fit is None or law is None:
        return []
    level = float(fit.options["interval"])
    points = []
    for x in grid(law.low, max([*xs, law.high])):
        found = law.at(math.log(x), level, noise=False)
        points.append(
            (x, LawInterval(*(math.exp(v) for v in (found.value, found.low, found.high))))
        )
    name = f"best of each budget, score ~ FLOPs^{law.slope:.2f}, 90 %"
    return [Band(name, points, law.high)]


def _loss_bands(fit: Fit, xs: Sequence[float]) -> list[Band]:
    level = float(fit.options["interval"])
    points = []
    for x in grid(float(fit.points.flops.min()), max([*xs, fit.largest])):
        found = predict(fit.laws, x, fit.cost, level).loss
        if found is not None and math.isfinite(found.low) and math.isfinite(found.high):
            points.append((x, found))
    return [Band("best loss of each budget, 90 %", points, fit.largest)] if points else []


def _observed(frozen: FrozenForecast, of: str) -> float | None:
    """What came of a forecast of "loss" or "return", as far as it was graded."""
    value = files.as_object(files.as_object(frozen.grade).get(of)).get("observed")
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
