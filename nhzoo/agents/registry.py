"""The registry: agents by name, bundled with the package or in folders that the user has added.

An entry is a folder with `config.json`. Bundled ones lie in the package (installed from a wheel) or
in `agents/` beside it (a checkout); $NHZOO_AGENTS names further folders of entries, joined by ":".
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nhzoo.errors import InputError
from nhzoo.hub import download
from nhzoo.hub.download import Pulled
from nhzoo.hub.errors import NotThere
from nhzoo.hub.repos import Ref, is_name, parse
from nhzoo.runtime import files
from nhzoo.runtime.console import ProgressCallback, no_progress
from nhzoo.runtime.system import CHECKOUT, PACKAGE

if TYPE_CHECKING:
    from nhzoo.policy.checkpoint import Entry

BUILT_IN = {
    "random": "presses one of the 121 keys, each as likely as any other",
    "frequency": "presses each key as often as AutoAscend did, whatever it sees",
    "scripted": "rules of thumb: fights, prays, eats, explores and goes down",
    "autoascend": "the bot that won the NetHack Challenge of 2021 (needs the extra expert)",
}


@dataclass(frozen=True)
class Listed:
    """One line of the registry. `path` is None for agents that are code, not weights."""

    name: str
    path: Path | None
    params: int | None
    description: str


@dataclass(frozen=True)
class Located:
    """Where an entry's files are. `ref` is its pinned name on the hub, None for local folders."""

    folder: Path
    ref: Ref | None = None

    @property
    def source(self) -> str | None:
        """`ref` as text."""
        return None if self.ref is None else str(self.ref)


def folders() -> list[Path]:
    """The folders that are searched for entries, in this order."""
    named = [Path(part) for part in os.environ.get("NHZOO_AGENTS", "").split(":") if part]
    return [folder for folder in (*named, *bundled()) if folder.is_dir()]


def bundled() -> list[Path]:
    """The folders of the entries that come with the package: its own, and the checkout's."""
    inside = PACKAGE / "agents" / "bundled"
    return [inside, CHECKOUT / "agents"] if CHECKOUT else [inside]


def find(name: str) -> Path | None:
    """Find the folder of the entry with that name; None if there is none."""
    for folder in folders():
        if name and "/" not in name and name != ".." and (folder / name / "config.json").is_file():
            return folder / name
    return None


def list_agents() -> list[Listed]:
    """List every agent that `load` knows by name, without loading weights (or torch).

    Entries fetched from the hub are named by their commit. No request is made.
    """
    found: dict[str, Listed] = {}
    for folder in folders():
        for path in sorted(folder.iterdir()):
            if (path / "config.json").is_file() and path.name not in found:
                found[path.name] = _listed(path)
    for path in sorted((files.cache_folder() / "hub" / "models").glob("*/*/*")):
        if (path / "config.json").is_file():
            name = f"hf://{path.parts[-3]}/{path.name}@{path.parts[-2]}"
            found[name] = replace(_listed(path), name=name)
    code = [Listed(name, None, None, text) for name, text in BUILT_IN.items()]
    return [*found.values(), *code]


def find_entry(source: str | Path, option: str = "") -> Located:
    """Find an entry by its name, its folder, or hf://org/name@revision, which is fetched.

    InputError, which names `option`, for what is none: agents that are code have no weights.
    """
    text = str(source)
    if text.startswith("hf://"):
        pulled = pull_entry(text)
        return Located(pulled.folder, pulled.ref)
    folder = find(text) or Path(source)
    if (folder / "config.json").is_file():
        return Located(folder)
    name = f"{option} {text[:200]!r}" if option else f"{text[:200]!r}"
    if text in BUILT_IN or ":" in text or (folder / "bot.py").is_file():
        raise InputError(f"{name}: is code and has no weights; give an entry (see nhzoo list)")
    raise InputError(
        f"{name}: is no entry; give a name that `nhzoo list` shows with its parameters, the folder "
        "of one (with config.json), or hf://org/name"
    )


def pull_entry(text: str, progress: ProgressCallback = no_progress) -> Pulled:
    """Pull an entry from the hub: `hf://org/name@revision`, org/name, or a name of the zoo."""
    if not text.startswith("hf://") and (is_name(text) or "/" not in text):
        return _named(text, progress)
    ref = parse(text)
    if ref.kind != "model":
        raise InputError(f"{ref}: a {ref.kind} is not an agent; entries are hf://org/name")
    return download.pull(ref, progress)


def load_pulled(pulled: Pulled) -> Entry:
    """Load the entry of a pulled folder; if it does not load, the error says what to do."""
    from nhzoo.policy.checkpoint import load_entry

    try:
        return load_entry(pulled.folder)
    except InputError as error:
        raise InputError(
            f"{pulled.ref} does not load: {error}; if it was not published so, delete "
            f"{pulled.folder} and fetch it anew"
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of an entry, unchanged."""
    return files.read_json(files.inside(folder, "config.json"))


def _listed(path: Path) -> Listed:
    try:
        config = read_config(path)
    except InputError as error:
        return Listed(path.name, path, None, f"unusable: {error}")
    params = config.get("params")
    return Listed(
        path.name,
        path,
        params if isinstance(params, int) else None,
        str(config.get("description", "")),
    )


def _named(text: str, progress: ProgressCallback) -> Pulled:
    """An entry that is not bundled: on the hub it may be, or nowhere."""
    names = (listed.name for listed in list_agents())
    known = ", ".join(name for name in names if not name.startswith("hf://"))
    unknown = (
        f"no agent {text[:200]!r}: give a folder, package.module:make_agent, or one of {known}"
    )
    if not is_name(text):
        raise InputError(unknown)
    try:
        return download.pull(parse(text), progress)
    except NotThere as error:
        raise InputError(f"{unknown}; nor from the hub: {error}") from error
