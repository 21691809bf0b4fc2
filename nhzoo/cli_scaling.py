"""Commands of scaling laws: fit, forecast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nhzoo import display
from nhzoo.errors import InputError
from nhzoo.options import AS_JSON

if TYPE_CHECKING:
    from nhzoo.law_intervals import Interval
    from nhzoo.ledger import RunRow
    from nhzoo.scaling import Fit
    from nhzoo.training_cost import Cost

FILE = click.Path(path_type=Path)


@click.command("fit")
@click.argument("runs", type=FILE)
@click.option("-o", "--out", type=FILE, help="Write the fit there, for forecast and plots.")
@click.option(
    "--methods",
    default="vp,parabola",
    show_default=True,
    help="Of vp, parabola, huber, joint, argmin.",
)
@click.option("--only", default="*", show_default=True, help="Run ids to fit: sweep-*.")
@click.option("--flop-model", help="Fit rows with this flop_model_hash alone (none: without).")
@click.option(
    "--cost",
    default="auto",
    show_default=True,
    help="FLOPs a sample of a size: auto, rows, nhzoo, or a number k for k x params.",
)
@click.option("--window", default=8.0, show_default=True, help="Sizes within it of the best.")
@click.option(
    "--duplicates",
    type=click.Choice(["auto", "all", "best"]),
    default="auto",
    show_default=True,
    help="Rows of one size and budget: best learning rate and all seeds, all, or the best.",
)
@click.option("--checkpoints", is_flag=True, help="Take in rows of runs not yet at their end.")
@click.option("--interval", default=0.9, show_default=True, help="Of all intervals.")
@click.option("--resamples", default=400, show_default=True, help="Of the bootstrap.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@click.option("--holdout", default=3, show_default=True, help="Top budgets forecast as a test.")
@click.option("--strict", is_flag=True, help="Exit with 1 when a diagnostic is an error.")
@AS_JSON
def fit_command(
    runs: Path,
    out: Path | None,
    methods: str,
    cost: str,
    strict: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Fit scaling laws to a table of runs (CSV or JSONL), say how sure and what is wrong.

    \b
    Example: nhzoo fit training/runs.jsonl --only 'sweep-*' -o fit.json
    """
    from nhzoo import ledger, scaling

    rows = ledger.read_runs(runs)
    fitted = scaling.fit(
        rows,
        methods=tuple(name.strip() for name in methods.split(",") if name.strip()),
        cost=_cost(cost, rows, options["only"], options["flop_model"]),
        source=str(runs),
        **options,
    )
    if out is not None:
        scaling.write_fit(out, fitted)
    if as_json:
        display.print_json(fitted.as_json())
    else:
        _show_fit(fitted)
    if not fitted.laws:
        codes = ", ".join(sorted({d.code for d in fitted.errors}))
        display.say(f"nhzoo: {runs}: no law can be fitted ({codes})")
        sys.exit(1)
    if strict and fitted.errors:
        display.say(f"nhzoo: {runs}: {len(fitted.errors)} diagnostics are errors, and --strict")
        sys.exit(1)


@click.command("forecast")
@click.argument("fit_file", metavar="FIT", type=FILE)
@click.option("--flops", type=float, required=True, help="The budget, for example 1e15.")
@click.option("-o", "--out", type=FILE, help="Freeze the forecast there, under its hash.")
@click.option("--params", type=click.IntRange(1), help="Another size than the optimal one.")
@click.option("--data-limit", type=float, help="Unique samples (default: the most of the rows).")
@click.option("--force", is_flag=True, help="However far out, however often data is repeated.")
@AS_JSON
def forecast_command(
    fit_file: Path,
    flops: float,
    out: Path | None,
    params: int | None,
    data_limit: float | None,
    force: bool,
    as_json: bool,
) -> None:
    """The size, data, loss and return of a budget, with intervals, frozen before training.

    \b
    Example: nhzoo forecast fit.json --flops 1e14 -o forecast.json
    """
    from nhzoo.forecast import forecast, write_forecast
    from nhzoo.scaling import read_fit

    said = forecast(read_fit(fit_file), flops, params=params, data_limit=data_limit, force=force)
    if out is not None:
        write_forecast(out, said)
    if as_json:
        display.print_json(said.as_json())
        return
    head = ("", "forecast", f"{said.interval:.0%} interval")
    rows = [
        ("params", f"{said.params:,}", _ends(said.params_interval)),
        ("samples", f"{said.samples:,}", _ends(said.samples_interval)),
        ("loss", f"{said.loss.value:.4g}", _ends(said.loss)),
    ]
    if said.ret is not None:
        rows.append(("return", f"{said.ret.value:,.4g}", _ends(said.ret)))
    display.print_table(head, rows)
    display.show(
        f"{said.flops:.3g} FLOPs, {said.extrapolation:.3g} times the largest budget fitted"
    )
    if said.data_limit is not None:
        display.show(
            f"{said.data_limit.epochs:.2f} epochs of {said.data_limit.unique_samples:,.0f} samples"
        )
    for warning in said.warnings:
        display.say(f"warning: {warning}")


def _cost(text: str, rows: list[RunRow], only: str, flop_model: str | None) -> Cost | None:
    """The cost that an option names; None for what the rows show."""
    from fnmatch import fnmatchcase

    from nhzoo import training_cost

    if text == "rows":
        return None
    if text == "auto":
        mine = [r for r in rows if fnmatchcase(r.run_id, only)]
        named = {r.flop_model_hash for r in mine if flop_model in (None, r.flop_model_hash)}
        if not named or None in named or len(named) > 1:
            return None
        from nhzoo.publishing import _flop_model  # torch

        return nhzoo_cost(rows) if named == {_flop_model()} else None
    if text == "nhzoo":
        return nhzoo_cost(rows)
    try:
        factor = float(text)
    except ValueError:
        factor = float("nan")
    if not factor > 0 or factor == float("inf"):
        raise InputError(f"--cost {text}: give auto, rows, nhzoo or a number larger than zero")
    return training_cost.proportional(factor)


def nhzoo_cost(rows: list[RunRow]) -> Cost:
    """The exact cost of nhzoo's policies, optimizer included, at the rows' samples per update."""
    from statistics import median

    from nhzoo import training_cost
    from nhzoo.ledger import LedgerRow
    from nhzoo.policy import PolicyConfig

    updates = [r.batch * r.time * r.accumulate for r in rows if isinstance(r, LedgerRow)]
    return training_cost.from_function(
        lambda n: PolicyConfig.for_params(n).train_flops,
        10_000,
        500_000_000,
        per_update=lambda n: PolicyConfig.for_params(n).update_flops,
        samples_per_update=median(updates or [256]),
        origin="nhzoo's policies, every layer and the optimizer",
    )


def _show_fit(fitted: Fit) -> None:
    points = fitted.points
    display.show(
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
        display.print_table(head, rows)
    for ret in fitted.returns:
        display.show(
            f"return against {ret.of}: R ~ {'C' if ret.of == 'compute' else 'L'}^"
            f"{_interval(ret.slope_interval, '.3f')} ({ret.points} points, scatter {ret.tau:.0%})"
        )
    if fitted.holdouts:
        display.print_table(
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
        display.say(str(diagnostic))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1%}"


def _text(value: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value['value']:.3g} [{value['low']:.3g}, {value['high']:.3g}]"


def _interval(value: Interval | None, form: str) -> str:
    if value is None:
        return "-"
    return f"{value.value:{form}} [{value.low:{form}}, {value.high:{form}}]"


def _ends(interval: Interval) -> str:
    return f"[{interval.low:,.4g}, {interval.high:,.4g}]"
