"""Diagnostics of fitted laws and of the design of their runs.

The thresholds are those of the simulations and sources in training/SCALING.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from nhzoo.scaling import cost as training_cost
from nhzoo.scaling import intervals, parametric
from nhzoo.scaling.backtest import Holdout
from nhzoo.scaling.cost import Cost
from nhzoo.scaling.laws import FRONTIER_BUDGETS, LEAST_BUDGETS, Laws, SizeLaw
from nhzoo.scaling.returns import ReturnLaw
from nhzoo.scaling.runs import Diagnostic, Level, Points, Selection

Array = npt.NDArray[np.float64]

MOST_EPOCHS = 16.0
"""Muennighoff et al. 2023 (arXiv 2305.16264): up to 4 epochs are nearly as good as fresh data, and
beyond 16 more of them are worth next to nothing."""
MANY_EPOCHS = 4.0

LONG_HORIZON = 20_000
"""Steps of a game; within them clones of the zoo play most of theirs, see `evaluation.loss`."""
_STEEP = 0.2  # of ln horizon on ln samples


def check(
    chosen: Selection,
    laws: Laws,
    cost: Cost,
    holdouts: Sequence[Holdout],
    returns: Sequence[ReturnLaw],
    given_cost: bool = False,
) -> list[Diagnostic]:
    """Every finding, in the order: design, rows, profiles, surface, agreement, returns."""
    points = chosen.points
    found = _design(chosen, laws)
    if not len(points):
        return found
    found += _rows(points)
    found += _given_cost(points, cost) if given_cost else _cost(points)
    if laws.profiles is not None:
        found += _profiles(chosen, laws)
    if laws.surface is not None:
        found += _surface(points, laws)
    found += _agreement(laws, points, cost)
    found += _holdouts(holdouts)
    found += _returns(points, returns)
    return found


def _finding(
    code: str, level: Level, where: str, value: float | None, message: str, remedy: str
) -> Diagnostic:
    plain = None if value is None or not np.isfinite(value) else float(value)
    return Diagnostic(code, level, where, plain, message, remedy)


def _design(chosen: Selection, laws: Laws) -> list[Diagnostic]:
    found = []
    points, budgets = chosen.points, len(chosen.used)
    if chosen.profiles:
        if budgets < LEAST_BUDGETS:
            found.append(
                _finding(
                    *("too_few_budgets", "error", "", budgets),
                    f"{budgets} budgets can be fitted, {LEAST_BUDGETS} are the least for a law",
                    "add budgets, three sizes or more each way from the best, in steps of 2",
                )
            )
        elif budgets < 5:
            found.append(
                _finding(
                    *("too_few_budgets", "warning", "", budgets),
                    f"{budgets} budgets: exponents rest on few points"
                    + (
                        "" if budgets >= FRONTIER_BUDGETS else ", and the loss on the surface alone"
                    ),
                    "5 budgets over 2 decades are a good plan",
                )
            )
        for budget in chosen.used:
            if budget.sizes < 5:
                found.append(
                    _finding(
                        *("too_few_sizes", "warning", f"budget {budget.label:.4g}", budget.sizes),
                        f"{budget.sizes} sizes for a parabola of three parameters",
                        "7 sizes in steps of 2 are a good plan",
                    )
                )
    elif laws.surface is None:
        found.append(
            _finding(
                *("too_few_runs", "error", "", len(points)),
                f"{len(points)} rows cannot carry a surface of 5 parameters "
                f"({parametric.LEAST_POINTS} rows of several sizes and samples are the least)",
                "add runs",
            )
        )
    if len(points) and chosen.profiles and budgets >= 2:
        decades = float(np.log10(points.budget.max() / points.budget.min()))
        if decades < 1.5:
            found.append(
                _finding(
                    *("narrow_budgets", "warning", "", decades),
                    f"budgets span {decades:.1f} decades",
                    "span 1.5 or more: one decade doubles the error of an exponent",
                )
            )
    return found


def _horizons(points: Points) -> list[Diagnostic]:
    """Whether runs of more samples carried their state for longer, where that still matters."""
    known = np.isfinite(points.horizon)
    horizon, samples = np.log(points.horizon[known]), np.log(points.samples[known])
    if known.sum() < 3 or np.ptp(samples) == 0 or np.ptp(horizon) < np.log(2):
        return []
    slope = float(np.polyfit(samples, horizon, 1)[0])
    shortest, longest = np.exp(horizon.min()), np.exp(horizon.max())
    if shortest >= LONG_HORIZON or slope < _STEEP:
        return []
    return [
        _finding(
            *("horizon_confounded", "warning", "column horizon", slope),
            f"state was carried for {shortest:,.0f} to {longest:,.0f} steps, longer in runs of "
            f"more samples (as samples^{slope:.2f}), so part of what samples seem to be worth is "
            "the horizon's",
            f"train all with one horizon of {LONG_HORIZON:,} steps or more",
        )
    ]


def _rows(points: Points) -> list[Diagnostic]:
    found = []
    epochs = points.samples / points.unique
    worst = float(np.nanmax(epochs)) if np.isfinite(epochs).any() else 0.0
    if worst > MANY_EPOCHS:
        row = int(points.row[int(np.nanargmax(epochs))])
        found.append(
            _finding(
                "repeated_data",
                "error" if worst > MOST_EPOCHS else "warning",
                f"row {row}",
                worst,
                f"{int((epochs > MANY_EPOCHS).sum())} rows saw their data more than 4 times, at "
                f"worst {worst:.1f} times",
                "repeated data counts for less and bends the law: leave these rows out or add data",
            )
        )
    rates = np.unique(points.lr[np.isfinite(points.lr)])
    ratio = float(points.params.max() / points.params.min())
    if len(rates) == 1 and ratio > 4 and np.isfinite(points.lr).all():
        found.append(
            _finding(
                *("lr_untuned", "warning", "column lr", float(rates[0])),
                f"one learning rate, {rates[0]:g}, for sizes that span a factor of {ratio:.0f}",
                "an untuned rate moves the exponent by 0.1 or more: scale it with size",
            )
        )
    found += _horizons(points)
    tokens = points.samples / points.params
    spread = float(tokens.max() / tokens.min())
    if spread < 8:
        found.append(
            _finding(
                *("collinear", "warning", "", spread),
                f"samples per parameter vary by a factor of {spread:.1f} only, so size and data "
                "cannot be told apart",
                "vary the size at each budget by a factor of 8 or more",
            )
        )
    if intervals.too_few(points.clusters):
        runs = len(np.unique(points.clusters))
        found.append(
            _finding(
                *("too_few_clusters", "error", "column run_id", runs),
                f"{len(points)} rows come from {runs} run{'s' if runs > 1 else ''}, "
                f"{intervals.LEAST_CLUSTERS} are the least for intervals, so there are none, "
                "and no forecast",
                "add runs; where each row is a run of its own, give each its own run_id",
            )
        )
    elif intervals.clustered(points.clusters):
        found.append(
            _finding(
                *("clustered", "note", "column run_id", len(points)),
                f"{len(points)} rows come from {int(points.clusters.max()) + 1} runs; intervals "
                "resample runs",
                "one run for each row, its learning rate fallen at its end, says more",
            )
        )
    return found


def _cost(points: Points) -> list[Diagnostic]:
    spread = training_cost.spread(points.params, points.samples, points.flops)
    if spread <= training_cost.NOT_PROPORTIONAL:
        return []
    return [
        _finding(
            *("not_6nd", "note", "column flops", spread),
            f"FLOPs / (params x samples) varies by a factor of {spread:.2f} along the sizes",
            "optima are solved on the cost that the rows show; --cost nhzoo takes the exact one",
        )
    ]


def _given_cost(points: Points, cost: Cost) -> list[Diagnostic]:
    off = np.abs(np.log(points.flops / points.samples / cost.of(points.params)))
    worst = int(off.argmax())
    if off[worst] <= np.log(1.1):
        return []
    return [
        _finding(
            *("cost_mismatch", "warning", f"row {int(points.row[worst])}", np.exp(off[worst])),
            f"FLOPs a sample differ from the cost asked for, at worst x{np.exp(off[worst]):.2f}",
            "--cost rows takes what the rows show",
        )
    ]


def _profiles(chosen: Selection, laws: Laws) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    profiles = laws.profiles
    if profiles is None:
        return found
    centres, places = [], []
    for k, budget in enumerate(chosen.used):
        where = f"budget {budget.label:.4g}"
        bend = float(profiles.curvature[k])
        if not bend > 0:
            found.append(
                _finding(
                    *("nonconvex", "error", where, bend),
                    "the parabola has no minimum; the budget gives no optimum",
                    "look at its runs: one has failed, or the sizes are too near each other",
                )
            )
            continue
        if not np.isfinite(profiles.vertex[0, k]):
            found.append(
                _finding(
                    *("edge_optimum", "error", where, None),
                    "the parabola's minimum lies beyond the sizes; the budget gives no optimum",
                    "add sizes on that side",
                )
            )
            continue
        size = float(np.exp(profiles.vertex[0, k]))
        if not budget.low_params <= size <= budget.high_params:
            found.append(
                _finding(
                    *("edge_optimum", "warning", where, size),
                    f"the parabola's minimum, {size:,.0f}, is just beyond the sizes",
                    "add sizes on that side",
                )
            )
        half = np.log(budget.high_params / budget.low_params) / 2
        depth = bend * half**2
        if bend < 2 * profiles.curvature_se[k] or depth < 3 * profiles.sd:
            found.append(
                _finding(
                    *("weak_curvature", "warning", where, depth / profiles.sd),
                    "the profile is flat against its noise, so its optimum is uncertain",
                    "widen the sizes or add seeds",
                )
            )
        off = np.log(np.sqrt(budget.high_params * budget.low_params) / size)
        centres.append(off)
        places.append(np.log(budget.flops))
        if abs(off) > np.log(2):
            found.append(
                _finding(
                    *("off_center", "warning", where, float(np.exp(off))),
                    f"the middle of the sizes is x{np.exp(off):.2f} of the optimum",
                    "centre the sizes on the fit: nhzoo sweep plan --center fit.json",
                )
            )
    if len(centres) >= 3:
        line = stats.linregress(places, centres)
        if line.pvalue < 0.1 and abs(line.slope) > 0.05:
            found.append(
                _finding(
                    *("drift", "warning", "", float(line.slope)),
                    "sizes drift off centre from budget to budget, which biases the parabola's "
                    "exponent",
                    "centre the sizes anew at each budget; the surface does not mind",
                )
            )
        tops = profiles.vertex[0][np.isfinite(profiles.vertex[0])]
        spent = np.log(profiles.compute[np.isfinite(profiles.vertex[0])])
        slopes = np.diff(tops) / np.diff(spent)
        steps = np.diff(slopes)
        if len(slopes) >= 4 and ((steps > 0).all() or (steps < 0).all()):
            found.append(
                _finding(
                    *("regime_change", "warning", "", float(slopes[-1] - slopes[0])),
                    f"the local exponent goes one way, from {slopes[0]:.2f} to {slopes[-1]:.2f}",
                    "the law may bend: fit the top budgets alone, or add larger ones",
                )
            )
    return found


def _surface(points: Points, laws: Laws) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    surface = laws.surface
    if surface is None:
        return found
    for name in surface.at_bound:
        level: Level = "note" if name == "E" else "error"
        found.append(
            _finding(
                *("param_at_bound", level, f"surface, {name}", None),
                f"{name} ended on its bound"
                + (": the loss shows no floor" if name == "E" else ", so the surface is not known"),
                "more budgets show a floor" if name == "E" else "vary size and data more widely",
            )
        )
    number = parametric.condition(surface, points.params, points.samples, points.loss)
    if number > 1e6:
        found.append(
            _finding(
                *("collinear", "warning", "surface", number),
                f"the surface's parameters are nearly collinear (condition {number:.1e})",
                "vary size at each budget more widely",
            )
        )
    rest = surface.residuals
    inliers = surface.weights > 0.3
    for name, column in (("size", points.params), ("compute", points.flops)):
        x = np.log(column[inliers])
        if inliers.sum() < 8 or np.ptp(x) < 0.1:
            continue
        z = (x - x.mean()) / x.std()
        line = stats.linregress(z**2, rest[inliers])
        straight = stats.linregress(z, rest[inliers])
        if min(line.pvalue, straight.pvalue) < 0.005:
            found.append(
                _finding(
                    *("lack_of_fit", "warning", f"residuals against {name}", surface.rms),
                    f"residuals ({surface.rms:.2%} rms) are not random along {name}: the surface "
                    "has not the right form",
                    "trust the frontier for the loss, and try --methods vp,parabola,cubic,coupled",
                )
            )
    noise = seed_noise(points)
    if noise and surface.rms > 2 * noise:
        found.append(
            _finding(
                *("lack_of_fit", "warning", "seeds", surface.rms / noise),
                f"residuals ({surface.rms:.2%}) are more than twice what seeds differ by "
                f"({noise:.2%})",
                "the surface has not the right form, or runs differ in more than their seed",
            )
        )
    outliers = points.row[surface.weights < 0.3]
    if len(outliers):
        rows = ", ".join(str(int(row)) for row in outliers[:8])
        found.append(
            _finding(
                *("outliers", "warning", f"row {rows}", len(outliers)),
                f"{len(outliers)} rows lie far off the surface and hardly count",
                "look whether these runs ended as they should; leave out those that did not",
            )
        )
    return found


def seed_noise(points: Points) -> float | None:
    """Relative standard deviation between runs of one size and budget; None without such runs."""
    square, dof = 0.0, 0
    keys = np.stack([points.budget, np.round(np.log(points.params), 2)], 1)
    for key in np.unique(keys, axis=0):
        mine = np.log(points.loss[(keys == key).all(1)])
        if len(mine) > 1:
            square += float(((mine - mine.mean()) ** 2).sum())
            dof += len(mine) - 1
    return (square / dof) ** 0.5 if dof else None


def _agreement(laws: Laws, points: Points, cost: Cost) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    for law in laws.laws:
        if law.estimate.failures > 0.1:
            found.append(
                _finding(
                    *("resample_failures", "warning", law.method, law.estimate.failures),
                    f"{law.estimate.failures:.0%} of resamples could not be fitted",
                    "intervals are of the rest, and too short: add runs",
                )
            )
    sizes = {law.method: law for law in laws.laws if isinstance(law, SizeLaw)}
    if not {"vp", "parabola"} <= sizes.keys():
        return found
    middle = float(np.exp(np.log(points.flops).mean()))
    far = 10 * float(points.flops.max())
    vp, parabola = sizes["vp"], sizes["parabola"]
    a, b = (law.slope(middle, cost, 0.9) for law in (vp, parabola))
    n, m = (law.size(far, cost, 0.9) for law in (vp, parabola))
    if a is None or b is None or n is None or m is None:
        return found
    joint = np.hypot(a.high - a.low, b.high - b.low) / 2 / 1.645
    gap = abs(a.value - b.value)
    ratio = max(n.value / m.value, m.value / n.value)
    if gap > 2 * joint or ratio > 1.5:
        found.append(
            _finding(
                *("method_disagreement", "warning", "", ratio),
                f"exponents of {a.value:.3f} (vp) and {b.value:.3f} (parabola); at 10 times the "
                f"largest budget their sizes differ by x{ratio:.2f}",
                "forecasts state the union; more budgets tell which is right",
            )
        )
    return found


def _holdouts(holdouts: Sequence[Holdout]) -> list[Diagnostic]:
    for test in holdouts:
        if test.left_out == 1 and test.surface_error is not None and abs(test.surface_error) > 0.02:
            return [
                _finding(
                    *("lack_of_fit", "warning", "hold-out", test.surface_error),
                    f"the top budget's loss, forecast by the surface from those below, is "
                    f"{test.surface_error:+.1%} off",
                    "forecast intervals are widened by the hold-outs' worst error",
                )
            ]
    return []


def _returns(points: Points, returns: Sequence[ReturnLaw]) -> list[Diagnostic]:
    scored = points.take(np.nan_to_num(points.mean_return) > 0)
    noise = scored.se_return / scored.mean_return
    noise = noise[np.isfinite(noise)]
    if returns and len(noise) and np.median(noise) > 0.05:
        return [
            _finding(
                *("return_noise", "warning", "column se_return", float(np.median(noise))),
                f"mean returns have a standard error of {np.median(noise):.0%} (median)",
                "play more games: about 1,000 for 3 %",
            )
        ]
    return []
