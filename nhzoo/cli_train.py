"""Commands that train: `train bc`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from nhzoo import display
from nhzoo.cli_data import packed_games
from nhzoo.options import AS_JSON, FOLDER, WORKERS


@click.group()
def train() -> None:
    """Train one agent; run again to resume."""


@train.command("bc")
@click.option("--data", default="autoascend-monk-v1", show_default=True, help="Demonstrations.")
@click.option("--params", type=int, required=True, help="Parameters, all counted.")
@click.option("--flops", type=float, help="Budget in exact training FLOPs, for example 2e13.")
@click.option("--minutes", type=float, help="Budget in minutes instead.")
@click.option("--batch", default=4, show_default=True, help="Games in an update.")
@click.option("--time", default=64, show_default=True, help="Steps in an update.")
@click.option("--streams", default=512, show_default=True, help="Games open at once.")
@click.option("--lr", default=2e-3, show_default=True, help="Peak learning rate.")
@click.option("--warmup", default=100, show_default=True, help="Updates of warm-up.")
@click.option("--weight-decay", default=0.01, show_default=True, help="AdamW's.")
@click.option(
    "--seed", default=0, show_default=True, help="Decides the start and the data's order."
)
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--dropout", default=0.0, show_default=True, help="Of what the encoders give.")
@click.option("--temperature", default=1.0, show_default=True, help="At which the agent samples.")
@click.option("--description", default="", help="A line for `nhzoo list`.")
@click.option("--run", "folder", type=FOLDER, required=True, help="State and logs of the run.")
@click.option("--out", type=FOLDER, required=True, help="Where the zoo entry goes.")
@click.option(
    "--ledger", type=click.Path(path_type=Path), help="Add the run's row to this table of runs."
)
@WORKERS
@AS_JSON
def train_bc(
    data: str,
    temperature: float,
    description: str,
    folder: Path,
    out: Path,
    ledger: Path | None,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Behavioural cloning on demonstrations, within a FLOPs or time budget.

    Run again with the same options to resume after Ctrl-C or a crash.

    \b
    Example: nhzoo train bc --params 100000 --flops 1e12 --run runs/100k --out agents/my-100k
    """
    from nhzoo import bc
    from nhzoo.checkpoints import Sampling

    config = bc.BCConfig(data=data, **options)
    Sampling(temperature)
    training = packed_games(data, "train", workers)
    validation = packed_games(data, "validation", workers)
    with display.LiveProgress(f"train {out.name}", "updates") as bar:
        try:
            trained = bc.train(
                config, training, validation, folder, lambda p: bar.update(*_training_note(p))
            )
        except bc.Interrupted as stop:
            display.say(str(stop))
            sys.exit(130)
    command = shlex.join(["nhzoo", *sys.argv[1:]])
    row = bc.publish(trained, out, training, validation, temperature, description, command, ledger)
    if as_json:
        display.print_json(row)
    else:
        display.show(f"{out}: held-out loss {row['loss']:.4f}, accuracy {row['accuracy']:.1%}")


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
