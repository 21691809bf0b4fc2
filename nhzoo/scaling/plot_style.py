"""The style of all figures: colours, ticks, bands, and the look of extrapolations."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nhzoo.errors import InputError
from nhzoo.scaling.intervals import LawInterval

Array = npt.NDArray[np.float64]

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6e6e6e"
COLOURS = {
    "vp": BLUE,
    "parabola": ORANGE,
    "frontier": GREEN,
    "huber": PURPLE,
    "joint": "#56B4E9",
    "cubic": "#E69F00",
    "coupled": "#000000",
}
NAMES = {
    "vp": "surface (variable projection)",
    "parabola": "parabolas",
    "frontier": "E + k C^-g through the minima",
    "huber": "surface (Huber)",
    "joint": "joint parabolas",
    "cubic": "cubics",
    "coupled": "coupled surface",
    "argmin": "best size trained",
}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "nhzoo",
    "figure.constrained_layout.use": True,
}


def matplotlib() -> Any:
    """Matplotlib, for figures that are files; InputError when it is not installed.

    No backend is used, so one that the environment names (a notebook's, in MPLBACKEND) need not be
    there: matplotlib refuses to be imported otherwise.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        found = importlib.import_module("matplotlib")
        importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise InputError(
            f"plots need {error.name}, which is not installed: pip install 'nhzoo[plots]'"
        ) from None
    except ImportError as error:  # one that does not fit another package, as numpy 2
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise InputError(
            f"matplotlib cannot be imported ({reason}): pip install --upgrade 'nhzoo[plots]'"
        ) from None
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return found


def shades(count: int) -> list[Any]:
    """Colours of budgets in their order."""
    from matplotlib import colormaps

    # Not to the yellow end, which is faint on white.
    return [colormaps["viridis"](x) for x in np.linspace(0.0, 0.9, max(count, 2))[:count]]


def ticks(axis: Any, x: bool = True, y: bool = True) -> None:
    """Logarithmic axes with as many plain ticks as there is room for."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    for one, wanted, ends in (
        (axis.xaxis, x, axis.get_xlim()),
        (axis.yaxis, y, axis.get_ylim()),
    ):
        if not wanted:
            continue
        decades = abs(np.log10(ends[1] / ends[0]))
        if decades < 2.2:
            close = decades < 0.8  # there, round steps show more than powers do
            one.set_major_locator(
                MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]) if close else LogLocator(subs=(1, 2, 5))
            )
            one.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.4g}" if v < 1e4 else sci(v)))
            one.set_minor_locator(NullLocator())
        one.set_minor_formatter(NullFormatter())


def sci(value: float) -> str:
    """A number as 3.2e14."""
    mantissa, _, power = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(power)}"


def band(
    axis: Any, x: Array, ends: Sequence[LawInterval | None], edge: float, colour: str, label: str
) -> None:
    """A law with its interval, solid up to `edge` and dashed beyond."""
    known = [i is not None for i in ends]
    x = x[np.array(known)]
    found = [i for i in ends if i is not None]
    if not found:
        return
    value = np.array([i.value for i in found])
    shade(axis, x, found, colour, 0.16)
    inner, outer = x <= edge * 1.0001, x >= edge / 1.15
    axis.plot(x[inner], value[inner], color=colour, label=label)
    axis.plot(x[outer], value[outer], color=colour, linestyle=(0, (4, 2)))


def shade(
    axis: Any, x: Array, ends: Sequence[LawInterval], colour: str, alpha: float, **named: Any
) -> None:
    """What intervals hold."""
    low, high = [i.low for i in ends], [i.high for i in ends]
    axis.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0, **named)


def beyond(axis: Any, edge: float, top: float) -> None:
    """Grey ground from `edge` on."""
    axis.axvspan(edge, top, color="#f1f1f1", zorder=-10, linewidth=0)
    axis.text(
        edge * 1.06,
        0.015,
        "extrapolated",
        transform=axis.get_xaxis_transform(),
        color=GREY,
        fontsize=8,
        va="bottom",
    )


def dot(axis: Any, x: float, interval: LawInterval) -> None:
    """The vertex of one budget's profile."""
    axis.errorbar(
        [x],
        [interval.value],
        yerr=[[interval.value - interval.low], [interval.high - interval.value]],
        fmt="o",
        color="black",
        ms=4,
        elinewidth=0.9,
        capsize=2,
        zorder=5,
    )


def diamond(axis: Any, x: float, y: float, interval: LawInterval) -> None:
    """A forecast."""
    reach = np.maximum([[y - interval.low], [interval.high - y]], 0)
    axis.errorbar(
        [x],
        [y],
        yerr=reach,
        fmt="D",
        color="black",
        mfc="white",
        ms=6,
        elinewidth=1.1,
        capsize=3,
        zorder=6,
        label="forecast",
    )


def star(axis: Any, x: float | None, y: float | None) -> None:
    """A run that was trained after its forecast; nothing where it has no such value."""
    if x is not None and y is not None:
        axis.plot(
            [x], [y], "*", color=PURPLE, mec="black", mew=0.6, ms=13, zorder=7, label="trained"
        )


def unique_legend(axis: Any, place: str) -> Any:
    """A legend with every label once."""
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    return axis.legend(unique.values(), unique.keys(), loc=place)


def exp(interval: LawInterval) -> LawInterval:
    """An interval from logs."""
    return LawInterval(*(float(np.exp(x)) for x in vars(interval).values()))
