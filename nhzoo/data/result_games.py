"""The games of a result as demonstrations to measure losses on, never to train on.

What `nhzoo evaluate autoascend` wrote holds games that nobody has trained on, since their seeds
are a protocol's: the expert's held-out games, many more than a dataset can spare.
"""

from __future__ import annotations

from pathlib import Path

from nhzoo.data.traces import MAX_KEYS, Trace, TraceSet
from nhzoo.envs.protocols import get_protocol
from nhzoo.errors import InputError
from nhzoo.runtime import files

SPLIT = "test"
"""Of all these games, so that training, which takes `train`, finds none."""


def is_result(folder: Path) -> bool:
    """Whether `folder` looks like what `nhzoo evaluate` writes."""
    return (folder / "result.json").is_file() and (folder / "episodes.jsonl").is_file()


def open_result(folder: Path) -> TraceSet:
    """The games of a result folder, by their number in its protocol.

    Those without a key, or voided, are left out. InputError for a game that is not its protocol's.
    """
    result = files.read_json(folder / "result.json", 16 * files.MEGABYTE)
    agent, protocol = result.get("agent"), get_protocol(str(result.get("protocol")))
    name = f"{agent}-{protocol.id}"
    where = folder / "episodes.jsonl"
    traces = []
    for row in files.read_jsonl(where):
        index, length, sha256 = row.get("index"), row.get("keys"), row.get("sha256")
        if not isinstance(index, int) or not 0 <= index < protocol.games:
            raise InputError(f"{where}: {index!r} is no game of {protocol.id}")
        spec = protocol.game(index)
        if (row.get("core"), row.get("disp")) != (spec.core, spec.disp):
            raise InputError(f"{where}: game {index} has other seeds than {protocol.id} gives it")
        if not isinstance(length, int) or not 0 <= length <= MAX_KEYS:
            raise InputError(f"{where}: game {index} has {length!r} keys")
        if not isinstance(sha256, str) or not isinstance(row.get("score"), (int, float)):
            raise InputError(f"{where}: game {index} lacks its sha256 or its score")
        if length and row.get("end_status") != "voided":
            traces.append(
                Trace(
                    game=str(index),
                    spec=spec,
                    length=length,
                    sha256=sha256,
                    score=float(row["score"]),
                    split=SPLIT,
                    frame_hashes=(),
                    path=folder / "traces" / f"{index}.xz",
                    end_status=str(row.get("end_status")),
                )
            )
    if not traces:
        raise InputError(f"{where}: holds no game")
    if not files.is_plain_name(name, 64):
        name = f"result-{protocol.id}"
    numbers = [int(trace.game) for trace in traces]
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{where}: a game is listed twice")
    traces.sort(key=lambda trace: int(trace.game))
    return TraceSet(name, folder, tuple(traces))
