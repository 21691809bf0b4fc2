"""Commands that measure agents and inspect results: `evaluate`, `verify`, `report` and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nhzoo.cli.data import packed_games
from nhzoo.cli.options import AGENT, AS_JSON, DATASET, FILE, FOLDER, PROTOCOL, WORKERS
from nhzoo.envs.protocols import PROTOCOLS
from nhzoo.errors import CheckFailed
from nhzoo.runtime import console

if TYPE_CHECKING:
    from nhzoo.evaluation.expert import Normalized
    from nhzoo.evaluation.loss import LossSums
    from nhzoo.evaluation.statistics import Interval


@click.command()
@click.argument("agent", type=AGENT)
@click.option("--protocol", type=PROTOCOL, required=True, help=f"One of {', '.join(PROTOCOLS)}.")
@click.option("--episodes", type=int, help="Play only the first N games.")
@WORKERS
@click.option(
    "--batch",
    type=int,
    help="Games side by side in each worker (default: 64 for a network, else 16).",
)
@click.option("--shard", help="i/n: play only the games whose number is i modulo n.")
@click.option("--out", type=FOLDER, required=True, help="Result folder. Run again to resume.")
@AS_JSON
def evaluate(
    agent: str,
    protocol: str,
    episodes: int | None,
    workers: int | None,
    batch: int | None,
    shard: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Play the games of a protocol and measure the agent.

    \b
    Example: nhzoo evaluate bc-lstm-1m --protocol monk-lite-v1 --out results/bc-lstm-1m
    """
    result, rows = evaluate_games(agent, protocol, episodes, workers, batch, out, shard)
    _show(result, rows, as_json, out)


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--audit", "agent", type=AGENT, help="Also recompute every key with this agent.")
@click.option("--first", is_flag=True, help="Stop at the first game that differs.")
@WORKERS
@AS_JSON
def verify(
    folder: Path, agent: str | None, first: bool, workers: int | None, as_json: bool
) -> None:
    """Replay every game of a result and compare all it claims.

    With --audit AGENT, every key is also recomputed from that agent's weights. A game of a protocol
    has one legal trace, so an audit finds games of another player and the best of several tries.

    \b
    Example: nhzoo verify results/bc-lstm-1m --audit bc-lstm-1m
    """
    from nhzoo.evaluation.results import fault_lines
    from nhzoo.evaluation.verification import verify as run

    with console.LiveProgress(f"verify {folder}", "games") as bar:
        report = run(folder, workers, bar.update, first)
    audited = _audited(folder, agent, workers) if agent and report.ok else None
    if as_json:
        document = asdict(report) | {"ok": report.ok}
        if audited:
            ok = report.ok and audited.ok
            document |= {"audit": asdict(audited) | {"share": audited.share}, "ok": ok}
        console.print_json(document)
    else:
        console.show(
            f"{report.agent} on {report.protocol}: {report.verified} of {report.episodes} verified"
        )
    for line in fault_lines(report.faults, report.episodes):
        console.say(line)
    for index in report.mismatched:
        console.say(f"game {index}: {report.reasons[index]}")
    for problem in report.problems:
        console.say(problem)
    if not report.ok:
        raise CheckFailed(f"{folder}: not reproduced, or no score; see the lines above")
    if audited and not audited.ok:
        raise CheckFailed(f"{folder}: these are not the games that {agent} plays")


def _audited(folder: Path, agent: str, workers: int | None) -> Any:
    from nhzoo.evaluation.auditing import audit

    with console.LiveProgress(f"audit {folder}", "games") as bar:
        report = audit(folder, agent, workers, bar.update)
    rounded = "" if report.exact else f", {report.near:,} more by another machine's rounding"
    console.say(f"{report.matched:,} of {report.keys:,} keys are {report.agent}'s own{rounded}")
    for index, step in report.wrong.items():
        console.say(f"game {index}: {report.agent} presses another key at its step {step:,}")
    for problem in report.problems:
        console.say(problem)
    return report


@click.command()
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="New result folder.")
@AS_JSON
def merge(folders: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Join the shards of evaluate --shard i/n into one result.

    \b
    Example: nhzoo merge results/part-0 results/part-1 --out results/whole
    """
    from nhzoo.evaluation.results import merge as run
    from nhzoo.evaluation.results import read_episodes

    _show(run(folders, out), read_episodes(out), as_json, out)


@click.command()
@click.argument("agents", type=AGENT, metavar="AGENT...", nargs=-1, required=True)
@click.option(
    "--data", type=DATASET, required=True, help="Name or folder of a dataset, or a result folder."
)
@click.option("--split", help="Use only this split (train, validation).")
@click.option("--games", "most", type=click.IntRange(1), help="Use only the first N games.")
@click.option("--by-step", is_flag=True, help="Also by step of the game and kind of question.")
@click.option("--plot", type=FILE, help="Draw the loss by step into this SVG, PNG or PDF file.")
@WORKERS
@AS_JSON
def loss(
    agents: tuple[str, ...],
    data: str,
    split: str | None,
    most: int | None,
    by_step: bool,
    plot: Path | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Compute agents' cross-entropy on demonstrations.

    The loss is in nats per key, with the accuracy beside it. Every key of every game counts; the
    first 20,000 steps of each game are told apart, since most clones die within them. The agent's
    state is carried from the first frame of each game. --by-step also says how often the agent eats
    and prays where the expert does not: that kills clones.

    \b
    Example: nhzoo loss bc-lstm-1m --data autoascend-monk-v1 --split validation
    """
    from nhzoo.agents.loading import load
    from nhzoo.evaluation.loss import measure_parts
    from nhzoo.scaling.plots import check_figure, plot_loss_by_step

    if plot:
        check_figure(plot)
    loaded = {agent: load(agent) for agent in agents}
    games = packed_games(data, split, workers, most)
    found: dict[str, LossSums] = {}
    for name, agent in loaded.items():
        with console.LiveProgress(f"loss {name}", "frames") as bar:
            found[name] = measure_parts(agent, games, bar.update, questions=by_step)
    if plot:
        plot_loss_by_step(found, plot)
    if as_json:
        documents = [_loss_document(name, sums, by_step) for name, sums in found.items()]
        console.print_json(documents[0] if len(documents) == 1 else {"agents": documents})
    else:
        console.print_table(
            ("agent", "data", "loss", "+-", "first 20,000", "+-", "accuracy", "frames", "games"),
            [
                (
                    *(name, data, sums.whole.loss, sums.whole.loss_se),
                    *(sums.early.loss, sums.early.loss_se),
                    *(sums.whole.accuracy, sums.whole.frames, sums.whole.games),
                )
                for name, sums in found.items()
            ],
        )
        if by_step:
            _print_loss_by_step(found)
    unscored = max(sums.unscored for sums in found.values())
    if unscored:
        console.say(f"{unscored:,} keys were left out: of no action, or not to be learnt")


def _loss_document(name: str, sums: LossSums, by_step: bool) -> dict[str, Any]:
    document = {"agent": name} | asdict(sums.whole) | {"early": asdict(sums.early)}
    if by_step:
        document["by_step"] = [
            {"from": begin, "to": end} | asdict(part)
            for (begin, end), part in sums.by_step().items()
        ]
        document["by_question"] = [
            {"question": question} | asdict(part) for question, part in sums.by_question().items()
        ]
        document["by_command"] = [
            {"command": command} | asdict(part) for command, part in sums.by_command().items()
        ]
    return document


def _print_loss_by_step(found: Mapping[str, LossSums]) -> None:
    rows: list[tuple[Any, ...]] = []
    for name, sums in found.items():
        parts = {
            f"{begin:,} - {end:,}" if end else f"{begin:,} on": part
            for (begin, end), part in sums.by_step().items()
        }
        for where, part in (parts | sums.by_question()).items():
            share = f"{part.frames / sums.whole.frames:.2%}"
            rows.append((name, where, part.loss, part.loss_se, part.accuracy, part.frames, share))
    head = ("agent", "steps or question", "loss", "+-", "accuracy", "frames", "share")
    console.print_table(head, rows)
    console.print_table(
        ("agent", "command", "loss", "expert's presses", "agent's elsewhere, for each"),
        [
            (name, command, part.loss, part.presses, part.elsewhere)
            for name, sums in found.items()
            for command, part in sums.by_command().items()
        ],
    )


@click.command()
@click.argument("agent", type=AGENT)
@click.option(
    "--temperature", "temperatures", type=float, multiple=True, help="To try. Repeatable."
)
@click.option("--min-p", "cut_offs", type=float, multiple=True, help="To try. Repeatable.")
@click.option("--patience", "patiences", type=int, multiple=True, help="To try. Repeatable.")
@click.option("--games", type=int, default=256, show_default=True, help="Games for each.")
@click.option("--out", type=FOLDER, required=True, help="Folder of results. Run again to resume.")
@WORKERS
@AS_JSON
def tune(
    agent: str,
    temperatures: tuple[float, ...],
    cut_offs: tuple[float, ...],
    patiences: tuple[int, ...],
    games: int,
    out: Path,
    workers: int | None,
    as_json: bool,
) -> None:
    """Try ways of sampling, on games of no protocol.

    Every combination of the values given plays the same games, which belong to no protocol; what is
    not given stays as the entry has it. The entry's own way comes first, and the others are
    compared with it. Publish the one that wins with `train bc --temperature --min-p --patience`:
    run again, a finished run writes its entry anew.

    \b
    Example: nhzoo tune bc-lstm-1m --temperature 0.5 --temperature 0.65 --min-p 0.05 --out tuned
    """
    from nhzoo.agents.loading import load
    from nhzoo.evaluation import tuning
    from nhzoo.evaluation.evaluator import Progress
    from nhzoo.policy.checkpoint import Sampling

    entry = getattr(load(agent), "entry", None)
    own = entry.sampling if entry else Sampling()
    samplings = [own] + [
        other
        for temperature in temperatures or (own.temperature,)
        for min_p in cut_offs or (own.min_p,)
        for patience in patiences or (own.patience,)
        if (other := Sampling(temperature, patience, min_p)) != own
    ]

    def note(sampling: Sampling, state: Progress) -> None:
        before = samplings.index(sampling) * games
        mean = f"{sum(state.scores) / len(state.scores):,.1f}" if state.scores else "-"
        text = f"{tuning.label(sampling)}: mean score {mean}"
        bar.update(before + state.done, len(samplings) * games, text)

    with console.LiveProgress(f"tune {agent}", "games") as bar:
        tuned = tuning.tune(agent, samplings, games, out, workers, note)
    if as_json:
        console.print_json({"agent": agent, "games": games, "tuned": [asdict(t) for t in tuned]})
        return
    head = ("temperature", "min-p", "patience", "mean score [95 %]", "ahead of the first [95 %]")
    console.print_table(
        (*head, "median", "steps", "stalled", "most frequent ends"),
        [
            (
                f"{one.sampling.temperature:g}",
                f"{one.sampling.min_p:g}",
                one.sampling.patience,
                interval_text(one.mean_score),
                interval_text(one.ahead) if one.ahead else None,
                one.median_score,
                one.mean_steps,
                one.stalled,
                ", ".join(f"{cause.cause} {cause.share:.0%}" for cause in one.causes[:4]),
            )
            for one in tuned
        ],
        ("median", "steps"),
    )


_SCORES = ("games", "mean score [95 %]", "of AutoAscend's", "median", "progression %", "turns")
_SCORE_HEAD = ("agent", "protocol", *_SCORES, "steps/s", "crashed", "voided")
_OPTIONAL = ("median", "turns", "steps/s")
_ROLE_HEAD = ("role", *_SCORES, "deepest")


def say_faults(rows: Sequence[dict[str, Any]], name: str = "") -> None:
    """Games that did not end by being played, and why the first did not."""
    from nhzoo.evaluation import results

    for line in results.fault_lines(results.faults(rows), len(rows)):
        console.say(f"{name}: {line}" if name else line)


def print_scores(rows: Sequence[tuple[Any, ...]]) -> None:
    """A table of `score_row`s; how many games crashed or were voided only where any did."""
    shown = len(_SCORE_HEAD) - 2
    chosen = [*range(shown), *(i for i in (shown, shown + 1) if any(row[i] for row in rows))]
    console.print_table(
        [_SCORE_HEAD[i] for i in chosen],
        [tuple(row[i] for i in chosen) for row in rows],
        _OPTIONAL,
    )


def score_row(result: dict[str, Any], rows: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
    """The cells of a result in the table of scores."""
    from nhzoo.evaluation.expert import normalize_rows
    from nhzoo.evaluation.statistics import score_text

    summary = result["summary"]
    scored = summary["mean_score"] is not None
    return (
        result["agent"],
        result["protocol"],
        summary["episodes"],
        score_text(summary),
        _share(normalize_rows(rows)) if scored else None,
        summary["median_score"],
        100 * summary["mean_progression"] if scored else None,
        summary["mean_turns"],
        summary["env_steps_per_second"],
        summary["crashed"],
        summary["voided"],
    )


def _show(result: dict[str, Any], rows: Sequence[dict[str, Any]], as_json: bool, out: Path) -> None:
    """A result: what `result.json` holds, and what follows from its games beside it.

    CheckFailed when its games are no score.
    """
    from nhzoo.evaluation import results
    from nhzoo.evaluation.expert import by_role, normalize_rows

    if results.no_score(rows):
        if as_json:
            console.print_json(result | {"normalized": None, "roles": []})
        results.need_score(rows, out)
    say_faults(rows)
    roles = by_role(rows)
    if as_json:
        parts = [{**asdict(role), "normalized": share.as_json()} for role, share in roles]
        console.print_json(result | {"normalized": normalize_rows(rows).as_json(), "roles": parts})
        return
    print_scores([score_row(result, rows)])
    if len(roles) > 1:
        console.print_table(
            _ROLE_HEAD,
            [
                (
                    role.role,
                    role.games,
                    interval_text(role.mean_score),
                    _share(share),
                    role.median_score,
                    100 * role.mean_progression,
                    role.mean_turns,
                    role.max_depth,
                )
                for role, share in roles
            ],
        )


def _share(normalized: Normalized) -> str | None:
    ratio = normalized.ratio
    return interval_text(ratio, 100) + " %" if ratio else None


def interval_text(value: Interval, times: float = 1) -> str:
    """An estimate and its ends, as tables show them."""
    from nhzoo.evaluation.statistics import ends_text

    return f"{times * value.estimate:,.1f} {ends_text(value.ends, scale=times)}"


def evaluate_games(
    agent: str,
    protocol: str,
    episodes: int | None,
    workers: int | None,
    batch: int | None,
    out: Path,
    shard: str | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Evaluate with a progress bar; what `result.json` holds, and the rows of its games."""
    from nhzoo.evaluation import evaluator

    def note(state: evaluator.Progress) -> None:
        mean = f"{sum(state.scores) / len(state.scores):,.1f}" if state.scores else "-"
        speed = state.steps / state.seconds if state.seconds else 0.0
        bar.update(state.done, state.total, f"mean score {mean}  {speed:,.0f} steps/s")

    with console.LiveProgress(f"{agent} on {protocol}", "games") as bar:
        done = evaluator.evaluate(agent, protocol, episodes, workers, out, batch, note, shard=shard)
    return done.result, done.episodes


@click.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--game", "games", type=int, multiple=True, help="Number of a game to show. Repeatable."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File to write (default: report.html in the folder).",
)
@click.option("--beside", type=FOLDER, help="Also show a game beside this result's.")
@WORKERS
def report(
    folder: Path,
    games: tuple[int, ...],
    out: Path | None,
    beside: Path | None,
    workers: int | None,
) -> None:
    """Write one page about a result, with games to watch.

    The page shows the best, the median and the worst game. It is one file and needs no network.
    With --beside, the first of its games that the other result has too is shown with the other
    agent's side by side: one slider, with the first step at which their keys differ marked.

    \b
    Example: nhzoo report results/bc-lstm-1m
             nhzoo report results/mine --beside results/theirs --game 3
    """
    from nhzoo.publishing.report import write_report

    with console.LiveProgress(f"report {folder}", "games") as bar:
        path = write_report(folder, out, games or None, workers, bar.update, beside)
    console.show(f"{path}: {path.stat().st_size:,} bytes")
