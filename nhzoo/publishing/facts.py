"""What is known of an agent, in groups, and the commands that reproduce it. Nothing is loaded."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nhzoo.agents import registry
from nhzoo.agents.registry import BUILT_IN, Listed
from nhzoo.data.traces import bundled_names
from nhzoo.envs.protocols import PROTOCOLS
from nhzoo.publishing.listing import KnownScore, ListedAgent, about

_NETWORK = ("architecture", "params", "train_flops_per_frame", "preprocessing_version")
_NAMES = {
    "architecture": "architecture",
    "params": "parameters",
    "train_flops_per_frame": "training FLOPs per frame",
    "preprocessing_version": "preprocessing version",
    "unique_samples": "different samples",
    "flops": "training FLOPs",
    "mean_score": "mean score in training",
    "extras": "reward shaping",
}
_OWN_GROUPS = ("name", "description", "training", "sampling", "policy", *_NETWORK)
_LINES = ("recipe", "command", "validation", "start", "teacher")
"""Facts of `training` that are not shown as they are: the command says them, or a line does."""


@dataclass(frozen=True)
class AgentFacts:
    """What is known of an agent. `groups` maps a heading to facts, `commands` a purpose to a line.

    `config` is that of an entry, unchanged; empty for agents that are code.
    """

    listed: ListedAgent
    groups: dict[str, dict[str, Any]]
    commands: dict[str, str]
    config: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """As one JSON object: the entry's config, with its name, path, scores and commands."""
        known = self.listed.as_json()
        own = {key: known[key] for key in ("name", "path", "where", "loss", "scores")}
        return self.config | own | {"commands": self.commands}


def facts_of(agent: str) -> AgentFacts:
    """Read what is known of an agent: of an entry by name, folder or hf:// name, or of code.

    InputError for what is neither, as for `registry.find_entry`.
    """
    if agent in BUILT_IN and registry.find(agent) is None:
        listed = about(Listed(agent, None, None, BUILT_IN[agent]))
        groups = {"Agent": _identity(listed), "Scores": _scores(listed)}
        return AgentFacts(listed, _filled(groups), _commands(agent, listed, {}), {})
    located = registry.find_entry(agent)
    folder, config = located.folder, registry.read_config(located.folder)
    params = config.get("params")
    described = str(config.get("description", ""))
    name = located.source or folder.resolve().name
    params = params if isinstance(params, int) else None
    listed = replace(about(Listed(name, folder, params, described)), name=folder.resolve().name)
    source = located.source or (listed.name if registry.find(listed.name) == folder else agent)
    training = _mapping(config.get("training"))
    rest = {key: value for key, value in config.items() if key not in _OWN_GROUPS}
    groups = {
        "Agent": _identity(listed) | {_words(key): _shown(value) for key, value in rest.items()},
        "Network": {_words(key): config[key] for key in _NETWORK if key in config}
        | {name: _list(config.get(key)) for key, name in (("policy", "sizes"), ("sampling",) * 2)},
        "Training": _trained(training),
        "Scores": _scores(listed),
    }
    return AgentFacts(listed, _filled(groups), _commands(source, listed, training), config)


def _identity(listed: ListedAgent) -> dict[str, Any]:
    return {
        "name": listed.name,
        "what it is": listed.description,
        "from": listed.where,
        "folder": str(listed.path) if listed.path else None,
    }


def _trained(training: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        _words(key): f"{value:.1e}" if key == "flops" else _shown(value)
        for key, value in training.items()
        if key not in _LINES and value not in ("", None) and not isinstance(value, dict)
    }
    for key in ("start", "teacher"):
        if entry := _mapping(training.get(key)).get("entry"):
            found[key] = entry
    held_out = _mapping(training.get("validation"))
    if isinstance(held_out.get("loss"), (int, float)):
        error = held_out.get("loss_se")
        spread = f" +- {error:.3f}" if isinstance(error, (int, float)) else ""
        found["held-out loss"] = f"{held_out['loss']:.3f}{spread} nats per key"
    if isinstance(held_out.get("accuracy"), (int, float)):
        found["held-out accuracy"] = f"{held_out['accuracy']:.1%}"
    return found


def _scores(listed: ListedAgent) -> dict[str, Any]:
    return {name: _score(listed.scores[name]) for name in PROTOCOLS if name in listed.scores}


def _score(score: KnownScore) -> str:
    ends = ""
    if score.low is not None and score.high is not None:
        ends = f" [{score.low:,.1f}, {score.high:,.1f}]"
    games = f" of {score.games:,} games" if score.games else ""
    return f"{score.mean:,.1f}{ends}{games}"


def _commands(source: str, listed: ListedAgent, training: Mapping[str, Any]) -> dict[str, str]:
    """One line each, to be typed as it is: how to see the agent, and where its figures are from."""
    agent, name = shlex.quote(source), shlex.quote(listed.name)
    known = [protocol for protocol in PROTOCOLS if protocol in listed.scores]
    found = {"watch it play": f"nhzoo watch {agent}"}
    for protocol in known or ["smoke-v1"]:
        out = f"results/{name}-{protocol}"
        score = listed.scores.get(protocol)
        all_games = score is None or score.games in (None, PROTOCOLS[protocol].games)
        some = "" if all_games or score is None else f" --episodes {score.games}"
        evaluate = f"nhzoo evaluate {agent} --protocol {protocol}{some} --out {out}"
        found[f"its score on {protocol}"] = evaluate
        found[f"check that, {protocol}"] = f"nhzoo verify {out} --audit {agent}"
    data = training.get("data")
    if listed.loss is not None and data in bundled_names():
        found["its held-out loss"] = f"nhzoo loss {agent} --data {data} --split validation"
    if isinstance(training.get("command"), str):
        found["its training"] = training["command"]
    return found


def _filled(groups: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without facts that are not known, and without groups that are empty."""
    kept = {
        heading: {name: value for name, value in facts.items() if value is not None}
        for heading, facts in groups.items()
    }
    return {heading: facts for heading, facts in kept.items() if facts}


def _list(value: Any) -> str | None:
    pairs = _mapping(value).items()
    return ", ".join(f"{_words(key)} {_shown(part)}" for key, part in pairs) or None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _words(key: str) -> str:
    return _NAMES.get(key, key.replace("_", " "))


def _shown(value: Any) -> Any:
    return value if isinstance(value, (str, int, float)) else json.dumps(value)
