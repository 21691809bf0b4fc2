"""Model cards: the README of a zoo entry, written from facts, with metadata for the hub.

Facts are what the entry's folder holds and what its games came to. Some of them may be another
author's words, so they are quoted: none of them becomes markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup

from nhzoo.data.traces import bundled_names
from nhzoo.envs.protocols import get_protocol
from nhzoo.errors import InputError
from nhzoo.evaluation.statistics import score_text, summary_ci95
from nhzoo.hub.repos import HUB_URL, ORGANISATION, parse
from nhzoo.publishing.card_facts import KEPT, Facts, Score, read_facts
from nhzoo.publishing.html import environment
from nhzoo.publishing.learning_curve import CLONED, table_rows
from nhzoo.runtime import files
from nhzoo.runtime.console import clean

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

ENVIRONMENT = "NetHackChallenge-v0"
BENCHMARK = f"{ORGANISATION}/results"
"""The dataset that results are of and are kept in."""

PLAYER = f"https://{ORGANISATION}-leaderboard.static.hf.space/play.html"
"""The page that plays the recording of any entry on the hub: `?entry=org/name`."""


def model_card(facts: Facts) -> str:
    """The README.md of an entry."""
    config = facts.config
    training = files.as_object(config.get("training"))
    return markdown(
        "model_card.md",
        head=Markup(_head(facts).to_yaml()),
        name=facts.name,
        repo=facts.repo,
        description=config.get("description"),
        architecture=config.get("architecture"),
        units=files.as_object(config.get("policy")).get("hidden"),
        params=config.get("params"),
        data=training.get("data"),
        method=training.get("method"),
        scores=facts.scores,
        replay=facts.replay,
        source=f"hf://{facts.repo}",
        protocol=facts.scores[0].protocol if facts.scores else get_protocol("monk-lite-v1"),
        command=training.get("command"),
        trained=training,
        sampling=files.as_object(config.get("sampling")),
        flops_per_frame=config.get("train_flops_per_frame"),
        curve=table_rows(facts.curve) if facts.curve else [],
        cloned=facts.curve is not None and facts.curve.fields == CLONED,
        key=re.sub(r"[^a-z0-9]", "", facts.name.lower()) or "agent",
        kept=facts.kept,
    )


@cache
def _templates() -> Environment:
    env = environment()
    env.filters |= {
        "quote": quote,
        "code": code,
        "plain": _plain,
        "integer": _integer,
        "json_number": _number,
        "object": files.as_object,
        "score_text": score_text,
        "setting": _setting,
    }
    env.tests["finite"] = _is_number
    env.globals |= {
        "hub": HUB_URL,
        "organisation": ORGANISATION,
        "player": PLAYER,
        "line": Markup(KEPT),
    }
    return env


def markdown(template: str, kept: str, **values: Any) -> str:
    """A card from its template; `kept` are the author's own words, as they are.

    What is neither quoted, a block of code nor Markup is escaped as HTML is.
    """
    return _templates().get_template(template).render(values, kept=Markup(kept))


def eval_results(facts: Facts) -> dict[str, bytes]:
    """`.eval_results/<protocol>.yaml`, by which the hub gathers scores of whole protocols."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    found = {}
    for score in facts.scores:
        if score.all_games:
            entry = EvalResultEntry(
                dataset_id=BENCHMARK,
                task_id=score.protocol.id,
                value=round(score.summary["mean_score"], 2),
                source_url=_source(facts, score),
                source_name="every game's score",
                notes=f"mean of {score.summary['episodes']:,} games, 95 % interval "
                f"{_ends(score.summary)}; {_setting(score)}",
            )
            written = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
            found[f".eval_results/{score.protocol.id}.yaml"] = written.encode()
    return found


def _source(facts: Facts, score: Score) -> str:
    return f"{HUB_URL}/{facts.repo}/tree/main/results/{score.protocol.id}"


def _ends(summary: Mapping[str, Any]) -> str:
    ends = summary_ci95(summary)
    return "not known" if ends is None else f"{ends[0]:,.1f} to {ends[1]:,.1f}"


def write_card(folder: Path, repo: str | None = None, played: Sequence[Path] = ()) -> str:
    """Write an entry's README.md from the facts; returns its text."""
    card = model_card(read_facts(folder, repo, played))
    files.atomic_write(folder / "README.md", card.encode())
    return card


def quote(value: object, longest: int = 300) -> Markup:
    """Anybody's words in a line of Markdown: no markup, no line breaks."""
    text = " ".join(clean(str(value)).split())[:longest]
    text = re.sub(r"([\\`*_\[\]<>|#~&$@])", r"\\\1", text)
    text = re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", text)  # no list, no line across
    return Markup(re.sub(r"(?i)(https?|ftp|www)([:.])", r"\1\\\2", text))  # nor a link by itself


def code(value: object, language: str = "sh") -> Markup:
    """Anybody's words as a block of code that they cannot end."""
    text = clean(str(value)).strip()[:4_000]
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{text}\n{fence}")


def _head(facts: Facts) -> ModelCardData:
    from huggingface_hub import ModelCardData

    training, params = files.as_object(facts.config.get("training")), facts.config.get("params")
    tags = ["reinforcement-learning", "deep-reinforcement-learning", "nethack", "nle", ENVIRONMENT]
    if training.get("method") == "bc":
        tags += ["imitation-learning", "behavioral-cloning"]
    if isinstance(params, int):
        tags.append(f"params:{params}")
    tags += [f"nhzoo:{score.protocol.id}" for score in facts.scores]
    dataset = _dataset(training.get("data"))
    return ModelCardData(
        library_name="nhzoo",
        license=facts.license,
        pipeline_tag="reinforcement-learning",
        tags=tags,
        datasets=[dataset] if dataset else None,
        model_name=clean(facts.name) if facts.scores else None,
        eval_results=[one for score in facts.scores for one in _metrics(facts, score)] or None,
    )


def _metrics(facts: Facts, score: Score) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    summary, protocol = score.summary, score.protocol
    ends, deviation = summary_ci95(summary), summary["std_score"]
    reward = f"{summary['mean_score']:.2f}"
    metrics = [
        (
            "mean_reward",
            "mean_reward",
            reward if deviation is None else f"{reward} +/- {deviation:.2f}",
        ),
        ("mean_score", "mean in-game score", round(summary["mean_score"], 2)),
        *(
            (f"mean_score_{end}", f"mean score, {end} end of the 95 % interval", round(value, 2))
            for end, value in zip(("low", "high"), ends or (), strict=False)
        ),
        ("median_score", "median in-game score", round(summary["median_score"], 2)),
        ("progression", "BALROG progression", round(summary["mean_progression"], 5)),
    ]
    return [
        EvalResult(
            task_type="reinforcement-learning",
            task_name="reinforcement-learning",
            dataset_type=ENVIRONMENT,
            dataset_name=f"{ENVIRONMENT}, protocol {protocol.id}",
            dataset_config=protocol.id,
            dataset_args={"games": summary["episodes"], "step_cap": protocol.step_cap},
            metric_type=kind,
            metric_name=name,
            metric_value=value,
            verified=False,
            source_name="every game's score",
            source_url=_source(facts, score),
        )
        for kind, name, value in metrics
    ]


def _setting(score: Score) -> str:
    result, protocol = score.result, score.protocol
    temperature, versions = result.get("temperature"), files.as_object(result.get("versions"))
    sampling = "greedy" if temperature == 0 else f"sampled at temperature {_number(temperature)}"
    if result.get("patience"):
        sampling += f", patience {_integer(result['patience'])}"
    if result.get("min_p"):
        sampling += f", min-p {_number(result['min_p'])}"
    return (
        f"{_plain(protocol.character)}, at most {protocol.step_cap:,} steps, {sampling}, NLE "
        f"{_word(versions.get('nle'))} on {_word(result.get('machine'))}"
    )


def _dataset(data: object) -> str | None:
    """A dataset as the hub names it; None for one that is not there."""
    if not isinstance(data, str):
        return None
    if data in bundled_names():
        return f"{ORGANISATION}/{data}"
    if data.startswith("hf://datasets/"):
        try:
            return parse(data).repo
        except InputError:
            return None
    return None


def _is_number(value: Any) -> bool:
    """Whether it is one that can be counted with: an int may be too large to become a float."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and -1e300 < value < 1e300


def _integer(value: object) -> str:
    return f"{value:,}" if _is_number(value) and isinstance(value, int) else "?"


def _number(value: object) -> str:
    return json.dumps(value) if _is_number(value) else "?"


def _word(value: object) -> str:
    """A version or a type of machine, outside of spans of code: no address, no emphasis."""
    text = str(value)
    return text if re.fullmatch(r"[0-9][0-9.]{0,15}[a-z0-9]{0,5}|[a-zA-Z]\w{0,19}", text) else "?"


def _plain(value: object) -> str:
    """Words for a span of code: nothing that could end it."""
    return re.sub(r"[^\w@./:+-]", "?", clean(str(value)), flags=re.ASCII)[:120] or "?"
