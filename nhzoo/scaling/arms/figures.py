"""The figure of arms compared: each arm's loss against compute, and its difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nhzoo.runtime import files
from nhzoo.scaling.arms.comparing import Comparison, difference_at
from nhzoo.scaling.plot_style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    STYLE,
    band,
    beyond,
    matplotlib,
    ticks,
    unique_legend,
)

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#56B4E9", "#E69F00", "#000000")
_PLACES = 40


def plot_arms(found: Comparison, path: Path) -> None:
    """Draw the arms' losses against compute, and what each differs from the baseline by.

    Bands are the comparison's intervals; the difference's keeps what paired runs share. The suffix
    of `path` says the format. InputError when matplotlib is not installed.
    """
    plots = matplotlib()
    edge = min(float(arm.points.flops.max()) for arm in found.arms)
    lowest = min(float(arm.points.flops.min()) for arm in found.arms)
    grid = np.geomspace(lowest, max([10 * edge, *found.at]), _PLACES)
    with plots.rc_context(STYLE):
        figure = plots.figure.Figure(figsize=(10.0, 4.2))
        losses, differences = figure.subplots(1, 2)
        for axis in (losses, differences):
            axis.set_xscale("log")
        losses.set_yscale("log")
        lines = [difference_at(found, float(c)) for c in grid]
        for i, arm in enumerate(found.arms):
            colour = _COLOURS[i % len(_COLOURS)]
            losses.plot(arm.points.flops, arm.points.loss, ".", color=colour, ms=3.5, alpha=0.5)
            band(losses, grid, [line[i].loss for line in lines], edge, colour, arm.name)
            ends = [line[i].difference for line in lines]
            if arm.name != found.baseline:
                band(differences, grid, ends, edge, colour, arm.name)
        differences.axhline(0, color=GREY, lw=1, label=found.baseline)
        differences.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.3g} %")
        for axis in (losses, differences):
            ticks(axis, y=axis is losses)
            beyond(axis, edge, float(grid[-1]))
            axis.set_xlabel("training FLOPs")
            unique_legend(axis, "best")
        losses.set_ylabel("held-out loss of the best size")
        differences.set_ylabel(f"loss against {found.baseline}")
        losses.set_title(f"arms by {found.column}", loc="left")
        differences.set_title(f"difference, {found.interval:.0%} bands", loc="left")
        extra = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
        with files.naming(path):
            figure.savefig(path, dpi=150, **extra)
