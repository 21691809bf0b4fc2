"""Commands of sweeps: `sweep plan`, `sweep run`, `sweep measure`; `train next`."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path

import click

from nhzoo.cli.options import AS_JSON, DATASET, FOLDER, WORKERS
from nhzoo.cli.scaling.fit import FILE, named_cost, policy_cost_of, print_grades, show_optimum
from nhzoo.errors import InputError
from nhzoo.runtime import console


@click.group()
def sweep() -> None:
    """Plan, run and measure an isoFLOP grid of runs."""


@sweep.command("plan")
@click.option(
    "--budgets",
    required=True,
    help="Budgets in FLOPs: 1e12,3e12,1e13, or 5 of them as 1e12:1e14:5.",
)
@click.option(
    "--center",
    required=True,
    help="Optimal sizes: a fit's file, or PARAMS@FLOPS^EXPONENT: 100000@1e12^0.5.",
)
@click.option("--sizes", default=7, show_default=True, help="Number of sizes for each budget.")
@click.option("--step", default=2.0, show_default=True, help="Factor between neighbouring sizes.")
@click.option(
    "--data",
    type=DATASET,
    default="autoascend-monk-v1",
    show_default=True,
    help="Demonstrations to imitate.",
)
@click.option("--unique", type=float, help="Unique samples available, instead of those of --data.")
@click.option(
    "--cost",
    default="nhzoo",
    show_default=True,
    help="FLOPs per sample: nhzoo, or a number k for k x params (a trainer of your own).",
)
@click.option(
    "--rates", default="", help="Train each cell at so many times its learning rate: 0.5,1,2."
)
@click.option(
    "--optimum",
    "laws",
    type=FILE,
    multiple=True,
    help="Law of the best lr, batch or horizon that cells get (fit --optimum). Repeatable.",
)
@click.option(
    "--seeds", default=3, show_default=True, help="Seeds of the central size of two budgets."
)
@click.option("--ledger", type=FILE, help="Table of runs to estimate the speed from.")
@click.option("--prefix", default="sweep", show_default=True, help="Prefix of the run ids.")
@click.option("-o", "--out", type=FILE, help="File for the plan.")
@AS_JSON
def sweep_plan(
    budgets: str,
    center: str,
    sizes: int,
    step: float,
    data: str,
    unique: float | None,
    cost: str,
    rates: str,
    laws: tuple[Path, ...],
    seeds: int,
    ledger: Path | None,
    prefix: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Plan a grid of sizes around the optimum of each budget.

    The plan states the cost and the time of every run.

    \b
    Example: nhzoo sweep plan --budgets 1e12:1e14:5 --center 100000@1e12 -o plan.json
    """
    from nhzoo.scaling.fitting import read_fit
    from nhzoo.scaling.sweeps import plan as plans
    from nhzoo.scaling.sweeps.rates import read_rates
    from nhzoo.training.run_table import read_runs

    rows = read_runs(ledger) if ledger else []
    fitted = read_fit(Path(center)) if Path(center).exists() else None
    planned = plans.plan_sweep(
        plans.parse_budgets(budgets),
        plans.center_of_fit(fitted) if fitted else plans.center_of_text(center),
        named_cost(cost, rows) or policy_cost_of(rows),
        center_name=center,
        sizes=sizes,
        step=step,
        unique_samples=unique or (_frames(data) if cost == "nhzoo" else None),
        any_size=cost != "nhzoo",
        rows=rows,
        prefix=prefix,
        rates=plans.parse_rates(rates),
        seeds=seeds,
        laws=[read_rates(path) for path in laws],
    )
    if out is not None:
        plans.write_plan(out, planned)
    if as_json:
        console.print_json(planned.as_json())
        return
    console.print_table(
        ("run", "params", "FLOPs", "samples", "epochs", "minutes"),
        [
            (
                cell.run_id,
                cell.params,
                f"{cell.flops:.3g}",
                cell.samples,
                cell.epochs,
                None if cell.seconds is None else cell.seconds / 60,
            )
            for cell in planned.cells
        ],
    )
    time = "" if planned.seconds is None else f", {planned.seconds / 3600:.1f} hours one by one"
    console.show(f"{len(planned.cells)} runs, {planned.flops:.3g} FLOPs{time}")
    for flops in planned.budgets:
        sizes_left = len({cell.params for cell in planned.cells if cell.flops == flops})
        if sizes_left < 5:
            console.say(f"warning: too_few_sizes: {sizes_left} sizes are left at {flops:.3g}")
    for cell in planned.dropped:
        console.say(f"dropped: {cell.params:,} parameters at {cell.flops:.3g}: {cell.reason}")


@sweep.command("run")
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.option(
    "--ledger", type=FILE, required=True, help="Table of runs; runs that it has are done."
)
@click.option("--out", type=FOLDER, help="Folder for the zoo entries (not with --command).")
@click.option("--runs", type=FOLDER, required=True, help="Folder for the states of the runs.")
@click.option("--command", help="Train each cell with this command of yours, not with nhzoo.")
@click.option(
    "--data",
    type=DATASET,
    default="autoascend-monk-v1",
    show_default=True,
    help="Demonstrations to imitate.",
)
@click.option("--validation", default="", help="As for train bc.")
@click.option("--jobs", default=1, show_default=True, help="Runs at the same time on this machine.")
@click.option("--cluster", help="Address of a Ray cluster to run on, or auto.")
@click.option("--threads", default=1, show_default=True, help="CPU threads of each run.")
@click.option(
    "--temperature", default=1.0, show_default=True, help="Sampling temperature of the agents."
)
@click.option("--budget", type=float, help="Run only the cells of this budget.")
@WORKERS
@AS_JSON
def sweep_run(
    plan_file: Path,
    ledger: Path,
    out: Path | None,
    runs: Path,
    command: str | None,
    data: str,
    validation: str,
    jobs: int,
    cluster: str | None,
    threads: int,
    temperature: float,
    budget: float | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Train the runs of a plan that the ledger lacks.

    Run again to resume. --command is for any trainer: {params}, {samples}, {flops}, {seed}, {lr},
    {batch} and {horizon} in it are what the plan asks for, {row} is the JSON file that it writes
    its row to (at least a loss), {folder} one that it may keep its state in.

    \b
    Example: nhzoo sweep run plan.json --ledger runs.jsonl --out entries --runs runs --jobs 2
             nhzoo sweep run plan.json --ledger runs.jsonl --runs runs --command
             'python train.py --size {params} --samples {samples} --seed {seed} --row {row}'
    """
    from nhzoo.cli.data import packed_games
    from nhzoo.policy.checkpoint import Sampling
    from nhzoo.scaling.sweeps.commands import Command, run_commands
    from nhzoo.scaling.sweeps.plan import read_plan
    from nhzoo.scaling.sweeps.running import Recipe, run_sweep
    from nhzoo.training.run_table import RunRow

    if bool(out) == bool(command):
        raise InputError("give either --out for the entries, or --command")
    if jobs < 1 or threads < 1:
        raise InputError("--jobs and --threads must be at least 1")
    Sampling(temperature)  # a wrong one is refused now, not when the first run has ended
    recipe = Recipe(data, str(runs.resolve()), temperature, threads, workers or 1, validation)
    plan = read_plan(plan_file)
    if budget is not None:
        plan = replace(plan, cells=tuple(cell for cell in plan.cells if cell.flops == budget))
        if not plan.cells:
            raise InputError(
                f"--budget {budget:g}: the plan has {', '.join(map(str, plan.budgets))}"
            )
    if not cluster and not command:
        for source in {data, validation or data}:  # with its progress shown
            packed_games(source, None, workers)
    with console.LiveProgress(f"sweep {plan.prefix}", "runs") as bar:
        done = 0

        def note(row: RunRow) -> None:
            nonlocal done
            done += 1
            bar.update(done, len(plan.cells), f"{row.run_id}: loss {row.loss:.4f}")

        if command:
            given = Command(command, recipe.folder)
            rows = run_commands(plan, given, ledger, jobs, cluster, note)
        else:
            assert out is not None
            rows = run_sweep(plan, recipe, ledger, out, jobs, cluster, note)
    if as_json:
        console.print_json({"runs": [asdict(row) for row in rows]})
        return
    console.print_table(
        ("run", "parameters", "FLOPs", "samples", "loss"),
        [
            (r.run_id, f"{r.params:,}", f"{r.flops:.3g}", f"{r.samples:,}", f"{r.loss:.4f}")
            for r in rows
        ],
    )


@sweep.command("measure")
@click.argument("ledger", metavar="RUNS", type=FILE)
@click.option(
    "--only", default="*", show_default=True, help="Pattern of the run ids to measure: sweep-*."
)
@click.option(
    "--entries", type=FOLDER, required=True, help="Folder with the zoo entries of the runs."
)
@click.option("--data", required=True, help="Demonstrations, or a result folder of the expert.")
@click.option("--split", help="Use only this split.")
@click.option("--games", "most", type=click.IntRange(1), help="Use only the first N games.")
@click.option("--steps", type=click.IntRange(1), help="Use only each game's first N steps.")
@click.option("--results", type=FOLDER, help="Folder of results as RUN/PROTOCOL, for the returns.")
@click.option(
    "--protocol", default="monk-lite-v1", show_default=True, help="Protocol of those results."
)
@click.option("-o", "--out", type=FILE, required=True, help="New table; runs that it has are done.")
@WORKERS
def sweep_measure(
    ledger: Path,
    only: str,
    entries: Path,
    data: str,
    split: str | None,
    most: int | None,
    steps: int | None,
    results: Path | None,
    protocol: str,
    out: Path,
    workers: int | None,
) -> None:
    """Measure finished runs on other games, and their returns.

    A loss over many games has less noise than one over the few games that training holds out.
    That of the first 20,000 steps of each says more of play: most clones die within them.

    \b
    Example: nhzoo sweep measure runs.jsonl --only 'sweep-*' --entries build/sweep
             --data autoascend-monk-validation --steps 20000 -o measured.jsonl
    """
    from nhzoo.cli.data import packed_games
    from nhzoo.scaling.sweeps.measuring import last_rows, measure_runs
    from nhzoo.training.run_table import LedgerRow, append_row, read_runs, write_rows

    if out.exists() and out.samefile(ledger):
        raise InputError(f"-o {out}: is the table of runs itself; give another file")
    rows = last_rows(read_runs(ledger), only)
    games = packed_games(data, split, workers, most)
    have = read_runs(out) if out.exists() else []
    done = {row.run_id: row for row in have if isinstance(row, LedgerRow)}

    def note(row: LedgerRow) -> None:
        append_row(out, row)
        console.say(f"{row.run_id}: loss {row.loss:.4f} +- {row.loss_se or 0:.4f}")

    found = measure_runs(
        *(rows, entries, games, results, protocol, workers or os.cpu_count() or 1, done, note),
        steps=steps,
    )
    names = {row.run_id for row in found}
    write_rows(out, [*(row for row in done.values() if row.run_id not in names), *found])
    console.show(f"{out}: {len(found)} runs")


@sweep.command("rates")
@click.argument("runs", metavar="RUNS", type=FILE)
@click.option("--only", default="*", show_default=True, help="Pattern of the run ids to take.")
@click.option("--grade", "frozen", type=FILE, help="A frozen law to hold against these runs.")
@click.option("-o", "--out", type=FILE, help="New file that the law is frozen in.")
@AS_JSON
def sweep_rates(
    runs: Path, only: str, frozen: Path | None, out: Path | None, as_json: bool
) -> None:
    """Fit the law of the best learning rate, or grade one.

    The runs are cells, one size at one budget each, trained at three rates or more: see sweep plan
    --rates.

    \b
    Example: nhzoo sweep rates runs.jsonl -o rates.json
             nhzoo sweep rates larger.jsonl --grade rates.json
    """
    from nhzoo.scaling.sweeps import rates
    from nhzoo.training.run_table import read_runs

    if frozen and out:
        raise InputError("give either --grade or -o")
    rows = [row for row in read_runs(runs) if fnmatchcase(row.run_id, only)]
    if frozen:
        grades = rates.grade_rates(rates.read_rates(frozen), rows, str(runs))
        if as_json:
            console.print_json({"grades": [asdict(g) | {"hit": g.hit} for g in grades]})
            return
        print_grades(grades)
        return
    show_optimum(rates.fit_rates(rows, str(runs)), out, as_json)


@sweep.command("next")
@click.argument("fit_file", metavar="FIT", type=FILE)
@click.option("--flops", type=float, required=True, help="FLOPs to spend on the runs in all.")
@click.option("--runs", default=12, show_default=True, help="Most runs.")
@click.option(
    "--target", type=float, help="Budget of the forecast (default: 10 times the largest fitted)."
)
@click.option(
    "--tighten",
    default="both",
    show_default=True,
    help="What of the forecast to tighten: size, loss or both.",
)
@click.option("--budgets", default="", help="Budgets that may be added, as for sweep plan.")
@click.option("--prefix", default="next", show_default=True, help="Prefix of the run ids.")
@click.option("-o", "--out", type=FILE, help="File for the plan, which sweep run trains.")
@AS_JSON
def sweep_next(
    fit_file: Path,
    flops: float,
    runs: int,
    target: float | None,
    tighten: str,
    budgets: str,
    prefix: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Plan the runs that tighten a forecast most for their FLOPs.

    Train them with sweep run, into the table of the fit's own runs, and fit again.

    \b
    Example: nhzoo sweep next fit.json --flops 2e13 -o next.json
    """
    from nhzoo.scaling.fitting import read_fit
    from nhzoo.scaling.sweeps import designs, plan

    fitted = read_fit(fit_file)
    found = designs.next_runs(
        fitted,
        flops,
        target=target,
        runs=runs,
        tighten=tighten,
        budgets=plan.parse_budgets(budgets) if budgets else (),
        prefix=prefix,
    )
    if out is not None:
        plan.write_plan(out, found.plan)
    if as_json:
        steps = {"now": asdict(found.now), "after": [asdict(step) for step in found.after]}
        console.print_json({"plan": found.plan.as_json(), "expected": steps})
        return
    console.print_table(
        ("run", "params", "FLOPs", "samples", "seed"),
        [(c.run_id, c.params, f"{c.flops:.3g}", c.samples, c.seed) for c in found.plan.cells],
    )
    end = found.after[-1]
    console.show(
        f"{len(found.plan.cells)} runs, {found.plan.flops:.3g} FLOPs; the forecast's standard "
        f"errors at {end.flops:.3g} FLOPs: size {found.now.size:.1%} now, {end.size:.1%} with them,"
        f" loss {found.now.loss:.2%} now, {end.loss:.2%} with them"
    )
    console.say(
        f"note: fit again with --window {2 * fitted.options['window']:g}, so that sizes far from "
        "the best count when the best one moves"
    )


@sweep.command("score")
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.argument("fit_file", metavar="FIT", type=FILE)
@click.option(
    "--target", type=float, help="Budget of the forecast (default: 10 times the largest fitted)."
)
@AS_JSON
def sweep_score(plan_file: Path, fit_file: Path, target: float | None, as_json: bool) -> None:
    """Say what a plan would do for a forecast before it is run.

    FIT gives the surface, the scatter of runs and the runs there are. The errors are of the
    surface's forecast, as far as its form is right.

    \b
    Example: nhzoo sweep score plan.json fit.json
    """
    from nhzoo.scaling.fitting import read_fit
    from nhzoo.scaling.sweeps import designs, plan

    found = designs.score(plan.read_plan(plan_file), read_fit(fit_file), target)
    if as_json:
        console.print_json(asdict(found))
        return
    lines = {
        "the fit now": found.now,
        "with this plan": found.after,
        "this plan alone": found.alone,
        "with the runs of sweep next": found.best,
    }
    console.print_table(
        ("forecast by", "error of the size", "error of the loss"),
        [
            (name, f"{line.size:.1%}", f"{line.loss:.2%}") if line else (name, None, None)
            for name, line in lines.items()
        ],
    )
    console.show(
        f"{found.runs} runs, {found.spent:.3g} FLOPs; standard errors at {found.now.flops:.3g}"
    )
    if found.alone is None:
        console.say(
            "note: the plan alone carries no surface, which takes 3 budgets and 3 sizes at least"
        )


def _frames(data: str) -> float:
    """Frames of a dataset's training split."""
    from nhzoo.data.catalog import open_demonstrations
    from nhzoo.data.traces import TraceSet

    found = open_demonstrations(data)
    if not isinstance(found, TraceSet):
        raise InputError(f"--data {data}: does not say how many frames it has; give --unique")
    return float(sum(trace.length for trace in found.traces if trace.split == "train"))
