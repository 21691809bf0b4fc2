"""Commands of scaling laws: `fit`, `forecast`, `grade`, `plot`."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nhzoo.cli.options import AS_JSON
from nhzoo.errors import InputError
from nhzoo.runtime import console

if TYPE_CHECKING:
    from nhzoo.scaling.cost import Cost
    from nhzoo.scaling.fitting import Fit
    from nhzoo.scaling.intervals import LawInterval
    from nhzoo.training.run_table import RunRow

FILE = click.Path(path_type=Path)


@click.command("fit")
@click.argument("runs", type=FILE)
@click.option("-o", "--out", type=FILE, help="File for the fit, which forecast and plot read.")
@click.option(
    "--methods",
    default="vp,parabola",
    show_default=True,
    help="Methods, of vp, parabola, huber, joint, argmin.",
)
@click.option(
    "--only", default="*", show_default=True, help="Pattern of the run ids to fit: 'iso1*'."
)
@click.option(
    "--flop-model", help="Fit only rows with this flop_model_hash (none: rows without one)."
)
@click.option(
    "--cost",
    default="auto",
    show_default=True,
    help="FLOPs per sample of a size: auto, rows, nhzoo, or a number k for k x params.",
)
@click.option(
    "--window", default=8.0, show_default=True, help="Fit sizes within this factor of the best."
)
@click.option(
    "--duplicates",
    type=click.Choice(["auto", "all", "best"]),
    default="auto",
    show_default=True,
    help="Rows of one size and budget: all seeds of the best learning rate (auto), all, or best.",
)
@click.option("--checkpoints", is_flag=True, help="Include rows measured during a run.")
@click.option(
    "--metric",
    type=click.Choice(["loss", "return"]),
    default="loss",
    show_default=True,
    help="Metric to fit: loss, or return (fitted as 1 / mean_return).",
)
@click.option("--skip-incomplete", is_flag=True, help="Skip rows that lack a value.")
@click.option("--interval", default=0.9, show_default=True, help="Coverage of all intervals.")
@click.option("--resamples", default=400, show_default=True, help="Bootstrap resamples.")
@click.option("--seed", default=0, show_default=True, help="Seed of the bootstrap.")
@click.option(
    "--holdout",
    default=3,
    show_default=True,
    help="Number of top budgets to hold out and forecast.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if a diagnostic is an error.")
@AS_JSON
def fit_command(
    runs: Path,
    out: Path | None,
    methods: str,
    cost: str,
    skip_incomplete: bool,
    strict: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Fit scaling laws to a table of runs.

    The table is CSV, JSON or JSON Lines. The fit has intervals, hold-outs and named diagnostics.

    \b
    Example: nhzoo fit training/runs.jsonl --only 'iso1*' -o fit.json
    """
    from nhzoo.scaling import fitting
    from nhzoo.training import run_table

    incomplete: list[str] | None = [] if skip_incomplete else None
    notes: list[str] = []
    rows = run_table.read_runs(runs, incomplete, notes)
    for line in notes:
        console.say(f"note: {line}")
    for line in incomplete or ():
        console.say(f"left out: {line}")
    only, model = options["only"], options["flop_model"]

    def matches(row: RunRow) -> bool:
        return fnmatchcase(row.run_id, only) and model in (None, row.flop_model_hash)

    fitted = fitting.fit(
        rows,
        methods=tuple(name.strip() for name in methods.split(",") if name.strip()),
        cost=named_cost(cost, [row for row in rows if matches(row)]),
        source=str(runs),
        **options,
    )
    if out is not None:
        fitting.write_fit(out, fitted)
    if as_json:
        console.print_json(fitting.fit_json(fitted))
    else:
        _show_fit(fitted)
    if not fitted.laws:
        codes = ", ".join(sorted({d.code for d in fitted.errors}))
        console.say(f"nhzoo: {runs}: no law can be fitted ({codes})")
        sys.exit(1)
    if strict and fitted.errors:
        console.say(f"nhzoo: {runs}: {len(fitted.errors)} diagnostics are errors, and --strict")
        sys.exit(1)


@click.command("forecast")
@click.argument("fit_file", metavar="FIT", type=FILE)
@click.option("--flops", type=float, help="Budget in training FLOPs, for example 1e15.")
@click.option(
    "--return", "target", type=float, help="Forecast the compute that reaches this score instead."
)
@click.option("-o", "--out", type=FILE, help="File to freeze the forecast in, under its hash.")
@click.option(
    "--params", type=click.IntRange(1), help="Number of parameters (default: the optimal one)."
)
@click.option(
    "--data-limit", type=float, help="Unique samples available (default: the largest of the rows)."
)
@click.option(
    "--epochs", type=float, help="Most epochs over the data; beyond them, the size grows instead."
)
@click.option(
    "--force",
    is_flag=True,
    help="Forecast beyond 100 times the data, and with any number of epochs.",
)
@AS_JSON
def forecast_command(
    fit_file: Path,
    flops: float | None,
    target: float | None,
    out: Path | None,
    params: int | None,
    data_limit: float | None,
    epochs: float | None,
    force: bool,
    as_json: bool,
) -> None:
    """Forecast the size, data, loss and return of a budget.

    Each has an interval; -o freezes the forecast before training. With --return, it forecasts the
    compute at which the law of the return reaches a score. Beyond 100 times the largest budget
    fitted, both are refused.

    \b
    Example: nhzoo forecast fit.json --flops 5e13 -o forecast.json
             nhzoo forecast fit.json --return 4000
    """
    from nhzoo.scaling.fitting import read_fit
    from nhzoo.scaling.forecasting import forecast, write_forecast

    if (flops is None) == (target is None):
        raise InputError("give either --flops or --return")
    if flops is None or target is not None:
        if out or params or data_limit is not None or epochs is not None:
            raise InputError("--return goes with FIT, --force and --json alone")
        assert target is not None
        _show_reach(fit_file, target, force, as_json)
        return
    said = forecast(
        read_fit(fit_file),
        flops,
        params=params,
        data_limit=data_limit,
        epochs=epochs,
        force=force,
    )
    if out is not None:
        write_forecast(out, said)
    if as_json:
        console.print_json(said.as_json())
        return
    head = ("", "forecast", f"{said.interval:.0%} interval")
    rows = [
        ("params", f"{said.params:,}", _ends(said.params_interval)),
        ("samples", f"{said.samples:,}", _ends(said.samples_interval)),
        ("loss", f"{said.loss.value:.4g}", _ends(said.loss)),
    ]
    if said.ret is not None:
        rows.append(("return", f"{said.ret.value:,.4g}", _ends(said.ret)))
    console.print_table(head, rows)
    console.show(
        f"{said.flops:.3g} FLOPs, {said.extrapolation:.3g} times the largest budget fitted"
    )
    if said.data_limit is not None:
        console.show(
            f"{said.data_limit.epochs:.2f} epochs of {said.data_limit.unique_samples:,.0f} samples"
        )
    for warning in said.warnings:
        console.say(f"warning: {warning}")


def _show_reach(fit_file: Path, target: float, force: bool, as_json: bool) -> None:
    from nhzoo.scaling.fitting import read_fit
    from nhzoo.scaling.forecasting import compute_for

    said = compute_for(read_fit(fit_file), target, force=force)
    if as_json:
        console.print_json(said.as_json())
        return
    head = ("", "forecast", f"{said.interval:.0%} interval")
    high = "no upper end" if said.high is None else f"{said.high:.3g}"
    rows = [("flops", f"{said.flops:.3g}", f"[{said.low:.3g}, {high}]")]
    if said.params is not None:
        rows.append(("params", f"{said.params:.3g}", "-"))
    console.print_table(head, rows)
    console.show(
        f"for a mean return of {said.target:,.0f}, {said.beyond:.3g} times the largest fitted; "
        f"{said.extrapolation:.3g} times its FLOPs"
    )
    for warning in said.warnings:
        console.say(f"warning: {warning}")


@click.command("grade")
@click.argument("forecast_file", metavar="FORECAST", type=FILE)
@click.argument("run")
@click.option(
    "--result", type=FILE, help="Result folder of the trained agent, to grade the return."
)
@click.option("-o", "--out", type=FILE, help="File for the grade, for example grade.json.")
@click.option("--strict", is_flag=True, help="Exit with 1 if an interval was missed.")
@AS_JSON
def grade_command(
    forecast_file: Path,
    run: str,
    result: Path | None,
    out: Path | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Grade a frozen forecast against the trained run.

    RUN is TABLE:RUN_ID, a table with one row, or a zoo entry.

    \b
    Example: nhzoo grade forecast.json training/runs.jsonl:bc-lstm-1410k
    """
    from nhzoo.scaling import grading
    from nhzoo.scaling.forecasting import read_forecast
    from nhzoo.scaling.grading import write_grade

    said = read_forecast(forecast_file)
    found = grading.grade(said, grading.find_run(run, said.flops), result)
    if out is not None:
        write_grade(out, found)
    if as_json:
        console.print_json(found.as_json())
    else:
        outcomes = [("loss", found.loss)] + ([("return", found.ret)] if found.ret else [])
        console.print_table(
            ("", "forecast", f"{said.interval:.0%} interval", "observed", "error", "hit"),
            [
                (
                    name,
                    f"{o.forecast:,.4g}",
                    f"[{o.low:,.4g}, {o.high:,.4g}]",
                    f"{o.observed:,.4g}",
                    f"{o.error:+.1%}",
                    o.hit,
                )
                for name, o in outcomes
            ],
        )
        console.print_table(
            ("baseline", "loss", "error", "forecast is nearer"),
            [
                (name.replace("_", " "), f"{r.forecast:.4g}", f"{r.error:+.1%}", r.beaten)
                for name, r in found.baselines.items()
            ],
        )
        console.show(f"forecast of {found.forecast_created}, {found.forecast_sha256[:16]}")
        for warning in found.warnings:
            console.say(f"warning: {warning}")
    if strict and not found.hit:
        sys.exit(1)


@click.command("plot")
@click.argument("fit_file", metavar="FIT", type=FILE)
@click.option(
    "--forecast", "forecasts", type=FILE, multiple=True, help="Forecast to draw. Repeatable."
)
@click.option("--out", type=FILE, required=True, help="Folder for the figures.")
def plot_command(fit_file: Path, forecasts: tuple[Path, ...], out: Path) -> None:
    """Draw the figures of a fit, as SVG and PNG.

    They show profiles, optima, frontiers and residuals.

    \b
    Example: nhzoo plot fit.json --forecast forecast.json --out figures
    """
    from nhzoo.scaling.fitting import read_fit
    from nhzoo.scaling.forecasting import read_forecast
    from nhzoo.scaling.plots import plot_fit

    for path in plot_fit(read_fit(fit_file), out, [read_forecast(f) for f in forecasts]):
        console.show(str(path))


def policy_cost_of(rows: list[RunRow]) -> Cost:
    """The exact cost of our policies."""
    from nhzoo.scaling.cost import policy_cost  # torch

    return policy_cost(rows)


def named_cost(text: str, rows: list[RunRow]) -> Cost | None:
    """The cost that an option names; None for what the rows show."""
    from nhzoo.scaling import cost as training_cost

    if text == "rows":
        return None
    if text == "nhzoo":
        return policy_cost_of(rows)
    if text == "auto":
        if not rows or any(row.flop_model_hash is None for row in rows):
            return None
        from nhzoo.scaling.cost import is_ours  # torch

        return policy_cost_of(rows) if is_ours(rows) else None
    try:
        factor = float(text)
    except ValueError:
        factor = float("nan")
    if not 0 < factor < float("inf"):
        raise InputError(f"--cost {text}: give auto, rows, nhzoo or a number larger than zero")
    return training_cost.proportional(factor)


def _show_fit(fitted: Fit) -> None:
    points = fitted.points
    console.show(
        f"{len(points)} of {len(points) + len(fitted.others)} rows, "
        f"{sum(b.status == 'used' for b in fitted.budgets)} of {len(fitted.budgets)} budgets, "
        f"window x{fitted.options['window']:g}; cost: {fitted.cost.origin}"
    )
    rows = []
    for law in fitted.laws:
        entry = fitted.estimates()[law.method]
        ten = 10 * fitted.largest
        rows.append(
            (
                law.method,
                _text(entry.get("exponent_params")),
                _text(entry.get("exponent_samples")),
                _interval(fitted.size(law.method, ten), ",.3g"),
                _interval(fitted.loss(law.method, ten), ".4g"),
                _text(entry.get("E")),
                f"{law.noise:.2%}",
            )
        )
    if rows:
        head = ("method", "N ~ C^", "D ~ C^", "N at 10x", "L at 10x", "E", "residuals")
        console.print_table(head, rows)
    shared = {law.common for law in fitted.laws if law.common.sd}
    for error in shared:
        console.show(f"error that all rows share: {error.sd:.1%}, by their {error.source}")
    if (floor := fitted.floor) is not None:
        ends = sorted((floor.loss_at_low, floor.loss_at_high))
        console.show(
            f"profile of E: {floor.value:.3g} [{floor.low:.3g}, {floor.high:.3g}], with which L at "
            f"10x is {ends[0]:.4g} to {ends[1]:.4g}"
        )
    for other in fitted.windows:
        exponents = (
            f"{_interval(value, '.3f')} ({name})"
            for name, value in (("vp", other.vp), ("parabola", other.parabola))
        )
        console.show(f"window x{other.window:g}: {other.points} rows, N ~ C^{', '.join(exponents)}")
    for ret in fitted.returns:
        console.show(
            f"return against {ret.of}: R ~ {'C' if ret.of == 'compute' else 'L'}^"
            f"{_interval(ret.slope_interval, '.3f')} ({ret.points} points, scatter {ret.tau:.0%})"
        )
    if fitted.intrinsic is not None:
        console.show(
            f"intrinsic performance: N ~ C^{_interval(fitted.intrinsic.exponent, '.3f')} "
            f"({fitted.intrinsic.points} points, residuals {fitted.intrinsic.residual_sd:.0%})"
        )
    if fitted.holdouts:
        console.print_table(
            (
                "held out",
                "times",
                "loss",
                "in",
                "surface",
                "frontier",
                "size",
                "in",
                "last size",
                "power law",
            ),
            [
                (
                    f"{h.flops:.3g}",
                    f"{h.factor:.3g}",
                    _percent(h.loss_error),
                    h.loss_hit,
                    _percent(h.surface_error),
                    _percent(h.frontier_error),
                    _percent(h.size_error),
                    h.size_hit,
                    _percent(h.last_size_error),
                    _percent(h.power_law_error),
                )
                for h in fitted.holdouts
            ],
        )
    for diagnostic in fitted.diagnostics:
        console.say(str(diagnostic))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1%}"


def _text(value: dict[str, float | None] | None) -> str:
    if value is None:
        return "-"
    if value["low"] is None:
        return f"{value['value']:.3g} -"
    return f"{value['value']:.3g} [{value['low']:.3g}, {value['high']:.3g}]"


def _interval(value: LawInterval | None, form: str) -> str:
    if value is None:
        return "-"
    return f"{value.value:{form}} [{value.low:{form}}, {value.high:{form}}]"


def _ends(interval: LawInterval) -> str:
    return f"[{interval.low:,.4g}, {interval.high:,.4g}]"
