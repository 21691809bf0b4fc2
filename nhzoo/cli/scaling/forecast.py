"""Commands of fitted laws: `forecast`, `grade`, `plot`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nhzoo.cli.options import AS_JSON
from nhzoo.cli.scaling.fit import FILE
from nhzoo.errors import InputError
from nhzoo.runtime import console

if TYPE_CHECKING:
    from nhzoo.scaling.intervals import LawInterval


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
        ("loss of one run", f"{said.loss.value:.4g}", _ends(said.loss)),
    ]
    if said.mean_loss is not None:
        rows.append(("mean of such runs", f"{said.mean_loss.value:.4g}", _ends(said.mean_loss)))
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
@click.option(
    "--run",
    "trained",
    multiple=True,
    help="Run trained after its forecast, as TABLE:RUN_ID or zoo entry. Repeatable.",
)
@click.option("--out", type=FILE, required=True, help="Folder for the figures.")
def plot_command(
    fit_file: Path, forecasts: tuple[Path, ...], trained: tuple[str, ...], out: Path
) -> None:
    """Draw the figures of a fit, as SVG and PNG.

    They show profiles, optima, frontiers and residuals.

    \b
    Example: nhzoo plot fit.json --forecast forecast.json --out figures
             nhzoo plot fit.json --forecast forecast.json --run runs.jsonl:next --out figures
    """
    from nhzoo.scaling.fitting import read_fit
    from nhzoo.scaling.forecasting import read_forecast
    from nhzoo.scaling.grading import find_run
    from nhzoo.scaling.plots import plot_fit

    fitted, said = read_fit(fit_file), [read_forecast(path) for path in forecasts]
    flops = said[0].flops if said else fitted.largest
    runs = [find_run(name, flops) for name in trained]
    for path in plot_fit(fitted, out, said, runs):
        console.show(str(path))


def _ends(interval: LawInterval) -> str:
    return f"[{interval.low:,.4g}, {interval.high:,.4g}]"
