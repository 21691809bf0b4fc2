"""The agents that load by name, with what is known of each: scores, loss, size, where it is from.

Scores of entries are those of their cards, which hold for these weights as their author says, and
of results that lie in the entry. Those of agents that are code are the leaderboard's of a checkout.
Nothing is played, and no weights are loaded.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from nhzoo.agents import registry
from nhzoo.agents.registry import Listed
from nhzoo.envs.protocols import PROTOCOLS, get_protocol
from nhzoo.errors import InputError
from nhzoo.runtime import files
from nhzoo.runtime.system import CHECKOUT

Order = Literal["score", "loss", "size", "name"]


@dataclass(frozen=True)
class KnownScore:
    """A mean score of so many games of a protocol, with its 95 % interval, if it has one."""

    mean: float
    low: float | None
    high: float | None
    games: int | None


@dataclass(frozen=True)
class ListedAgent:
    """An agent that loads by `name`. `loss` is held-out, in nats a key; `scores` by protocol.

    `where` is bundled, code, hub or the folder of $NHZOO_AGENTS that it is in.
    """

    name: str
    path: Path | None
    params: int | None
    description: str
    where: str
    loss: float | None = None
    scores: dict[str, KnownScore] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self) | {"path": str(self.path) if self.path else None}


def ranked(protocol: str = "monk-lite-v1", order: Order = "score") -> list[ListedAgent]:
    """List every agent that `nhzoo.load` knows by name, best first, by `order`.

    Scores rank under one protocol, the highest mean first; loss and size the smallest first. Agents
    of which that is not known come last.
    """
    protocol = get_protocol(protocol).id
    if order not in get_args(Order):
        raise InputError(f"order {order!r}: choose one of {', '.join(get_args(Order))}")

    def place(agent: ListedAgent) -> tuple[float, str]:
        known = {
            "score": -agent.scores[protocol].mean if protocol in agent.scores else None,
            "loss": agent.loss,
            "size": agent.params,
            "name": 0,
        }[order]
        return math.inf if known is None else known, agent.name

    return sorted(map(about, registry.list_agents()), key=place)


def about(listed: Listed) -> ListedAgent:
    """What is known of one agent of the registry."""
    fields = listed.name, listed.path, listed.params, listed.description
    if listed.path is None:
        results = CHECKOUT / "leaderboard" / "results" / listed.name if CHECKOUT else None
        return ListedAgent(*fields, "code", None, _played(results) if results else {})
    scores = _of_card(listed.path) | _played(listed.path / "results")
    return ListedAgent(*fields, _where(listed), _loss(listed.path), scores)


def _where(listed: Listed) -> str:
    assert listed.path is not None
    if listed.name.startswith("hf://"):
        return "hub"
    bundled = registry.bundled()
    return "bundled" if listed.path.parent in bundled else str(listed.path.parent)


def _loss(folder: Path) -> float | None:
    """The held-out loss that the entry was published with, if it was measured."""
    try:
        training = registry.read_config(folder).get("training")
    except InputError:
        return None
    validation = training.get("validation") if isinstance(training, dict) else None
    return _number(validation.get("loss")) if isinstance(validation, dict) else None


def _of_card(folder: Path) -> dict[str, KnownScore]:
    """The scores that a card gives to programs; none where it is not as ours are."""
    try:
        # Not by the hub's client, which takes as long to import as all else here.
        given = yaml.safe_load(_head(folder))["model-index"][0]["results"]
        scores = [_of_index(one) for one in given]
    except Exception:  # anybody's text: whatever a parser may raise
        return {}
    return {name: score for name, score in scores if name in PROTOCOLS and score}


def _head(folder: Path) -> str:
    """The YAML at the beginning of a card."""
    text = files.read_bounded(files.inside(folder, "README.md"), files.MEGABYTE).decode()
    return text.removeprefix("---\n").partition("\n---\n")[0]


def _of_index(one: Any) -> tuple[str, KnownScore | None]:
    """A protocol and its score, of an element of a card's `model-index`."""
    about = one["dataset"]
    values = {metric["type"]: _number(metric["value"]) for metric in one["metrics"]}
    games = about["args"].get("games")
    mean = values.get("mean_score")
    if mean is None:
        return str(about["config"]), None
    ends = values.get("mean_score_low"), values.get("mean_score_high")
    return str(about["config"]), KnownScore(mean, *ends, games if isinstance(games, int) else None)


def _played(folder: Path) -> dict[str, KnownScore]:
    """The scores of the results in a folder, one a protocol, as each result says."""
    found = {}
    for path in sorted(folder.glob("*/result.json")):
        try:
            result = files.read_json(path)
        except InputError:
            continue
        summary = result.get("summary")
        if not isinstance(summary, dict) or str(result.get("protocol")) not in PROTOCOLS:
            continue
        mean = _number(summary.get("mean_score"))
        if mean is None:
            continue
        ends, games = summary.get("mean_score_ci95"), summary.get("episodes")
        low, high = map(_number, ends) if isinstance(ends, list) and len(ends) == 2 else (None,) * 2
        known = KnownScore(mean, low, high, games if isinstance(games, int) else None)
        found[result["protocol"]] = known
    return found


def _number(value: Any) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None
