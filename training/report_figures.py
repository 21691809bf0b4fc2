"""The figures of REPORT.md."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nhzoo.scaling.fitting import Fit
from nhzoo.scaling.forecasting import Forecast
from nhzoo.scaling.plot_style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    STYLE,
    matplotlib,
    ticks,
    unique_legend,
)
from nhzoo.scaling.plots import plot_fit
from nhzoo.training.run_table import LedgerRow, RunRow

LAW_FIGURES = ("isoflop", "optimum", "loss")


def draw_laws(folder: Path, laws: Fit, returns: Fit, said: Sequence[Forecast]) -> None:
    """Profiles, optima and losses of one fit, score against loss of another."""
    with tempfile.TemporaryDirectory() as drawn:
        for fit, names in ((laws, LAW_FIGURES), (returns, ("loss-return",))):
            plot_fit(fit, Path(drawn), said)
            for name in names:
                shutil.copy(Path(drawn) / f"{name}.svg", folder)


def draw_paper(
    path: Path, ours: Sequence[RunRow], theirs: Sequence[RunRow], best: Mapping[float, float]
) -> None:
    """Score against FLOPs, ours over the paper's; PNG, for its points stay out."""
    plots = matplotlib()
    kinds = (
        ("Tuyls et al., their runs", theirs, ".", GREY),
        ("our sweep", [r for r in ours if not r.run_id.startswith("bc-")], "o", BLUE),
        ("our agents", [r for r in ours if r.run_id.startswith("bc-")], "D", ORANGE),
    )
    with plots.rc_context(STYLE):
        figure = plots.figure.Figure(figsize=(7.2, 4.4))
        axis = figure.subplots()
        for name, runs, mark, colour in kinds:
            scores = np.array([(r.flops, r.mean_return) for r in runs if (r.mean_return or 0) > 0])
            axis.plot(*scores.T, mark, color=colour, ms=4, label=name)
        line = np.array(sorted(best.items())).T
        axis.plot(
            *line, color=GREY, lw=1.4, label=f"their best at a budget, up to {line[0, -1]:.0e}"
        )
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("training FLOPs, as each counts them")
        axis.set_ylabel("mean score, each under its own limits")
        ticks(axis)
        axis.legend(loc="lower right")
        figure.savefig(path, dpi=100)


def draw_playing(path: Path, rows: Sequence[LedgerRow]) -> None:
    """Learning curves of the agents that learn by playing: the actors' score against steps."""
    plots = matplotlib()
    colours = dict(zip((30, 60, 100, 300), (GREEN, PURPLE, BLUE, ORANGE), strict=True))
    with plots.rc_context(STYLE):
        figure = plots.figure.Figure(figsize=(7.2, 4.6))
        axis = figure.subplots()
        for run in dict.fromkeys(row.run_id for row in rows):
            points = [row for row in rows if row.run_id == run]
            points.sort(key=lambda row: row.samples)
            x, y = np.array([(row.samples, row.mean_return or np.nan) for row in points]).T
            error = np.array([row.se_return or np.nan for row in points])
            size = round(points[0].params / 1000)
            style = "-" if run.startswith("ks-") else "--"
            start = "from a clone" if run.startswith("ks-") else "from scratch"
            axis.errorbar(
                *(x, y),
                yerr=error,
                fmt="o" + style,
                color=colours[size],
                ms=4,
                lw=1.2,
                label=f"{size}k {start}",
            )
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_ylim(bottom=0.5)
        axis.set_xlabel("steps of games")
        axis.set_ylabel("mean score of the actors' latest 256 games")
        ticks(axis)
        unique_legend(axis, "lower right")
        figure.savefig(path, metadata={"Date": None})
