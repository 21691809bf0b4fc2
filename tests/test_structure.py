"""Where things belong: `import-linter` holds the order of rooms, these tests what it cannot see."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests import ROOT

PACKAGE = ROOT / "nhzoo"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAYERS = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
ROOMS = [name for name in LAYERS if name != "errors"]
FOLDERS = sorted(path.parent for path in PACKAGE.glob("**/__init__.py") if path.parent != PACKAGE)
MODULES = {
    ".".join(("nhzoo", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in PACKAGE.rglob("*.py")
}


def imports(path: Path) -> set[str]:
    """The modules of ours that a module imports, in functions and for types too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports relative to itself"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & MODULES.keys() or {node.module}
    return found & MODULES.keys()


def test_no_two_modules_import_each_other():
    TopologicalSorter({name: imports(path) for name, path in MODULES.items()}).prepare()


def test_inside_the_package_names_come_from_the_module_that_defines_them():
    rooms = {f"nhzoo.{folder.relative_to(PACKAGE)}".replace("/", ".") for folder in FOLDERS}
    for name, path in MODULES.items():
        assert not imports(path) & rooms, f"{name} imports from a room as users do"


def test_rooms_and_modules_are_of_a_size_to_read():
    assert len(list(PACKAGE.glob("*.py"))) <= 5
    assert sorted(ROOMS) == sorted(path.name for path in FOLDERS if path.parent == PACKAGE)
    for folder in FOLDERS:
        modules = len(list(folder.glob("*.py"))) - 1
        assert modules <= 15, f"{folder.name}/ has {modules} modules"
    for path in PACKAGE.rglob("*.py"):
        lines = path.read_text().count("\n")
        assert lines <= 520, f"{path.relative_to(ROOT)} has {lines} lines"


def test_the_readme_names_every_room_once_with_its_line():
    readme = (ROOT / "README.md").read_text()
    shown = dict(re.findall(r"^  (\w+)/ +(.+)$", readme.split("nhzoo/  ")[1], re.M))
    for room in ROOMS:
        assert importlib.import_module(f"nhzoo.{room}").__doc__ == shown[room]
    order = [name for name in shown if name in ROOMS]
    assert order == ROOMS[::-1]


def exported(folder: Path) -> list[tuple[str, str]]:
    stub = folder / "__init__.pyi"
    if not stub.is_file():
        return []
    return [
        (node.module or "", alias.name)
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


@pytest.mark.parametrize("folder", [PACKAGE, *FOLDERS], ids=lambda folder: folder.name)
def test_what_a_room_exports_is_there_and_documented(folder):
    name = ".".join(("nhzoo", *folder.relative_to(PACKAGE).parts))
    room = importlib.import_module(name)
    assert (room.__doc__ or "").strip()
    for module, member in exported(folder):
        assert member in dir(room)
        value = getattr(room, member)
        assert value is getattr(importlib.import_module(f"{name}.{module}"), member)
        if callable(value):
            assert (value.__doc__ or "").strip(), f"{name}.{member} says nothing of itself"


def test_importing_all_rooms_loads_nothing_heavy():
    rooms = ", ".join(f"nhzoo.{room}" for room in ROOMS)
    code = (
        f"import sys, {rooms}, nhzoo.leaderboard.site, nhzoo.training.rl\n"
        "heavy = {'torch', 'nle', 'numba', 'scipy', 'huggingface_hub', 'pydantic'}\n"
        "assert not heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
