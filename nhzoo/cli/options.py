"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
WORKERS = click.option(
    "--workers", type=click.IntRange(1), help="Worker processes (default: one a core)."
)
FOLDER = click.Path(file_okay=False, path_type=Path)
