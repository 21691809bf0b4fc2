"""Commands of the leaderboard."""

from __future__ import annotations

import click

from nhzoo import cli_site


@click.group()
def leaderboard() -> None:
    """The board: who plays best, how sure that is."""


leaderboard.add_command(cli_site.build)
leaderboard.add_command(cli_site.serve)
