"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
WORKERS = click.option(
    "--workers", type=click.IntRange(1), help="Worker processes (default: one a core)."
)
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "float | None": float}


class _Named(click.types.StringParamType):
    """Text that a shell completes by names: those that load at once, or files after a slash."""

    def __init__(self, names: Callable[[], Iterable[tuple[str, str]]], kind: str = "dir") -> None:
        self._names, self._kind = names, kind

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin as the word does, each with what it is."""
        if "/" in incomplete or incomplete.startswith("."):
            return [CompletionItem(incomplete, type=self._kind)]
        return [
            CompletionItem(name, help=about)
            for name, about in self._names()
            if name.startswith(incomplete)
        ]


def _agents() -> Iterable[tuple[str, str]]:
    from nhzoo.agents.registry import list_agents

    return [(listed.name, listed.description) for listed in list_agents()]


def _entries() -> Iterable[tuple[str, str]]:
    from nhzoo.agents.registry import list_agents

    return [(listed.name, listed.description) for listed in list_agents() if listed.path]


def _protocols() -> Iterable[tuple[str, str]]:
    from nhzoo.envs.protocols import PROTOCOLS

    return [
        (name, f"{protocol.games:,} games, {protocol.character}")
        for name, protocol in PROTOCOLS.items()
    ]


def _datasets() -> Iterable[tuple[str, str]]:
    from nhzoo.data.catalog import list_sources

    return [(source.name, source.kind) for source in list_sources()]


AGENT, ENTRY = _Named(_agents), _Named(_entries)
PROTOCOL, DATASET = _Named(_protocols), _Named(_datasets)


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
