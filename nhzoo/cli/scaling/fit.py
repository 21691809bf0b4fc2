"""The command `fit`: laws of a table of runs, and of its arms."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nhzoo.cli.options import AS_JSON
from nhzoo.errors import InputError
from nhzoo.runtime import console

if TYPE_CHECKING:
    from nhzoo.scaling.arms.comparing import ArmAt
    from nhzoo.scaling.cost import Cost
    from nhzoo.scaling.fitting import Fit
    from nhzoo.scaling.intervals import LawInterval
    from nhzoo.scaling.sweeps.rates import RateGrade, RateLaw
    from nhzoo.training.run_table import RunRow

FILE = click.Path(path_type=Path)


@click.command("fit")
@click.argument("runs", type=FILE)
@click.option("-o", "--out", type=FILE, help="File for the fit, which forecast and plot read.")
@click.option(
    "--methods",
    default="vp,parabola",
    show_default=True,
    help="Methods, of vp, parabola, cubic, coupled, huber, joint, argmin.",
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
@click.option(
    "--optimum",
    type=click.Choice(["lr", "batch", "horizon"]),
    help="Fit the law of the best value of this column instead, and freeze it with -o.",
)
@click.option("--by", help="Compare the arms that this column names, such as the architecture.")
@click.option("--baseline", help="With --by: arm to compare with (default: the table's first).")
@click.option("--at", help="With --by: budgets to compare at, such as 1e13,1e14.")
@click.option("--figure", type=FILE, help="With --by: figure to draw (.svg, .png or .pdf).")
@AS_JSON
def fit_command(
    runs: Path,
    out: Path | None,
    methods: str,
    cost: str,
    skip_incomplete: bool,
    strict: bool,
    optimum: str | None,
    by: str | None,
    baseline: str | None,
    at: str | None,
    figure: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Fit scaling laws to a table of runs.

    The table is CSV, JSON or JSON Lines. The fit has intervals, hold-outs and named diagnostics.
    With --by, a law is fitted to each arm, and the arms are compared at some budgets: which is
    best, by how much, and how much more compute the baseline would need. With --optimum, the law is
    of the best learning rate, batch or horizon, from cells trained at three values or more.

    \b
    Example: nhzoo fit training/runs.jsonl --only 'iso1*' -o fit.json
             nhzoo fit runs.csv --by architecture --at 1e15 --figure arms.svg
             nhzoo fit runs.csv --optimum batch -o batch.json
    """
    from nhzoo.scaling import fitting
    from nhzoo.training import run_table

    incomplete: list[str] | None = [] if skip_incomplete else None
    notes: list[str] = []
    if by and optimum:
        raise InputError("give either --by, which compares arms, or --optimum")
    if by is not None:
        tables = run_table.read_arms(runs, by, options["only"], incomplete, notes)
        _say_rows(notes, incomplete)
        shown = (by, baseline, at, figure)
        _compare(runs, tables, cost, out, as_json, *shown, options)
        return
    if baseline or at or figure:
        raise InputError("--baseline, --at and --figure go with --by, which names the arms")
    rows = run_table.read_runs(runs, incomplete, notes)
    _say_rows(notes, incomplete)
    if optimum is not None:
        from nhzoo.scaling.sweeps.rates import fit_rates

        some = [row for row in rows if fnmatchcase(row.run_id, options["only"])]
        show_optimum(fit_rates(some, str(runs), optimum), out, as_json)
        return
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
        console.say(
            f"nhzoo: {runs}: no law can be fitted ({codes}); each error above says what to add"
        )
        sys.exit(1)
    if strict and fitted.errors:
        console.say(f"nhzoo: {runs}: {len(fitted.errors)} diagnostics are errors, and --strict")
        sys.exit(1)


def show_optimum(law: RateLaw, out: Path | None, as_json: bool) -> None:
    """Print the law of a hyperparameter's best value, and freeze it in `out`."""
    from nhzoo.scaling.sweeps.rates import COLUMNS, write_rates

    if out:
        write_rates(out, law)
    for finding in law.diagnostics:
        console.say(str(finding))
    if as_json:
        console.print_json(law.as_json())
        return
    console.print_table(
        ("params", "samples", f"best {COLUMNS[law.column]}", "loss", "values"),
        [
            (
                *(f"{cell.params:,.0f}", f"{cell.samples:,.0f}", f"{cell.value:.3g}"),
                *(f"{cell.loss:.4f}", cell.rates),
            )
            for cell in law.cells
        ],
    )
    exponents = {name: law.parameter(name) for name in ("n", "d")}
    text = ", ".join(
        f"{'params' if name == 'n' else 'samples'}^{_interval(found, '.3f')}"
        for name, found in exponents.items()
        if found
    )
    console.show(f"{law.column} ~ {text}; the cells are {law.rms:.1%} about it")
    if law.holdouts:
        console.show("the largest budget, forecast from those below it:")
        print_grades(law.holdouts)


def print_grades(grades: Sequence[RateGrade]) -> None:
    """Print what a law said of cells beside what came; costs are shares of the loss."""
    console.print_table(
        ("params", "samples", "forecast", "[90 %]", "observed", "costs", "one for all", "hit"),
        [
            (
                *(f"{g.params:,.0f}", f"{g.samples:,.0f}", f"{g.forecast.value:.3g}"),
                *(f"[{g.forecast.low:.3g}, {g.forecast.high:.3g}]", f"{g.observed:.3g}"),
                *(f"{g.cost:+.2%}", f"{g.constant_cost:+.2%}", "yes" if g.hit else "no"),
            )
            for g in grades
        ],
    )


def _say_rows(notes: list[str], incomplete: list[str] | None) -> None:
    for line in notes:
        console.say(f"note: {line}")
    for line in incomplete or ():
        console.say(f"left out: {line}")


def _compare(
    runs: Path,
    tables: dict[str, list[RunRow]],
    cost: str,
    out: Path | None,
    as_json: bool,
    by: str,
    baseline: str | None,
    at: str | None,
    figure: Path | None,
    options: dict[str, Any],
) -> None:
    from nhzoo.runtime import files
    from nhzoo.scaling.arms.comparing import compare_arms
    from nhzoo.scaling.sweeps.plan import parse_budgets

    if figure is not None:
        from nhzoo.scaling.plots import check_figure

        check_figure(figure)
    names = ("window", "duplicates", "flop_model", "checkpoints", "metric", "interval", "seed")
    found = compare_arms(
        tables,
        column=by,
        baseline=baseline,
        budgets=parse_budgets(at, "--at") if at else (),
        cost=lambda rows: named_cost(cost, list(rows)),
        source=str(runs),
        **{name: options[name] for name in names},
    )
    if out is not None:
        files.atomic_write(out, files.dump_json(found.as_json()))
    if figure is not None:
        from nhzoo.scaling.arms.figures import plot_arms

        plot_arms(found, figure)
    for note in found.notes:
        console.say(f"note: {note}")
    if as_json:
        console.print_json(found.as_json())
        return
    for flops, lines in found.at.items():
        console.show(f"at {flops:.3g} FLOPs, {found.interval:.0%} intervals:")
        console.print_table(
            (by, "rows", "N ~ C^", "loss", f"against {found.baseline}", "P(best)", "compute gain"),
            [
                (
                    *(line.arm, found.rows[line.arm]),
                    _interval(found.exponents[line.arm], ".2f"),
                    _interval(line.loss, ".4g"),
                    _interval(line.difference, "+.2%"),
                    f"{line.best:.0%}",
                    "-" if line.difference is None else _gain(line),
                )
                for line in lines
            ],
        )
    for pairing in found.pairings:
        console.show(
            f"{' and '.join(pairing.arms)}: {pairing.pairs} paired runs, whose errors correlate "
            f"by {pairing.correlation:.2f}"
        )


def _gain(line: ArmAt) -> str:
    """x1.5 [1.2, 1.9]; words where the baseline may never reach the loss."""
    low = "0" if line.gain_low is None else f"{line.gain_low:.3g}"
    high = "no end" if line.gain_high is None else f"{line.gain_high:.3g}"
    value = "never reached" if line.gain is None else f"x{line.gain:.3g}"
    return f"{value} [{low}, {high}]"


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
