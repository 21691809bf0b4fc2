"""The key of kept code counts every file that decides what is compiled.

numba puts functions and constants that a compiled function uses into its code, and does not notice
when they change in another file: `kernels` hashes the files that it takes to matter.
"""

from __future__ import annotations

import ast
import builtins
import sys
from functools import cache
from pathlib import Path

from nhzoo.runtime import kernels
from tests.test_structure import MODULES

COUNTED_PACKAGES = {"numpy", "numba", "llvmlite", "nle", "nethackers"}
"""Whose versions are in the key as well."""

PATHS = {path: name for name, path in MODULES.items()}


@cache
def names(module: str) -> dict[str, tuple[str, str] | ast.stmt]:
    """What each global name of a module is: imported (from where, as what), or a statement."""
    found: dict[str, tuple[str, str] | ast.stmt] = {}
    for node in ast.walk(ast.parse(MODULES[module].read_text())):  # under `if` and `try` too
        if isinstance(node, ast.Import):
            found |= {each.asname or each.name: (each.name, "") for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            for each in node.names:
                inner = f"{node.module}.{each.name}"
                imported = (inner, "") if inner in MODULES else (node.module or "", each.name)
                found[each.asname or each.name] = imported
    for node in ast.parse(MODULES[module].read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            stored = (each for each in ast.walk(node) if isinstance(each, ast.Name))
            found |= {each.id: node for each in stored if isinstance(each.ctx, ast.Store)}
    return found


def used_by(module: str, name: str, found: set[tuple[str, str]]) -> None:
    """Add to `found` all (module, name) on which a global name depends."""
    if module not in MODULES or (module, name) in found:
        found.add((module, name))
        return
    known = names(module).get(name)
    if isinstance(known, tuple):
        used_by(*known, found)
        return
    if known is None:
        assert name == "" or hasattr(builtins, name), f"{module}: where is {name}?"
        return
    found.add((module, name))
    if isinstance(known, ast.FunctionDef):  # neither its decorators nor its annotations
        nodes = [*known.body, *known.args.defaults]
        local = {each.arg for each in ast.walk(known) if isinstance(each, ast.arg)}
        each_name = (each for each in ast.walk(known) if isinstance(each, ast.Name))
        local |= {each.id for each in each_name if isinstance(each.ctx, ast.Store)}
    else:
        nodes, local = [known], set()
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            imported = names(module).get(node.value.id)
            if isinstance(imported, tuple) and imported[0] in MODULES and not imported[1]:
                used_by(imported[0], node.attr, found)
        elif isinstance(node, ast.Name) and node.id in names(module) and node.id not in local:
            used_by(module, node.id, found)


def kernels_of(module: str) -> list[str]:
    """The functions of a module that are compiled."""
    return [
        name
        for name, node in names(module).items()
        if isinstance(node, ast.FunctionDef)
        and any("njit" in ast.unparse(each) for each in node.decorator_list)
    ]


def test_the_key_counts_every_file_of_what_is_compiled_in():
    counted = {PATHS[path] for path in kernels._FILES}
    for module in MODULES:
        for kernel in kernels_of(module):
            found: set[tuple[str, str]] = set()
            used_by(module, kernel, found)
            for other, name in found:
                package = other.partition(".")[0]
                known = COUNTED_PACKAGES | sys.stdlib_module_names
                assert other in counted or package in known, (
                    f"{module}.{kernel} is compiled with {other}.{name}, of a file that the key in "
                    "runtime/kernels.py does not count"
                )


def test_constants_and_functions_of_other_files_are_seen():
    found: set[tuple[str, str]] = set()
    used_by("nhzoo.policy.map_search", "direction_features", found)
    assert {
        ("nhzoo.policy.map_search", "_KIND_BITS"),  # a constant
        ("nhzoo.policy.memory", "_FOOTPRINT"),  # of a function of another file
        ("nhzoo.policy.config", "COLS"),  # of that function's file's imports
    } <= found
    assert kernels_of("nhzoo.policy.map_search")
    assert Path(MODULES["nhzoo.policy.config"]) in kernels._FILES
    assert b"njit(" not in MODULES["nhzoo.policy.config"].read_bytes()
