"""Commands about demonstrations: `data list`, `add`, `pack`, `record`, `stats`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nhzoo.cli.options import AGENT, AS_JSON, DATASET, FOLDER, PROTOCOL, WORKERS
from nhzoo.errors import CheckFailed, InputError
from nhzoo.runtime import console

_MAX_REASONS = 10


@click.group()
def data() -> None:
    """List, name, pack, record and describe demonstrations."""


@data.command("list")
@AS_JSON
def data_list(as_json: bool) -> None:
    """List the datasets: bundled, and added on this machine.

    \b
    Example: nhzoo data list
    """
    from nhzoo.data.catalog import list_sources

    sources = list_sources()
    if as_json:
        rows = [asdict(source) | {"folder": str(source.folder)} for source in sources]
        console.print_json({"datasets": rows})
        return
    console.print_table(
        ("name", "kind", "games", "steps", "where"),
        [
            (s.name, s.kind, s.games, s.steps, s.note or ("bundled" if s.bundled else s.folder))
            for s in sources
        ],
    )


@data.command("add")
@click.argument("source", type=DATASET)
@click.option("--name", help="Name of the dataset (default: the folder's).")
@click.option("--to", type=FOLDER, help="Folder for a fetched dataset.")
@click.option("--url", help="Fetch from this address instead of the public one.")
@AS_JSON
def data_add(
    source: str, name: str | None, to: Path | None, url: str | None, as_json: bool
) -> None:
    """Name a dataset on this machine; nothing is copied.

    SOURCE is an NLD-AA or NLD-NAO folder, a trace set, a folder of exported packed frames, or the
    name of a public dataset to fetch (nld-aa-taster). Run again to resume an interrupted download.

    \b
    Example: nhzoo data add ~/nld/nle_data --name my-games
    """
    from nhzoo.data import catalog as sources

    with console.LiveProgress(f"add {source}", "") as bar:

        def note(done: float, total: float, what: str) -> None:
            mega = 1 if not total or total < 1e6 else 1e6
            bar.update(done / mega, (total or done) / mega, f"{'MB ' if mega > 1 else ''}{what}")

        added = sources.add(source, name, to, url, note)
    if as_json:
        console.print_json(asdict(added) | {"folder": str(added.folder)})
    else:
        console.show(f"{added.name}: {added.kind}, {added.games} games in {added.folder}")


@data.command("pack")
@click.argument("source", type=DATASET)
@click.option("--split", help="Use only this split.")
@click.option(
    "--with",
    "extra",
    multiple=True,
    help="Also keep this NLE observation (blstats, glyphs, inv_glyphs, ...). Repeatable.",
)
@click.option(
    "--export", "target", type=FOLDER, help="Copy the packed games to this folder, as a dataset."
)
@WORKERS
@AS_JSON
def data_pack(
    source: str,
    split: str | None,
    extra: tuple[str, ...],
    target: Path | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Replay or convert a dataset into the packed frame cache.

    Every game is checked. SOURCE is the name of a dataset, a trace-set folder or an NLD folder. Run
    again to resume. The folder that --export writes is a dataset by itself, also on machines where
    seeds give other dungeons.

    \b
    Example: nhzoo data pack autoascend-monk-v1
    """
    from nhzoo.data import packed_set

    report = _pack(source, split, extra, workers)
    _need_games(source, split, report)
    if target:
        with console.LiveProgress(f"export {target}", "games") as bar:
            packed_set.export(report.name, report.exportable, target, bar.update)
    if as_json:
        console.print_json(
            {
                "folder": str(report.folder),
                "games": len(report.games),
                "frames": report.frames,
                "already_packed": report.already,
                "refused": report.refused,
                "left_out": report.left_out,
                "exported": str(target) if target else None,
            }
        )
    else:
        console.show(
            f"{target or report.folder}: {len(report.games)} games, {report.frames:,} frames"
        )
    if report.refused:
        raise CheckFailed(f"refused games: {len(report.refused)}, see above; the rest is packed")


@data.command("record")
@click.argument("agent", type=AGENT)
@click.option(
    "--protocol",
    type=PROTOCOL,
    required=True,
    help="Protocol that gives the character and the limits, not the seeds.",
)
@click.option("--episodes", type=int, required=True, help="Record games 0 to N - 1.")
@click.option(
    "--out", type=FOLDER, required=True, help="Folder of the trace set. Run again to resume."
)
@click.option("--name", help="Name that the seeds are derived from (default: the folder's).")
@click.option(
    "--held-out", default=0.1, show_default=True, help="Share of the games held out for validation."
)
@click.option("--max-steps", type=int, help="Stop the games played now after this many steps.")
@click.option("--max-loop", type=int, help="Stop them after this many steps in a loop.")
@click.option("--after", help="Let this agent begin each game; AGENT takes over.")
@click.option(
    "--within", default=8_000, show_default=True, help="It does before this step, evenly drawn."
)
@click.option("--takeover-steps", default=3_000, show_default=True, help="And plays so many steps.")
@click.option("--ttyrecs", type=FOLDER, help="Also write NLD-format ttyrecs to this folder.")
@WORKERS
@AS_JSON
def data_record(
    agent: str,
    protocol: str,
    episodes: int,
    out: Path,
    name: str | None,
    held_out: float,
    max_steps: int | None,
    max_loop: int | None,
    after: str | None,
    within: int,
    takeover_steps: int,
    ttyrecs: Path | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Record an agent's games as a trace set to train on.

    Recording into an existing trace set adds to it. With --max-steps or --max-loop, its games
    stay as they are, and the line of each new game states the limit. A loop is a stretch in which
    the hero stands on at most three squares and gains nothing. The agent autoascend needs the extra
    expert.

    With --after, another agent (a clone, say) begins each game, and only what AGENT then presses is
    learnt from it: what to do where that agent gets itself.

    \b
    Example: nhzoo data record autoascend --protocol monk-v1 --episodes 20 --out data/my-monks
    """
    from nhzoo.agents.takeover import Takeover
    from nhzoo.evaluation.evaluator import Progress
    from nhzoo.evaluation.recording import record

    takeover = Takeover(within, takeover_steps)
    with console.LiveProgress(f"record {out.name}", "games") as bar:

        def note(stage: str, state: Progress) -> None:
            speed = state.steps / state.seconds if state.seconds else 0.0
            bar.update(state.done, state.total, f"{stage}  {speed:,.0f} steps/s")

        report = record(
            *(agent, protocol, episodes, out, name, workers, held_out, note),
            *(max_steps, max_loop, after, takeover),
        )
    written = _write_ttyrecs(out, ttyrecs, workers) if ttyrecs else None
    if as_json:
        document = asdict(report) | {"folder": str(report.folder)}
        console.print_json(document | ({"ttyrecs": written} if written else {}))
    else:
        mean = "-" if report.mean_score is None else f"{report.mean_score:,.1f}"
        console.show(
            f"{out}: {report.games} games of {report.name} ({report.validation} held out), "
            f"{report.keys:,} keys, mean score {mean}"
        )
        for count, option in ((report.capped, "--max-steps"), (report.looped, "--max-loop")):
            if count:
                console.show(f"{count} games stopped by {option}; the mean is of those without")
    if report.unused:
        console.show(f"{report.unused} games are unused: they ended before the takeover")
    for index in report.without_keys:
        console.say(f"game {index}: left out, it ended before a key was pressed")
    for index in report.voided:
        console.say(f"game {index}: left out, it was voided (no ordinary game: explore mode, say)")
    for reason, count in report.failures.items():
        console.say(f"ended by a failure of the agent, and kept: {count} x {reason}")
    if not report.games:
        raise CheckFailed(f"{out}: no game was recorded")
    if not report.validation and held_out:
        console.say("no game is held out; record more, or with a larger --held-out, to train on it")


@data.command("stats")
@click.argument("source", type=DATASET)
@WORKERS
@AS_JSON
def data_stats(source: str, workers: int | None, as_json: bool) -> None:
    """Describe a dataset: games, keys, scores, actions, roles.

    It also names games that are in the dataset more than once.

    \b
    Example: nhzoo data stats autoascend-monk-v1
    """
    from nhzoo.data import stats
    from nhzoo.envs.actions import key_name

    found = stats.statistics(source, workers)
    if as_json:
        console.print_json(asdict(found))
        return
    ways = [f"{name}: {split.games} games" for name, split in found.splits.items()]
    keys = "keys not counted" if found.keys is None else f"{found.keys:,} keys"
    console.show(f"{found.name} ({found.kind}): {found.games} games ({', '.join(ways)}), {keys}")
    spreads = (
        ("score", found.scores),
        ("keys", found.lengths),
        ("turns", found.turns),
        ("deepest level", found.depth),
    )
    console.print_table(
        ("", "games", "missing", "mean", "lowest", "median", "highest"),
        [
            (name, d.count, d.missing, d.mean, d.minimum, d.median, d.maximum)
            for name, d in spreads
            if d
        ],
    )
    if found.capped:
        console.show(f"{found.capped} games stopped by --max-steps: their scores are those by then")
    for line in stats.histogram(found.score_list):
        console.show(line)
    console.print_table(
        ("role", "games", "mean score"), [(r.role, r.games, r.mean_score) for r in found.roles]
    )
    if found.actions:
        console.print_table(
            ("action", "key", "count", "share %"),
            [(a.action, key_name(a.key), a.count, 100 * a.share) for a in found.actions[:25]],
        )
    for repeat in found.repeats:
        console.say(f"the same {repeat.same}: games {', '.join(repeat.games)}")
    _say_left_out(found.left_out)


def _write_ttyrecs(out: Path, folder: Path, workers: int | None) -> dict[str, Any]:
    from nhzoo.data.traces import open_traces
    from nhzoo.data.ttyrec import WriteReport, write_ttyrecs

    with console.LiveProgress(f"ttyrecs {folder}", "games") as bar:

        def note(report: WriteReport, games: int) -> None:
            bar.update(report.written + report.already, games)

        report = write_ttyrecs(open_traces(out.resolve()), folder, workers, note)
    for game, reason in report.refused.items():
        console.say(f"no ttyrec of game {game}: {reason}")
    return asdict(report) | {"folder": str(report.folder)}


def _say_left_out(left_out: dict[str, str]) -> None:
    """One line a reason, with how many things it took."""
    for reason, count in Counter(left_out.values()).most_common(_MAX_REASONS):
        first = next(path for path, why in left_out.items() if why == reason)
        console.say(f"left out {count:,} (the first {first}): {reason}")
    if (more := len(set(left_out.values())) - _MAX_REASONS) > 0:
        console.say(f"and {more:,} other reasons; --json has them all")


def _pack(
    source: str,
    split: str | None,
    extra: tuple[str, ...],
    workers: int | None,
    most: int | None = None,
) -> Any:
    from nhzoo.data import packing
    from nhzoo.data.frames import DEFAULT_FIELDS

    fields = tuple(dict.fromkeys((*DEFAULT_FIELDS, *extra)))
    with console.LiveProgress(f"pack {source}", "games") as bar:

        def note(report: packing.PackReport, games: int) -> None:
            done = report.already + report.packed + len(report.refused)
            bar.update(done, games, f"{report.frames:,} frames")

        report = packing.pack(source, fields, split, workers, progress=note, most=most)
    for game, reason in report.refused.items():
        console.say(f"refused {game}: {reason}")
    _say_left_out(report.left_out)
    return report


def packed_games(
    source: str, split: str | None, workers: int | None, most: int | None = None
) -> list[Path]:
    """The packed games of a source, the first `most`, packing what is not there yet."""
    report = _pack(source, split, (), workers, most)
    _need_games(source, split, report)
    games: list[Path] = report.games
    return games


def _need_games(source: str, split: str | None, report: Any) -> None:
    if report.games and report.frames:
        return
    if not split or report.refused:
        raise InputError(f"{source}: no usable game")
    from nhzoo.data.catalog import splits

    known = ", ".join(splits(source))
    raise InputError(f"{source}: no usable game in split {split!r}; it has {known}")
