"""The command line: parse, call the library, print. Heavy imports wait for the command."""

from __future__ import annotations

import json
import shlex
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nhzoo import __version__, display
from nhzoo.errors import CheckFailed, InputError, NhzooError
from nhzoo.protocols import PROTOCOLS

AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
WORKERS = click.option("--workers", type=click.IntRange(1), help="Processes (default: all cores).")
OUT = click.Path(file_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nhzoo")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Neural NetHack agents, and knowing how they scale."""


@cli.command("list")
@AS_JSON
def list_command(as_json: bool) -> None:
    """The agents that can be loaded by name.

    \b
    Example: nhzoo list
    """
    from nhzoo.registry import list_agents

    agents = list_agents()
    if as_json:
        rows = [{**asdict(a), "path": str(a.path) if a.path else None} for a in agents]
        display.print_json({"agents": rows})
    else:
        display.print_table(
            ("name", "parameters", "what it is"),
            [(a.name, a.params, a.description) for a in agents],
        )


@cli.command()
@click.argument("agent")
@AS_JSON
def info(agent: str, as_json: bool) -> None:
    """One zoo entry: sizes, training, held-out loss. Weights are not loaded.

    \b
    Example: nhzoo info bc-lstm-1m
    """
    from nhzoo import registry

    path = registry.find(agent) or (Path(agent) if Path(agent).is_dir() else None)
    if path is None:
        raise InputError(
            f"no entry {agent!r}; `nhzoo list` shows the entries (those with parameters)"
        )
    config = registry.read_config(path)
    if as_json:
        display.print_json({"name": path.name, "path": str(path), **config})
        return
    rows: list[tuple[str, Any]] = [("name", path.name), ("path", str(path))]
    for name, value in config.items():
        if isinstance(value, dict):
            rows += [(f"{name}.{inner}", _short(part)) for inner, part in value.items()]
        else:
            rows.append((name, _short(value)))
    display.print_table(("field", "value"), rows)


@cli.command()
@AS_JSON
def doctor(as_json: bool) -> None:
    """What this machine has and lacks for nhzoo.

    \b
    Example: nhzoo doctor
    """
    from nhzoo.doctor import examine

    findings = examine()
    if as_json:
        display.print_json(
            {"ok": all(f.ok for f in findings), "checks": [asdict(f) for f in findings]}
        )
    else:
        rows = [("ok" if f.ok else "MISSING", f.check, f.detail) for f in findings]
        display.print_table(("", "check", "detail"), rows)
    if not all(finding.ok for finding in findings):
        raise CheckFailed("something that nhzoo needs is missing; see above")


@cli.command()
@click.argument("agent")
@click.option("--protocol", default="smoke-v1", show_default=True, help="Whose game to play.")
@click.option("--episode", default=0, show_default=True, help="Which of its games.")
@click.option("--speed", default=8.0, show_default=True, help="Steps per second; 0: no waiting.")
@click.option("--max-steps", type=click.IntRange(1), help="Stop after this many steps.")
def watch(agent: str, protocol: str, episode: int, speed: float, max_steps: int | None) -> None:
    """Watch an agent play in this terminal, in colour. Ctrl-C stops.

    \b
    Example: nhzoo watch bc-lstm-1m --episode 3
    """
    from nhzoo.agents import load
    from nhzoo.protocols import get_protocol
    from nhzoo.watch import watch as play

    result = play(load(agent), get_protocol(protocol), episode, speed, max_steps)
    end = result.end_status or "stopped"
    display.say(f"{end} {result.cause}: score {result.score:,.0f} after {result.steps:,} steps")


@cli.command()
@click.argument("agent")
@click.option("--protocol", required=True, help=f"One of {', '.join(PROTOCOLS)}.")
@click.option("--episodes", type=int, help="Play only the first N games.")
@WORKERS
@click.option("--batch", default=16, show_default=True, help="Games at once in each worker.")
@click.option("--out", type=OUT, required=True, help="Result folder; run again to resume.")
@AS_JSON
def evaluate(
    agent: str,
    protocol: str,
    episodes: int | None,
    workers: int | None,
    batch: int,
    out: Path,
    as_json: bool,
) -> None:
    """Play a protocol's games and measure the agent.

    \b
    Example: nhzoo evaluate bc-lstm-1m --protocol monk-lite-v1 --out results/bc-lstm-1m
    """
    result = _evaluate(agent, protocol, episodes, workers, batch, out)
    if as_json:
        display.print_json(result)
    else:
        display.print_table(_SCORE_HEAD, [_score_row(result)])


@cli.command()
@click.argument("agent", default="bc-lstm-1m")
@click.option("--protocol", default="smoke-v1", show_default=True, help="What to play.")
@click.option("--out", type=OUT, required=True, help="Where the results go.")
@WORKERS
def demo(agent: str, protocol: str, out: Path, workers: int | None) -> None:
    """Evaluate an agent beside the random agent, and the expert's own games.

    \b
    Example: nhzoo demo bc-lstm-1m --out build/demo
    """
    from nhzoo.experts import expert_summary

    rows = []
    for name in (agent, "random"):
        result = _evaluate(name, protocol, None, workers, 16, out / Path(name).name)
        rows.append(_score_row(result))
    expert = expert_summary("autoascend-monk-v1")
    rows.append(
        (
            "AutoAscend",
            "reference: expert-monk",
            expert["episodes"],
            display.score_text(expert),
            expert["median_score"],
            None,
            expert["mean_turns"],
            None,
        )
    )
    display.print_table(_SCORE_HEAD, rows)
    display.say(
        "AutoAscend's figures are of the bundled expert games (100,000 steps at most), not of "
        f"{protocol}: a reference, not a comparison."
    )


@cli.command()
@click.argument("folder", type=OUT)
@WORKERS
@AS_JSON
def verify(folder: Path, workers: int | None, as_json: bool) -> None:
    """Replay every game of a result folder and compare all that it claims.

    \b
    Example: nhzoo verify results/bc-lstm-1m
    """
    from nhzoo.verification import verify as run

    with display.LiveProgress(f"verify {folder}", "games") as bar:
        report = run(folder, workers, lambda done, total: bar.update(done, total))
    if as_json:
        document = asdict(report)
        display.print_json(document | {"ok": report.ok})
    else:
        print(
            f"{report.agent} on {report.protocol}: {report.verified} of {report.episodes} verified"
        )
    for index in report.mismatched:
        display.say(f"game {index}: {report.reasons[index]}")
    for problem in report.problems:
        display.say(problem)
    if not report.ok:
        raise CheckFailed(f"{folder}: not reproduced")


@cli.command()
@click.argument("agent")
@click.option("--data", required=True, help="A dataset's name, a trace-set or an NLD folder.")
@click.option("--split", help="Only the games of this split (train, validation).")
@WORKERS
@AS_JSON
def loss(agent: str, data: str, split: str | None, workers: int | None, as_json: bool) -> None:
    """Cross-entropy (nats per key) and accuracy of an agent on demonstrations.

    Every key of every game counts; the state is carried from each game's first frame.

    \b
    Example: nhzoo loss bc-lstm-1m --data autoascend-monk-v1 --split validation
    """
    from nhzoo.agents import load
    from nhzoo.losses import measure_agent

    agent_object = load(agent)
    games = _packed(data, split, workers)
    with display.LiveProgress("loss", "frames") as bar:
        measured = measure_agent(agent_object, games, lambda frames, all_: bar.update(frames, all_))
    if as_json:
        display.print_json(asdict(measured))
    else:
        display.print_table(
            ("agent", "data", "loss", "accuracy", "frames", "games"),
            [(agent, data, measured.loss, measured.accuracy, measured.frames, measured.games)],
        )
    if measured.unscored:
        display.say(f"{measured.unscored:,} keys that no action presses were left out")


@cli.group()
def data() -> None:
    """Demonstrations: what there is, and packing it for training."""


@data.command("list")
@AS_JSON
def data_list(as_json: bool) -> None:
    """The datasets that the package carries.

    \b
    Example: nhzoo data list
    """
    from nhzoo.experts import dataset_row
    from nhzoo.traces import bundled_names

    rows = [dataset_row(name) for name in bundled_names()]
    if as_json:
        display.print_json({"datasets": rows})
    else:
        display.print_table(tuple(rows[0]), [tuple(row.values()) for row in rows])


@data.command("pack")
@click.argument("source")
@click.option("--split", help="Only the games of this split.")
@click.option(
    "--with",
    "extra",
    multiple=True,
    help="A further NLE observation to keep (glyphs, inv_glyphs, inv_letters, ...). Repeatable.",
)
@WORKERS
@AS_JSON
def data_pack(
    source: str, split: str | None, extra: tuple[str, ...], workers: int | None, as_json: bool
) -> None:
    """Replay or convert demonstrations into the packed frame cache, checking every game.

    SOURCE is a dataset's name, a trace-set folder or an NLD folder. Run again to go on.

    \b
    Example: nhzoo data pack autoascend-monk-v1
    """
    report = _pack(source, split, extra, workers)
    if as_json:
        display.print_json(
            {
                "folder": str(report.folder),
                "games": len(report.games),
                "frames": report.frames,
                "already_packed": report.already,
                "refused": report.refused,
            }
        )
    else:
        print(f"{report.folder}: {len(report.games)} games, {report.frames:,} frames")
    if report.refused:
        raise CheckFailed(f"{len(report.refused)} games were refused and left out")


@cli.group()
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
@click.option("--run", "folder", type=OUT, required=True, help="State and logs of the run.")
@click.option("--out", type=OUT, required=True, help="Where the zoo entry goes.")
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
    training = _packed(data, "train", workers)
    validation = _packed(data, "validation", workers)
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
        print(f"{out}: held-out loss {row['loss']:.4f}, accuracy {row['accuracy']:.1%}")


def main() -> None:
    """Entry point: errors made on purpose become one line and the contract's exit code."""
    debug = "--debug" in sys.argv[1:]
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        sys.exit(0)
    except click.ClickException as error:
        display.say(f"nhzoo: {error.format_message()} (see nhzoo --help)")
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        display.say("stopped; the same command goes on where it was")
        sys.exit(130)
    except NhzooError as error:
        if debug:
            display.say(getattr(error, "trace", "") or traceback.format_exc())
        display.say(f"nhzoo: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if debug:
            traceback.print_exc()
        display.say(f"nhzoo: {error.filename or 'a file'}: {error.strerror or error}")
        sys.exit(2)
    except Exception as error:
        if debug:
            traceback.print_exc()
        reason = str(error).splitlines()[0] if str(error) else "no message"
        display.say(f"nhzoo: {type(error).__name__}: {reason} (a bug? --debug shows where)")
        sys.exit(2)


_SCORE_HEAD = (
    "agent",
    "protocol",
    "games",
    "mean score [95 %]",
    "median",
    "progression %",
    "turns",
    "steps/s",
)


def _score_row(result: dict[str, Any]) -> tuple[Any, ...]:
    summary = result["summary"]
    return (
        result["agent"],
        result["protocol"],
        summary["episodes"],
        display.score_text(summary),
        summary["median_score"],
        100 * summary["mean_progression"],
        summary["mean_turns"],
        summary["env_steps_per_second"],
    )


def _evaluate(
    agent: str, protocol: str, episodes: int | None, workers: int | None, batch: int, out: Path
) -> dict[str, Any]:
    from nhzoo import evaluation

    def note(state: evaluation.Progress) -> None:
        mean = sum(state.scores) / len(state.scores) if state.scores else 0.0
        speed = state.steps / state.seconds if state.seconds else 0.0
        bar.update(state.done, state.total, f"mean score {mean:,.1f}  {speed:,.0f} steps/s")

    with display.LiveProgress(f"{agent} on {protocol}", "games") as bar:
        done = evaluation.evaluate(agent, protocol, episodes, workers, out, batch, note)
    return done.result


def _pack(source: str, split: str | None, extra: tuple[str, ...], workers: int | None) -> Any:
    from nhzoo import packing
    from nhzoo.frames import DEFAULT_FIELDS

    fields = tuple(dict.fromkeys((*DEFAULT_FIELDS, *extra)))
    with display.LiveProgress(f"pack {source}", "games") as bar:

        def note(report: packing.PackReport, games: int) -> None:
            done = report.already + report.packed + len(report.refused)
            bar.update(done, games, f"{report.frames:,} frames")

        report = packing.pack(source, fields, split, workers, progress=note)
    for game, reason in report.refused.items():
        display.say(f"refused {game}: {reason}")
    return report


def _packed(source: str, split: str | None, workers: int | None) -> list[Path]:
    """The packed games of a source, packing what is not there yet."""
    report = _pack(source, split, (), workers)
    if not report.games:
        which = f" in its split {split!r}" if split else ""
        raise InputError(f"{source}: no usable game{which}")
    games: list[Path] = report.games
    return games


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


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."
