"""The shards of one evaluation, played in different places, joined into one result."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nhzoo.errors import InputError
from nhzoo.evaluation import results
from nhzoo.runtime import files

_OWN = ("summary", "workers", "shard")
"""What results of the same agent under the same protocol may differ in."""


def merge(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Join results into the new folder `out` and return its `result.json`.

    They have to be of the same agent, protocol, versions and batch; a game that is in several of
    them has to be the same game. Every trace is checked against its hash.
    """
    if not folders:
        raise InputError("nothing to merge: give the folders of at least one result")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; give a new folder")
    merged: dict[int, tuple[Path, results.Row]] = {}
    first: dict[str, Any] = {}
    for folder in folders:
        result, _, played = results.read_result(folder)
        facts = {name: value for name, value in result.items() if name not in _OWN}
        first = first or facts
        free = {"source"} | (results.FREE if first.get("numerics") else set())  # weights decide
        differing = sorted(
            name
            for name in first | facts
            if first.get(name) != facts.get(name) and name not in free
        )
        if differing:
            name = differing[0]
            raise InputError(
                f"{folder}: is of another {name} ({facts.get(name)!r}) than {folders[0]} "
                f"({first.get(name)!r})"
            )
        for row in played:
            known = merged.setdefault(row["index"], (folder, row))
            if known[1] != row:
                raise InputError(f"{folder}: its game {row['index']} is not that of {known[0]}")
    rows = []
    for index, (folder, row) in sorted(merged.items()):
        keys = results.read_trace(folder, index)
        if hashlib.sha256(keys).hexdigest() != row["sha256"]:
            raise InputError(f"{folder}: the trace of game {index} is not the one that was played")
        results.write_trace(out, index, keys)
        rows.append(row)
    identity = files.read_json(files.inside(folders[0], "evaluation.json"))
    files.atomic_write(out / "evaluation.json", files.dump_json(identity))
    files.atomic_write(out / "episodes.jsonl", files.dump_jsonl(rows))
    summary = results.summarize(rows) | {"env_steps_per_second": None}
    result = first | {"workers": None, "shard": None, "summary": summary}
    files.atomic_write(out / "result.json", files.dump_json(result))
    return result
