"""Commands about the site: `leaderboard build`, `leaderboard serve`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from nhzoo.cli.leaderboard import warn
from nhzoo.cli.options import AS_JSON, FOLDER, WORKERS
from nhzoo.runtime import console

_SITE = Path("leaderboard/site")


@click.command()
@click.option("--out", type=FOLDER, default=_SITE, show_default=True, help="Folder for the site.")
@click.option(
    "--results",
    "leaderboard",
    type=FOLDER,
    default=Path("leaderboard"),
    show_default=True,
    help="Folder of the leaderboard: results, submissions, log, forecasts.",
)
@click.option(
    "--agents",
    type=FOLDER,
    default=Path("agents"),
    show_default=True,
    help="Folder of the zoo's entries.",
)
@click.option(
    "--published",
    type=FOLDER,
    help="Published table of runs of the paper. It has no licence: do not publish a site with it.",
)
@WORKERS
@AS_JSON
def build(
    out: Path,
    leaderboard: Path,
    agents: Path,
    published: Path | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Build the static site of the leaderboard.

    The site has boards, charts, and a page for each agent with games to watch. It needs no network
    and no server. Fits are read from the leaderboard's folder and from training/ beside it. Games
    are replayed; those of an earlier build are kept.

    \b
    Example: nhzoo leaderboard build --out leaderboard/site
    """
    from nhzoo.leaderboard.site.builder import build as run

    training = leaderboard.parent / "training"
    with console.LiveProgress("leaderboard build", "games") as bar:
        built = run(
            leaderboard,
            out,
            agents if agents.is_dir() else None,
            training if training.is_dir() else None,
            published,
            workers,
            bar.update,
        )
    if as_json:
        console.print_json(asdict(built) | {"folder": str(built.folder)})
        warn(built.warnings)
        return
    for line in built.missing:
        console.say(f"not shown: {line}")
    console.show(
        f"{out / 'index.html'}: {built.pages:,} pages of {built.rows:,} rows, "
        f"{built.page_bytes:,} bytes, and {built.games:,} games, {built.game_bytes:,} bytes"
    )
    warn(built.warnings)


@click.command()
@click.option("--site", type=FOLDER, default=_SITE, show_default=True, help="Folder of the site.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port; 0 takes any free one.",
)
def serve(site: Path, port: int) -> None:
    """Serve the site to this machine alone.

    Ctrl-C stops.

    \b
    Example: nhzoo leaderboard serve --port 8000
    """
    from nhzoo.leaderboard.site.builder import server

    with server(site, port) as running:
        console.say(f"http://127.0.0.1:{running.server_port}/ shows {site}; Ctrl-C ends it")
        running.serve_forever()
