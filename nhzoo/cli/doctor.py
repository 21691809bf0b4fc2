"""What this machine has and lacks for nhzoo."""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from nhzoo.agents.registry import list_agents

SHOWN = ("nle", "torch", "numpy", "gymnasium", "numba")
EXTRAS = ("", "expert", "cluster", "plots", "tensorboard")


@dataclass(frozen=True)
class Finding:
    """One check and how it went."""

    check: str
    ok: bool
    detail: str


def examine() -> list[Finding]:
    """Run all checks; each takes a moment at most."""
    findings = [Finding("python", True, platform.python_version())]
    findings += _packages()
    findings += [_game(), _cache(), _kernels(), _agents()]
    return findings


def _packages() -> list[Finding]:
    """Installed versions against the declared ones; of those that are as declared, the main ones.

    A package of an extra may be missing, but not too old.
    """
    try:
        declared = [Requirement(line) for line in requires("nhzoo") or ()]
    except PackageNotFoundError:
        return [Finding("packages", False, "nhzoo is not installed: pip install .")]
    wrong, shown = [], []
    for package in declared:
        needed_by = [
            extra
            for extra in EXTRAS
            if package.marker is None or package.marker.evaluate({"extra": extra})
        ]
        if not needed_by:
            continue
        remedy = f"pip install '{package.name}{package.specifier}'"
        try:
            found = version(package.name)
        except PackageNotFoundError:
            if "" in needed_by:
                wrong.append(Finding(package.name, False, f"not installed: {remedy}"))
            continue
        if not package.specifier.contains(found, prereleases=True):
            wrong.append(Finding(package.name, False, f"{found} is not supported: {remedy}"))
        elif package.name in SHOWN:
            shown.append(Finding(package.name, True, found))
    return shown + wrong


def _game() -> Finding:
    """A game starts, is seeded, and its clock can be pinned."""
    try:
        from nhzoo.envs.game import Game
        from nhzoo.envs.protocols import GameSpec

        game = Game()
        game.start(GameSpec(core=1, disp=2))
        game.close()
    except Exception as error:
        return Finding("a NetHack game", False, str(error).splitlines()[0])
    machine = platform.machine()
    note = "" if machine == "x86_64" else "; seeds give other dungeons than on x86_64"
    return Finding("a NetHack game", True, f"starts, seeded and clock pinned, on {machine}{note}")


def _cache() -> Finding:
    from nhzoo.runtime.files import cache_folder

    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    writable = os.access(existing, os.W_OK)
    detail = f"{folder}, {free:.0f} GB free"
    if not writable:
        detail = f"{folder} cannot be written"
    ok = writable and free > 1
    return Finding(
        "cache for packed frames", ok, detail if ok else f"{detail}; name another in NHZOO_CACHE"
    )


def _kernels() -> Finding:
    """Compiled code can be kept, or the networks and the scripted agent start slowly."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from nhzoo.runtime.kernels import folder

            place = folder()
    except ImportError as error:  # told above
        return Finding("compiled code", False, str(error).splitlines()[0])
    if place is None:
        nowhere = "kept nowhere, every start takes up to a minute longer; set NHZOO_CACHE"
        return Finding("compiled code", True, nowhere)
    return Finding("compiled code", True, f"kept in {place}")


def _agents() -> Finding:
    entries = [agent for agent in list_agents() if agent.path]
    where = Path(entries[0].path).parent if entries and entries[0].path else "none found"
    return Finding("zoo entries", bool(entries), f"{len(entries)} in {where}")
