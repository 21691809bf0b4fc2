"""Commands that train: `train bc`, `train next`, `train impala`."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nhzoo.cli.data import packed_games
from nhzoo.cli.options import AS_JSON, DATASET, FOLDER, WORKERS, config_options
from nhzoo.errors import InputError
from nhzoo.runtime import console
from nhzoo.training.config import BCConfig
from nhzoo.training.rl.config import ImpalaConfig
from nhzoo.training.run_table import RunRow, append_row

if TYPE_CHECKING:
    from nhzoo.scaling.forecasting import Forecast


def _outcome(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every training command shares: where the run and its entry go."""
    path = click.Path(path_type=Path)
    for option in (
        click.option("--ledger", type=path, help="Table of runs to append the run's rows to."),
        click.option("--out", type=FOLDER, required=True, help="Folder for the trained zoo entry."),
        click.option(
            "--run",
            "--run-folder",  # torchrun takes --run for an abbreviation of an option of its own
            "folder",
            type=FOLDER,
            required=True,
            help="Folder for the state and logs of the run.",
        ),
        click.option("--description", default="", help="One line for nhzoo list."),
        click.option(
            "--patience",
            default=0,
            show_default=True,
            help="Double the temperature after this many screens without a game turn; 0: never.",
        ),
        click.option(
            "--min-p",
            default=0.0,
            show_default=True,
            help="Never choose actions less probable than this times the most probable one.",
        ),
        click.option(
            "--temperature",
            default=1.0,
            show_default=True,
            help="Sampling temperature of the agent.",
        ),
    ):
        command = option(command)
    return command


_LOADERS = click.option(
    "--loaders",
    type=click.IntRange(0, 1024),
    help="Processes that read data (default: for a GPU one less than there are cores, else none).",
)


@click.group()
def train() -> None:
    """Train one agent. Run again to resume."""


@train.command("bc")
@click.option(
    "--data",
    type=DATASET,
    default="autoascend-monk-v1",
    show_default=True,
    help="Demonstrations to imitate.",
)
@config_options(BCConfig)
@_LOADERS
@_outcome
@WORKERS
@AS_JSON
def train_bc(
    data: str,
    temperature: float,
    min_p: float,
    patience: int,
    description: str,
    folder: Path,
    out: Path,
    ledger: Path | None,
    workers: int | None,
    loaders: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Clone behaviour from demonstrations within a budget.

    The budget is in FLOPs or minutes. Run again with the same options to resume after Ctrl-C or a
    crash. In several processes (with --run-folder instead of --run):
    torchrun --standalone --nproc-per-node 2 -m nhzoo train bc ...

    \b
    Example: nhzoo train bc --params 100000 --flops 1e12 --run runs/100k --out agents/my-100k
    """
    from nhzoo.policy.checkpoint import Sampling
    from nhzoo.training import distributed
    from nhzoo.training.outputs import train_and_publish

    with distributed.joined():
        config = BCConfig(data=data, **options)
        sampling = Sampling(temperature, patience, min_p)
        games, held_out = distributed.local_first(
            lambda: (
                packed_games(data, "train", workers),
                packed_games(config.validation or data, "validation", workers),
            ),
            "packed",
        )
        with _progress(out.name) as bar:
            row = train_and_publish(
                config,
                games,
                held_out,
                folder,
                out,
                sampling,
                _command(distributed),
                description,
                append=_appender(ledger),
                progress=lambda report: bar.update(*_training_note(report)),
                say=console.say,
                loaders=loaders,
            )
    if row is None:
        return
    if as_json:
        console.print_json(asdict(row))
    else:
        console.show(f"{out}: held-out loss {row.loss:.4f}, accuracy {row.accuracy:.1%}")


@train.command("next")
@click.argument("forecast_file", metavar="FORECAST", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=DATASET,
    default="autoascend-monk-v1",
    show_default=True,
    help="Demonstrations to imitate.",
)
@config_options(BCConfig, without=("params", "flops", "minutes"))
@_LOADERS
@click.option("--command", help="Train it with this command of yours, as for sweep run.")
@_outcome
@WORKERS
@AS_JSON
@click.pass_context
def train_next(
    context: click.Context, /, forecast_file: Path, command: str | None, **options: Any
) -> None:
    """Train the agent that a forecast names.

    The forecast gives its size and its FLOPs; all else is as for train bc, by default its rules,
    which the forecast's runs followed. With --command your own trainer is run instead, and --out
    only names the run. Then grade the forecast: nhzoo grade FORECAST TABLE:RUN.

    \b
    Example: nhzoo train next forecast.json --run runs/next --out agents/next --ledger runs.jsonl
    """
    from nhzoo.policy.config import flop_model
    from nhzoo.scaling.forecasting import read_forecast

    forecast = read_forecast(forecast_file)
    if forecast.kind != "bc":
        raise InputError(f"{forecast_file}: is of kind {forecast.kind}; train next trains bc")
    if not command and forecast.flop_model not in (None, flop_model()):
        raise InputError(
            f"{forecast_file}: counts FLOPs by another model ({forecast.flop_model}, here "
            f"{flop_model()}); fit and forecast again from runs of this version"
        )
    console.say(
        f"forecast {forecast.sha256[:16]}: {forecast.params:,} parameters, "
        f"{forecast.flops:.3g} FLOPs, loss "
        f"{forecast.loss.value:.4f} [{forecast.loss.low:.4f}, {forecast.loss.high:.4f}]"
    )
    if command:
        _train_with(command, forecast, options)
    else:
        context.invoke(train_bc, params=forecast.params, flops=forecast.flops, **options)


def _train_with(command: str, forecast: Forecast, options: dict[str, Any]) -> None:
    """Run a trainer of the user's for what a forecast names; its row goes to the ledger."""
    from nhzoo.scaling.sweeps.commands import Command, run_next

    given = Command(command, str(options["folder"].resolve()))
    row = run_next(forecast, given, options["out"].name, options["seed"])
    _appender(options["ledger"])(row)
    if options["as_json"]:
        console.print_json(asdict(row))
    else:
        console.show(f"{row.run_id}: held-out loss {row.loss:.4f}")


@train.command("impala")
@config_options(ImpalaConfig)
@_outcome
@WORKERS
@AS_JSON
def train_impala(
    demonstrations: str,
    temperature: float,
    min_p: float,
    patience: int,
    description: str,
    folder: Path,
    out: Path,
    ledger: Path | None,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train by playing (IMPALA), from scratch or from a clone.

    Run again to resume, also with more --steps or another number of actors.

    \b
    Example: nhzoo train impala --params 100000 --steps 5e6 --actors 2 --run runs/i --out agents/i
    """
    from nhzoo.policy.checkpoint import Sampling
    from nhzoo.training import distributed
    from nhzoo.training.rl.training import train_and_publish

    config = ImpalaConfig(demonstrations=demonstrations, **options)
    sampling = Sampling(temperature, patience, min_p)
    games = packed_games(demonstrations, "train", workers) if demonstrations else []
    with _progress(out.name) as bar:
        row = train_and_publish(
            config,
            games,
            folder,
            out,
            sampling,
            _command(distributed),
            description,
            append=_appender(ledger),
            progress=lambda report: bar.update(*_playing_note(report)),
            say=console.say,
        )
    if as_json:
        console.print_json(asdict(row))
    else:
        score = "no game ended" if row.mean_return is None else f"{row.mean_return:,.1f}"
        console.show(f"{out}: mean score of the latest {row.n_episodes} games {score}")


@contextlib.contextmanager
def _progress(name: str) -> Iterator[console.LiveProgress]:
    """The bar of a training; where that is stopped, and has been saved, the command ends."""
    from nhzoo.training.loop import Interrupted

    with console.LiveProgress(f"train {name}", "updates") as bar:
        try:
            yield bar
        except Interrupted as stop:
            console.say(str(stop))
            sys.exit(130)


def _appender(table: Path | None) -> Callable[[RunRow], object]:
    """What appends a row to a table of runs; nothing, where there is none."""
    return partial(append_row, table) if table else lambda row: None


def _playing_note(state: Any) -> tuple[float, float, str]:
    score = f"score {state.metrics['score']:,.1f}  " if "score" in state.metrics else ""
    learnt = "nothing is learnt yet  "
    if state.loss is not None:
        learnt = f"loss {state.loss:.3f}  entropy {state.metrics['entropy']:.2f}  "
    note = (
        f"{score}{learnt}lag {state.metrics['lag']:.1f}  {state.frames:.2e} steps  "
        f"{state.frames_per_second:,.0f} steps/s"
    )
    return state.update, state.updates, note


def _command(distributed: Any) -> str:
    words = ["nhzoo", *sys.argv[1:]]
    world, machines = distributed.world(), distributed.machines()
    if world > 1:
        nodes = ["--standalone"] if machines == 1 else ["--nnodes", str(machines)]
        words = ["torchrun", *nodes, "--nproc-per-node", str(world // machines), "-m", *words]
    return shlex.join(words)


def _training_note(state: Any) -> tuple[float, float, str]:
    left = ""
    if state.updates:
        left = f"of {state.flops / state.update * state.updates:.1e} "
    held_out = f"  held-out {state.validation.loss:.3f}" if state.validation else ""
    note = (
        f"loss {state.loss:.3f}{held_out}  {state.flops:.2e} {left}FLOPs  "
        f"{state.frames_per_second:,.0f} frames/s"
    )
    return state.update, state.updates or state.update, note
