"""Dataset repositories: their cards, and the files that make results a benchmark on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nhzoo.data.packed_set import open_packed
from nhzoo.data.traces import open_traces
from nhzoo.envs.protocols import PROTOCOLS
from nhzoo.errors import InputError
from nhzoo.evaluation import results
from nhzoo.evaluation.statistics import score_text
from nhzoo.hub.repos import PACKED, TRACES, Contents, Ref
from nhzoo.publishing.card_facts import KEPT, kept_text, read_card
from nhzoo.publishing.cards import code, quote, yaml_head

_TAGS = ["nethack", "nle", "NetHackChallenge-v0", "nhzoo"]


def dataset_files(folder: Path, contents: Contents, ref: Ref) -> dict[str, Path | bytes]:
    """The files that are written for a dataset: its card, and `eval.yaml` for results."""
    if contents is TRACES:
        body, tags = _traces(folder, ref), ["imitation-learning", "trajectories"]
        title = "demonstrations"
    elif contents is PACKED:
        body, tags = _packed(folder, ref), ["imitation-learning", "trajectories"]
        title = "packed frames"
    else:
        body, tags, title = (
            _results(folder, ref),
            ["benchmark", "reinforcement-learning"],
            "results",
        )
    head = yaml_head(
        {
            "license": "apache-2.0",
            "pretty_name": f"{ref.name}: {title} of NetHack",
            "task_categories": ["reinforcement-learning"],
            "tags": [*_TAGS, *tags],
        }
    )
    kept = kept_text(read_card(folder))
    card = f"{head}\n\n# {quote(ref.name)}\n\n{body}\n\n{KEPT}\n" + (f"\n{kept}\n" if kept else "")
    written: dict[str, Path | bytes] = {"README.md": card.encode()}
    if contents not in (TRACES, PACKED):
        written["eval.yaml"] = _benchmark().encode()
    return written


def _traces(folder: Path, ref: Ref) -> str:
    data = open_traces(folder)
    for trace in data.traces:
        trace.keys()  # its hash is checked: what is published can be replayed
    return (
        "NetHack games as what decided them and the raw keys pressed: every frame is regenerated "
        "by replaying in NLE 1.3, a quarter of a byte a step.\n\n"
        + _splits([(trace.split, trace.length, trace.score) for trace in data.traces])
        + "\n\n"
        + _use(ref)
    )


def _packed(folder: Path, ref: Ref) -> str:
    data = open_packed(folder)
    for game in data.games:
        data.check(game)
    return (
        "NetHack games as packed frames, for machines where seeds give other games.\n\n"
        + _splits([(game.split, game.frames, game.score) for game in data.games])
        + "\n\n"
        + _use(ref)
    )


def _splits(games: list[tuple[str, int, float | None]]) -> str:
    lines = ["| split | games | keys | mean score |", "|---|---|---|---|"]
    for split in sorted({split for split, _, _ in games}):
        keys = [length for s, length, _ in games if s == split]
        scores = [score for s, _, score in games if s == split and score is not None]
        mean = f"{sum(scores) / len(scores):,.0f}" if scores else "-"
        lines.append(f"| {quote(split)} | {len(keys):,} | {sum(keys):,} | {mean} |")
    return "\n".join(lines)


def _use(ref: Ref) -> str:
    return (
        code(
            f"nhzoo data stats {ref}\nnhzoo train bc --data {ref} --params 100000 --flops 1e12 \\\n"
            "    --run build/runs/mine --out agents/mine"
        )
        + "\n\nAdd `@COMMIT` to name exactly these games; a name in the package is the same set."
    )


def _results(folder: Path, ref: Ref) -> str:
    lines = ["| agent | protocol | games | mean score, 95 % interval |", "|---|---|---|---|"]
    for path in sorted(folder.glob("*/*/result.json")):
        result, protocol, rows = results.read_result(path.parent)
        if path.parent.name != protocol.id:
            raise InputError(f"{path.parent}: holds games of {protocol.id}; name the folder so")
        results.need_score(rows, path.parent)
        summary: dict[str, Any] = results.summarize(rows)
        lines.append(
            f"| {quote(result.get('agent'))} | `{protocol.id}` | {summary['episodes']:,} | "
            f"{score_text(summary)} |"
        )
    return (
        "Results of nhzoo's protocols, with every key of every game: `AGENT/PROTOCOL/` holds what "
        "`nhzoo evaluate` wrote, and `nhzoo verify` replays it without the agent.\n\n"
        + "\n".join(lines)
        + "\n\n"
        + code(f"nhzoo pull {ref} --out results\nnhzoo verify results/AGENT/PROTOCOL")
    )


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
    return str(yaml.safe_dump(card, sort_keys=False, width=96))
