"""Figures of a fit: SVG and PNG, in colours that colour-blind readers tell apart.

Solid is what was measured or fitted; what is extrapolated is dashed, on grey ground. Hollow points
were not fitted. Budgets are coloured by `viridis`, methods by Okabe and Ito's palette.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nhzoo.errors import InputError
from nhzoo.runtime import files
from nhzoo.scaling.families.predicting import best_size
from nhzoo.scaling.fitting import Fit
from nhzoo.scaling.forecasting import Forecast
from nhzoo.scaling.intervals import LawInterval
from nhzoo.scaling.laws import LossLaw, SizeLaw, surface_of
from nhzoo.scaling.plot_style import (
    BLUE,
    COLOURS,
    GREY,
    NAMES,
    ORANGE,
    STYLE,
    band,
    beyond,
    diamond,
    dot,
    exp,
    matplotlib,
    sci,
    shade,
    shades,
    star,
    ticks,
    unique_legend,
)

if TYPE_CHECKING:
    from nhzoo.evaluation.loss import LossSums
    from nhzoo.training.run_table import RunRow

Array = npt.NDArray[np.float64]


def plot_fit(
    fit: Fit, folder: Path, forecasts: Sequence[Forecast] = (), trained: Sequence[RunRow] = ()
) -> list[Path]:
    """Draw the figures that the fit has data for; returns the files, an SVG and a PNG of each.

    `trained`: runs that were trained after their forecasts, as stars. InputError when matplotlib
    is not installed (it is the extra `plots`).
    """
    plots = matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    figures: dict[str, tuple[Callable[..., None], int, tuple[float, float]]] = {
        "isoflop": (_isoflop, 1, (7.2, 4.6)),
        "optimum": (_optimum, 2, (10.0, 4.2)),
        "loss": (_loss, 1, (7.2, 4.6)),
        "return": (_return, 1, (7.2, 4.6)),
        "loss-return": (_loss_return, 1, (6.4, 4.6)),
        "residuals": (_residuals, 2, (10.0, 3.8)),
        "surface": (_surface, 1, (6.8, 5.0)),
    }
    with plots.rc_context(STYLE):
        for name, (draw, panels, size) in figures.items():
            if not _has(fit, name):
                continue
            figure = plots.figure.Figure(figsize=size)
            axes = np.atleast_1d(figure.subplots(1, panels))
            for axis in axes:
                axis.set_xscale("log")
                axis.set_yscale("linear" if name == "residuals" else "log")
            for run in trained:
                for axis, (x, y) in zip(axes, _STARS.get(name, ()), strict=False):
                    star(axis, getattr(run, x), getattr(run, y))
            draw(fit, axes, forecasts)
            for kind in ("svg", "png"):
                path = folder / f"{name}.{kind}"
                # No date in it, so that the same fit gives the same bytes.
                extra: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
                with files.naming(path):
                    figure.savefig(path, dpi=150, **extra)
                written.append(path)
    return written


_STARS = {
    "isoflop": (("params", "loss"),),
    "optimum": (("flops", "params"), ("flops", "samples")),
    "loss": (("flops", "loss"),),
    "return": (("flops", "mean_return"),),
    "loss-return": (("loss", "mean_return"),),
    "surface": (("params", "samples"),),
}
"""Columns of a run that the panels of a figure are of."""


def plot_loss_by_step(found: Mapping[str, LossSums], path: Path) -> None:
    """Draw each agent's loss against the step of the game, with its standard error.

    A range of steps is drawn at its geometric middle. The suffix of `path` says the format.
    """
    from nhzoo.evaluation.loss import EARLY

    plots = matplotlib()
    with plots.rc_context(STYLE):
        figure = plots.figure.Figure(figsize=(7.2, 4.6))
        axis = figure.subplots()
        for name, sums in found.items():
            parts = sums.by_step()
            middles = [((begin or 250) * (end or 4 * begin / 3)) ** 0.5 for begin, end in parts]
            axis.errorbar(
                middles,
                [part.loss for part in parts.values()],
                yerr=[part.loss_se or 0.0 for part in parts.values()],
                **{"marker": "o", "markersize": 3.5, "capsize": 2, "label": name},
            )
        axis.set_xscale("log")
        axis.axvline(EARLY, color=GREY, linewidth=0.8, linestyle=":")
        axis.set_xlabel("step of the game")
        axis.set_ylabel("loss (nats per key)")
        axis.legend()
        with files.naming(path):
            extra = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
            figure.savefig(path, dpi=150, **extra)


def check_figure(path: Path) -> None:
    """InputError unless a figure can be drawn into `path`: its suffix, and matplotlib."""
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise InputError(f"{path}: figures are .svg, .png or .pdf files; name one")
    matplotlib()


def _has(fit: Fit, name: str) -> bool:
    surface = surface_of(fit.laws) is not None
    return {
        "isoflop": bool(fit.budgets),
        "optimum": any(isinstance(law, SizeLaw) for law in fit.laws),
        "loss": any(isinstance(law, LossLaw) for law in fit.laws),
        "return": any(law.of == "compute" for law in fit.returns),
        "loss-return": any(law.of == "loss" for law in fit.returns),
        "residuals": surface,
        "surface": surface,
    }[name]


def _grid(fit: Fit, forecasts: Sequence[Forecast]) -> Array:
    """Budgets to draw laws at: those fitted and a decade beyond, or to the farthest forecast."""
    top = max([10 * fit.largest, *(1.5 * f.flops for f in forecasts)])
    return np.geomspace(float(fit.points.flops.min()), top, 60)


def _isoflop(fit: Fit, axes: Any, forecasts: Sequence[Forecast]) -> None:
    axis = axes[0]
    used = [b.label for b in fit.budgets if b.status == "used"]
    colours = dict(zip(used, shades(len(used)), strict=True))
    fitted = {v.budget: v for v in fit.vertices}
    for budget in fit.budgets:
        colour = colours.get(budget.label, "#b5b5b5")
        mine, left = (p.take(p.budget == budget.label) for p in (fit.points, fit.others))
        axis.plot(left.params, left.loss, "o", mfc="none", mec=colour, ms=4, mew=0.9, alpha=0.7)
        label = sci(budget.label)
        axis.plot(
            mine.params, mine.loss, "o", color=colour, ms=4.5, label=label if len(mine) else None
        )
        vertex = fitted.get(budget.label)
        if vertex is None:
            continue
        a, b, c = vertex.coefficients

        def curve(
            n: Array, a: float = a, b: float = b, c: float = c, z: float = vertex.centre
        ) -> Array:
            x = np.log(n) - z
            return np.asarray(np.exp(a + b * x + c * x**2))

        low, high = mine.params.min(), mine.params.max()
        inside = np.geomspace(low, high, 60)
        axis.plot(inside, curve(inside), color=colour, lw=1.3)
        for far in (np.geomspace(low / 1.8, low, 12), np.geomspace(high, high * 1.8, 12)):
            axis.plot(far, curve(far), color=colour, lw=1, ls=(0, (3, 2)))
        size, loss = vertex.size, vertex.loss
        reach = [[size.value - max(size.low, low / 4)], [min(size.high, high * 4) - size.value]]
        axis.errorbar(
            [size.value],
            [loss.value],
            xerr=np.maximum(reach, 0),
            fmt="D",
            color=ORANGE,
            ms=4.5,
            elinewidth=1,
            capsize=2,
            zorder=5,
        )
    axis.plot([], [], "D", color=ORANGE, ms=4.5, label="optimum, 90 %")
    if len(fit.others):
        axis.plot([], [], "o", mfc="none", mec=GREY, ms=4, label="not fitted")
    ticks(axis)
    axis.set_xlabel("parameters")
    axis.set_ylabel(_quantity(fit))
    axis.set_title("isoFLOP profiles", loc="left")
    axis.legend(title="FLOPs", ncols=1, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _quantity(fit: Fit) -> str:
    return "1 / mean return" if fit.options.get("metric") == "return" else "held-out loss"


def _optimum(fit: Fit, axes: Any, forecasts: Sequence[Forecast]) -> None:
    grid = _grid(fit, forecasts)
    level = float(fit.options["interval"])
    for axis, samples in zip(axes, (False, True), strict=True):
        for law in fit.laws:
            if not isinstance(law, SizeLaw) or law.method not in COLOURS:
                continue
            ends = [law.size(float(c), fit.cost, level) for c in grid]
            if samples:
                ends = [_samples(fit, float(c), i) for c, i in zip(grid, ends, strict=True)]
            label = NAMES[law.method]
            exponent = fit.exponent(law.method)
            if exponent is not None and not samples:
                label += f": {exponent.value:.2f} [{exponent.low:.2f}, {exponent.high:.2f}]"
            band(axis, grid, ends, fit.largest, COLOURS[law.method], label)
        for vertex in fit.vertices:
            size = _samples(fit, vertex.flops, vertex.size) if samples else vertex.size
            if size is None:
                continue
            dot(axis, vertex.flops, size)
        for f in forecasts:
            value = f.samples if samples else f.params
            interval = f.samples_interval if samples else f.params_interval
            diamond(axis, f.flops, float(value), interval)
        ticks(axis)
        axis.set_xlabel("training FLOPs")
        axis.set_ylabel("optimal samples" if samples else "optimal parameters")
        lows = [v.size.value for v in fit.vertices] or [1.0]
        if not samples:
            axis.set_ylim(bottom=min(lows) / 3)
        beyond(axis, fit.largest, float(grid[-1]))
        axis.set_xlim(grid[0] / 1.3, grid[-1])
    axes[0].legend(loc="upper left", title="exponent of the size, 90 %", alignment="left")
    axes[0].set_title("optimal size", loc="left")
    axes[1].set_title("optimal data", loc="left")


def _samples(fit: Fit, flops: float, size: LawInterval | None) -> LawInterval | None:
    if size is None:
        return None
    value, high, low = (float(fit.cost.samples(flops, n)) for n in vars(size).values())
    return LawInterval(value, min(low, high), max(low, high))


def _loss(fit: Fit, axes: Any, forecasts: Sequence[Forecast]) -> None:
    axis = axes[0]
    grid = _grid(fit, forecasts)
    level = float(fit.options["interval"])
    for points in (fit.others, fit.points):
        axis.plot(points.flops, points.loss, ".", color="#b5b5b5", ms=3.5, zorder=1)
    bottom = []
    for law in fit.laws:
        if not isinstance(law, LossLaw):
            continue
        ends = [law.loss(float(c), fit.cost, level) for c in grid]
        bottom += [end.low for end in ends[-1:] if end]
        band(axis, grid, ends, fit.largest, COLOURS[law.method], NAMES[law.method])
    for vertex in fit.vertices:
        dot(axis, vertex.flops, vertex.loss)
    if len(fit.vertices) >= 2:
        from nhzoo.scaling.isoflop import bare_power_law

        spent = np.array([v.flops for v in fit.vertices])
        ln_k, g = bare_power_law(spent, np.log([v.loss.value for v in fit.vertices]))
        axis.plot(
            grid,
            np.exp(ln_k - g * np.log(grid)),
            ":",
            color=GREY,
            lw=1.2,
            label="bare power law (baseline)",
        )
    for f in forecasts:
        diamond(axis, f.flops, f.loss.value, f.loss)
    seen = fit.points.loss
    low = min([float(seen.min()), *(f.loss.low for f in forecasts)])
    axis.set_ylim(0.9 * min([low, *(max(b, low / 3) for b in bottom)]), 1.1 * float(seen.max()))
    ticks(axis)
    beyond(axis, fit.largest, float(grid[-1]))
    axis.set_xlim(grid[0] / 1.5, grid[-1])
    axis.set_xlabel("training FLOPs")
    axis.set_ylabel(_quantity(fit))
    axis.set_title("loss frontier, 90 % bands", loc="left")
    unique_legend(axis, "upper right")


def _return(fit: Fit, axes: Any, forecasts: Sequence[Forecast]) -> None:
    axis = axes[0]
    law = next(law for law in fit.returns if law.of == "compute")
    grid = _grid(fit, forecasts)
    _returns_of(axis, fit, "flops")
    grid = grid[grid >= law.low / 1.01]
    level = float(fit.options["interval"])
    ends = [exp(law.at(float(np.log(c)), level, noise=False)) for c in grid]
    wide = [exp(law.at(float(np.log(c)), level)) for c in grid]
    shade(axis, grid, wide, BLUE, 0.07, label="of one more run, 90 %")
    label = f"best of each budget: R ~ C^{law.slope:.2f}"
    band(axis, grid, ends, law.high, BLUE, label)
    for f in forecasts:
        if f.ret is not None:
            diamond(axis, f.flops, f.ret.value, f.ret)
    seen = np.concatenate([fit.points.mean_return, fit.others.mean_return])
    lowest = float(np.nanmin(np.where(seen > 0, seen, np.nan)))
    axis.set_ylim(bottom=max(lowest / 1.5, min(i.low for i in wide) / 8))
    ticks(axis)
    beyond(axis, law.high, float(grid[-1]))
    axis.set_xlim(grid[0] / 1.5, grid[-1])
    axis.set_xlabel("training FLOPs")
    axis.set_ylabel("mean return")
    axis.set_title("return against compute", loc="left")
    unique_legend(axis, "upper left")


def _returns_of(axis: Any, fit: Fit, column: str) -> None:
    every = column == "loss"  # its law goes through every row with a return
    for points, fitted in ((fit.others, every), (fit.points, True)):
        mine = points.take(np.nan_to_num(points.mean_return) > 0)
        if not len(mine):
            continue
        error = np.minimum(np.nan_to_num(mine.se_return), 0.9 * mine.mean_return)
        axis.errorbar(
            getattr(mine, column),
            mine.mean_return,
            yerr=error,
            fmt="o",
            ms=3.6,
            elinewidth=0.7,
            color="#4d4d4d" if fitted else "#b5b5b5",
            mfc="#4d4d4d" if fitted else "white",
            zorder=2 if fitted else 1,
            label="fitted run" if fitted else "other run",
        )


def _loss_return(fit: Fit, axes: Any, forecasts: Sequence[Forecast]) -> None:
    axis = axes[0]
    law = next(law for law in fit.returns if law.of == "loss")
    _returns_of(axis, fit, "loss")
    low = min([law.low, *(0.97 * f.loss.value for f in forecasts)])
    grid = np.geomspace(low, law.high, 60)
    level = float(fit.options["interval"])
    wide = [exp(law.at(float(np.log(x)), level)) for x in grid]
    shade(axis, grid, wide, BLUE, 0.1, label="of one more run, 90 %")
    ends = [exp(law.at(float(np.log(x)), level, noise=False)) for x in grid]
    value = np.array([i.value for i in ends])
    inner = grid >= law.low * 0.999
    label = f"R ~ L^{law.slope:.2f}, scatter {law.tau:.0%}"
    shade(axis, grid, ends, BLUE, 0.16)
    axis.plot(grid[inner], value[inner], color=BLUE, label=label)
    axis.plot(grid[~inner], value[~inner], color=BLUE, ls=(0, (4, 2)))
    for f in forecasts:
        if f.ret is not None:
            diamond(axis, f.loss.value, f.ret.value, f.ret)
    ticks(axis)
    axis.set_xlabel(_quantity(fit))
    axis.set_ylabel("mean return")
    axis.set_title("return against loss", loc="left")
    unique_legend(axis, "upper right")


def _residuals(fit: Fit, axes: Any, forecasts: Sequence[Forecast]) -> None:
    points = fit.points
    surface = surface_of(fit.laws)
    assert surface is not None
    rest = 100 * (1 - surface.at(points.params, points.samples) / points.loss)
    labels = np.unique(points.budget)
    colours = shades(len(labels))
    for axis, x, name in zip(
        axes, (points.params, points.flops), ("parameters", "training FLOPs"), strict=True
    ):
        for label, colour in zip(labels, colours, strict=True):
            mine = points.budget == label
            axis.plot(x[mine], rest[mine], "o", color=colour, ms=4)
        axis.axhline(0, color=GREY, lw=0.8)
        for side in (-2, 2):
            axis.axhline(side * 100 * surface.noise, color=GREY, lw=0.8, ls=":")
        ticks(axis, y=False)
        axis.set_xlabel(name)
    axes[0].set_ylabel("residual of the surface, %")
    axes[0].set_title("residuals (dotted: 2 standard deviations)", loc="left")
    axes[1].set_title("coloured by budget", loc="left")


def _surface(fit: Fit, axes: Any, forecasts: Sequence[Forecast]) -> None:
    axis = axes[0]
    points = fit.points
    surface = surface_of(fit.laws)
    assert surface is not None
    n = np.geomspace(points.params.min() / 2, points.params.max() * 4, 120)
    d = np.geomspace(points.samples.min() / 2, points.samples.max() * 4, 120)
    value = surface.at(n[None, :], d[:, None])
    low, high = float(value.min()), min(float(value.max()), 1.5 * float(points.loss.max()))
    drawn = axis.contour(
        n,
        d,
        value,
        levels=np.geomspace(low * 1.01, high, 12),
        colors=[shades(12)[i] for i in range(12)],
        linewidths=1.0,
    )
    axis.plot(points.params, points.samples, "o", color="#4d4d4d", ms=3, label="fitted run")
    axis.set_xlim(n[0], n[-1])
    axis.set_ylim(d[0], d[-1])
    axis.clabel(drawn, fmt=lambda v: f"{v:.3g}", fontsize=7)
    budgets = [b.flops for b in fit.budgets if b.status == "used"]
    for flops in budgets[:: max(1, len(budgets) // 5)]:
        axis.plot(n, fit.cost.samples(flops, n), color="#b5b5b5", lw=0.7)
    grid = _grid(fit, forecasts)
    best = np.array([best_size([surface], float(c), fit.cost) for c in grid])
    best_samples = np.array(
        [float(fit.cost.samples(c, s)) for c, s in zip(grid, best, strict=True)]
    )
    inner = grid <= fit.largest
    axis.plot(best[inner], best_samples[inner], color=ORANGE, lw=2, label="optimal")
    axis.plot(best[~inner], best_samples[~inner], color=ORANGE, lw=2, ls=(0, (3, 1.5)))
    for f in forecasts:
        axis.plot([f.params], [f.samples], "D", color="black", mfc="white", ms=6, label="forecast")
    ticks(axis)
    axis.set_xlabel("parameters")
    axis.set_ylabel("samples")
    axis.set_title("loss surface; grey: equal FLOPs", loc="left")
    unique_legend(axis, "lower left").set(frame_on=True)
