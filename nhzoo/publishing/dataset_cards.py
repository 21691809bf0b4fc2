"""Dataset repositories: their cards, and the files that make results a benchmark on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nhzoo.data.packed_set import open_packed
from nhzoo.data.traces import open_traces
from nhzoo.envs.protocols import PROTOCOLS
from nhzoo.errors import InputError
from nhzoo.evaluation import results
from nhzoo.hub.repos import PACKED, TRACES, Contents, Ref
from nhzoo.publishing.card_facts import kept_text, read_card
from nhzoo.publishing.cards import markdown

_TAGS = ["nethack", "nle", "NetHackChallenge-v0", "nhzoo"]


def dataset_files(folder: Path, contents: Contents, ref: Ref) -> dict[str, Path | bytes]:
    """The files that are written for a dataset: its card, and `eval.yaml` for results."""
    from huggingface_hub import DatasetCardData

    if contents in (TRACES, PACKED):
        values = _traces(folder) if contents is TRACES else _packed(folder)
        tags = ["imitation-learning", "trajectories"]
        title = "demonstrations" if contents is TRACES else "packed frames"
    else:
        values = {"splits": None, "results": _results(folder)}
        tags, title = ["benchmark", "reinforcement-learning"], "results"
    head = DatasetCardData(
        license="apache-2.0",
        pretty_name=f"{ref.name}: {title} of NetHack",
        task_categories=["reinforcement-learning"],
        tags=[*_TAGS, *tags],
    )
    kept = kept_text(read_card(folder))
    card = markdown("dataset_card.md", kept, head=Markup(head.to_yaml()), ref=ref, **values)
    written: dict[str, Path | bytes] = {"README.md": card.encode()}
    if contents not in (TRACES, PACKED):
        written["eval.yaml"] = _benchmark().encode()
    return written


def _traces(folder: Path) -> dict[str, Any]:
    data = open_traces(folder)
    for trace in data.traces:
        trace.keys()  # its hash is checked: what is published can be replayed
    about = (
        "NetHack games as what decided them and the raw keys pressed: every frame is regenerated "
        "by replaying in NLE 1.3, a quarter of a byte a step."
    )
    games = [(trace.split, trace.length, trace.score) for trace in data.traces]
    return {"about": about, "splits": _splits(games)}


def _packed(folder: Path) -> dict[str, Any]:
    data = open_packed(folder)
    for game in data.games:
        data.check(game)
    about = "NetHack games as packed frames, for machines where seeds give other games."
    games = [(game.split, game.frames, game.score) for game in data.games]
    return {"about": about, "splits": _splits(games)}


def _splits(
    games: Sequence[tuple[str, int, float | None]],
) -> list[tuple[str, int, int, float | None]]:
    """Each split's name, games, keys and mean score (None where no game has one)."""
    found = []
    for split in sorted({split for split, _, _ in games}):
        keys = [length for s, length, _ in games if s == split]
        scores = [score for s, _, score in games if s == split and score is not None]
        mean = sum(scores) / len(scores) if scores else None
        found.append((split, len(keys), sum(keys), mean))
    return found


def _results(folder: Path) -> list[tuple[object, str, dict[str, Any]]]:
    """Agent, protocol and summary of each result."""
    found = []
    for path in sorted(folder.glob("*/*/result.json")):
        result, protocol, rows = results.read_result(path.parent)
        if path.parent.name != protocol.id:
            raise InputError(f"{path.parent}: holds games of {protocol.id}; name the folder so")
        results.need_score(rows, path.parent)
        found.append((result.get("agent"), protocol.id, results.summarize(rows)))
    return found


def _benchmark() -> str:
    """`eval.yaml`: each protocol is a task of this benchmark."""
    import yaml

    tasks = [{"id": name} for name in PROTOCOLS]
    card = {
        "name": "nhzoo",
        "description": "NetHack by neural agents: mean in-game score over a protocol's games.",
        "evaluation_framework": "nhzoo",
        "tasks": tasks,
    }
    return str(yaml.safe_dump(card, sort_keys=False))
