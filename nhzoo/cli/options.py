"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
WORKERS = click.option(
    "--workers", type=click.IntRange(1), help="Worker processes (default: one a core)."
)
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "float | None": float}


def config_options(
    config: type, without: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that the fields of a config class are: those with a help text, in their order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for field in reversed(fields(config)):
            if not field.metadata or field.name in without:
                continue
            words: dict[str, Any] = {"help": field.metadata["help"], "default": field.default}
            if field.type == "bool":
                words["is_flag"] = True
            else:
                words["type"] = _TYPES[str(field.type)]
                words["show_default"] = field.metadata["shown"] and field.default not in (None, "")
            if field.default is MISSING:
                words |= {"default": None, "required": True, "show_default": False}
            command = click.option(f"--{field.name.replace('_', '-')}", **words)(command)
        return command

    return decorate


def as_share(ctx: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """A callback of options that are a share from 0 to below 1, written as 5% or 0.05."""
    if value is None:
        return None
    try:
        share = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise click.BadParameter(f"{value!r}: give a share as 5% or 0.05, below 100%", ctx, option)
    return share
