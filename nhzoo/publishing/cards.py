"""Model cards: the README of a zoo entry, written from facts, with metadata for the hub.

Facts are what the entry's folder holds and what its games came to. Some of them may be another
author's words, so they are quoted: none of them becomes markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nhzoo.data.traces import bundled_names
from nhzoo.envs.protocols import get_protocol
from nhzoo.errors import InputError
from nhzoo.evaluation.statistics import score_text, summary_ci95
from nhzoo.hub.repos import HUB_URL, ORGANISATION, parse
from nhzoo.publishing.card_facts import KEPT, Facts, Score, read_facts
from nhzoo.publishing.learning_curve import curve_table
from nhzoo.runtime import files
from nhzoo.runtime.console import clean

ENVIRONMENT = "NetHackChallenge-v0"
BENCHMARK = f"{ORGANISATION}/results"
"""The dataset that results are of and are kept in."""

PLAYER = f"https://{ORGANISATION}-leaderboard.static.hf.space/play.html"
"""The page that plays the recording of any entry on the hub: `?entry=org/name`."""

_METHODS = {"bc": "by behavioural cloning ", "impala": "by playing (IMPALA) "}


def model_card(facts: Facts) -> str:
    """The README.md of an entry."""
    parts = [_head(facts), _what(facts)]
    for title, body in (
        ("Scores", _scores(facts)),
        ("Watch it", _watch(facts)),
        ("Use it", _use(facts)),
        ("Training", _training(facts)),
        ("Limits", _limits(facts)),
        ("Cite it", _cite(facts)),
    ):
        if body:
            parts.append(f"## {title}\n\n{body}")
    card = "\n\n".join(part.rstrip() for part in parts)
    return f"{card}\n\n{KEPT}\n" + (f"\n{facts.kept}\n" if facts.kept else "")


def eval_results(facts: Facts) -> dict[str, bytes]:
    """`.eval_results/<protocol>.yaml`, by which the hub gathers scores of whole protocols."""
    found = {}
    for score in facts.scores:
        if score.all_games:
            row = {
                "dataset": {"id": BENCHMARK, "task_id": score.protocol.id},
                "value": round(score.summary["mean_score"], 2),
                "source": {
                    "url": f"{HUB_URL}/{facts.repo}/tree/main/results/{score.protocol.id}",
                    "name": "every game's score",
                },
                "notes": f"mean of {score.summary['episodes']:,} games, 95 % interval "
                f"{_ends(score.summary)}; {_setting(score)}",
            }
            found[f".eval_results/{score.protocol.id}.yaml"] = _yaml([row]).encode()
    return found


def _ends(summary: Mapping[str, Any]) -> str:
    ends = summary_ci95(summary)
    return "not known" if ends is None else f"{ends[0]:,.1f} to {ends[1]:,.1f}"


def write_card(folder: Path, repo: str | None = None, played: Sequence[Path] = ()) -> str:
    """Write an entry's README.md from the facts; returns its text."""
    card = model_card(read_facts(folder, repo, played))
    files.atomic_write(folder / "README.md", card.encode())
    return card


def quote(value: object, longest: int = 300) -> str:
    """Anybody's words in a line of Markdown: no markup, no line breaks."""
    text = " ".join(clean(str(value)).split())[:longest]
    text = re.sub(r"([\\`*_\[\]<>|#~&$@])", r"\\\1", text)
    text = re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", text)  # no list, no line across
    return re.sub(r"(?i)(https?|ftp|www)([:.])", r"\1\\\2", text)  # nor a link by itself


def code(value: object, language: str = "sh") -> str:
    """Anybody's words as a block of code that they cannot end."""
    text = clean(str(value)).strip()[:4_000]
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def yaml_head(card: Mapping[str, Any]) -> str:
    """The lines between the two --- of a card."""
    return f"---\n{_yaml(card)}---"


def _yaml(value: Any) -> str:
    import yaml

    # ASCII and quoted where need be: whatever the words are, they stay words.
    return str(yaml.safe_dump(value, sort_keys=False, width=96))


def _head(facts: Facts) -> str:
    training, params = _dict(facts.config.get("training")), facts.config.get("params")
    tags = ["reinforcement-learning", "deep-reinforcement-learning", "nethack", "nle", ENVIRONMENT]
    if training.get("method") == "bc":
        tags += ["imitation-learning", "behavioral-cloning"]
    if isinstance(params, int):
        tags.append(f"params:{params}")
    tags += [f"nhzoo:{score.protocol.id}" for score in facts.scores]
    card: dict[str, Any] = {
        "library_name": "nhzoo",
        "license": facts.license,
        "pipeline_tag": "reinforcement-learning",
        "tags": tags,
    }
    if dataset := _dataset(training.get("data")):
        card["datasets"] = [dataset]
    if facts.scores:
        index = [_index(facts, score) for score in facts.scores]
        card["model-index"] = [{"name": facts.name, "results": index}]
    return yaml_head(card)


def _index(facts: Facts, score: Score) -> dict[str, Any]:
    summary = score.summary
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
    return {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {
            "type": ENVIRONMENT,
            "name": f"{ENVIRONMENT}, protocol {score.protocol.id}",
            "config": score.protocol.id,
            "args": {"games": summary["episodes"], "step_cap": score.protocol.step_cap},
        },
        "metrics": [
            {"type": kind, "name": name, "value": value, "verified": False}
            for kind, name, value in metrics
        ],
        "source": {
            "name": "every game's score",
            "url": f"{HUB_URL}/{facts.repo}/tree/main/results/{score.protocol.id}",
        },
    }


def _what(facts: Facts) -> str:
    config = facts.config
    policy = _dict(config.get("policy"))
    size = _int(config.get("params"))
    data = _dict(config.get("training")).get("data")
    method = _METHODS.get(str(_dict(config.get("training")).get("method")), "")
    made = f", trained {method}on `{_plain(data)}`" if data else ""
    description = config.get("description")
    said = f"{quote(description)}\n\n" if description else ""
    return (
        f"# {quote(facts.name)}\n\n{said}"
        f"An agent for NetHack (NLE 1.3, the NetHackChallenge interface): a recurrent policy "
        f"(`{_plain(config.get('architecture'))}`, {_int(policy.get('hidden'))} units) with "
        f"**{size} parameters**, all counted{made}. It reads what a terminal shows (characters, "
        "colours, cursor) and recalls the keys it pressed and where it has been on the level. "
        f"Loaded and measured with [nhzoo]({HUB_URL}/{ORGANISATION}); it runs no code of its own."
    )


def _scores(facts: Facts) -> str:
    if not facts.scores:
        return "It has not been measured under a protocol yet."
    lines = [
        "| protocol | games | mean score, 95 % interval | of AutoAscend's | median | progression |",
        "|---|---|---|---|---|---|",
    ]
    for score in facts.scores:
        summary = score.summary
        of = "" if score.all_games else f" of {score.protocol.games:,}"
        lines.append(
            f"| `{score.protocol.id}` | {summary['episodes']:,}{of} | "
            f"{score_text(summary)} | {score.share or '-'} | "
            f"{summary['median_score']:,.0f} | {100 * summary['mean_progression']:.2f} % |"
        )
    ends = [
        f"`{score.protocol.id}`: {_setting(score)}; deepest level {score.summary['max_depth']}, "
        f"{score.summary['ascensions']:,} ascensions, {score.summary['mean_turns']:,.0f} turns and "
        f"{score.summary['mean_steps']:,.0f} steps a game."
        for score in facts.scores
    ]
    return (
        "\n".join(lines) + "\n\nNLE's in-game score; the interval is a BCa bootstrap of the mean "
        "over games. Shares of AutoAscend's mean are against its bundled games, which have seeds "
        "of their own. A score compares only within its protocol and machine type.\n\n"
        + "\n".join(ends)
    )


def _setting(score: Score) -> str:
    result, protocol = score.result, score.protocol
    temperature = result.get("temperature")
    sampling = "greedy" if temperature == 0 else f"sampled at temperature {_number(temperature)}"
    if result.get("patience"):
        sampling += f", patience {_int(result['patience'])}"
    return (
        f"{_plain(protocol.character)}, at most {protocol.step_cap:,} steps, {sampling}, NLE "
        f"{_word(_dict(result.get('versions')).get('nle'))} on {_word(result.get('machine'))}"
    )


def _watch(facts: Facts) -> str:
    if facts.replay is None:
        return ""
    shown = f"game {facts.replay.game} of `{_plain(facts.replay.protocol)}`"
    return (
        f"[Play {shown} in the browser]({PLAYER}?entry={facts.repo}): {quote(facts.replay.end)}. "
        "Or in a terminal, with asciinema:\n\n"
        + code(f"asciinema play {HUB_URL}/{facts.repo}/resolve/main/replay.cast")
    )


def _use(facts: Facts) -> str:
    ref = f"hf://{facts.repo}"
    measured = facts.scores[0].protocol if facts.scores else get_protocol("monk-lite-v1")
    protocol, episodes = measured.id, min(16, measured.games)
    use = (
        f'import nhzoo\n\nif __name__ == "__main__":  # evaluate() starts worker processes\n'
        f'    agent = nhzoo.load("{ref}")\n'
        f'    result = nhzoo.evaluate(agent, "{protocol}", episodes={episodes}, workers=2)\n'
        f'    print(result.result["summary"]["mean_score_ci95"])'
    )
    measure = (
        f"nhzoo watch {ref}\n"
        f"nhzoo evaluate {ref} --protocol {protocol} --out results/{facts.name}\n"
        f"nhzoo verify results/{facts.name} --audit {ref}"
    )
    parts = [code(use, "python"), "Measure it again, and check that the games are its own:"]
    parts.append(code(measure))
    if command := _dict(facts.config.get("training")).get("command"):
        parts += ["Train it again:", code(command)]
    return "\n\n".join(parts)


def _training(facts: Facts) -> str:
    training = _dict(facts.config.get("training"))
    if not training:
        return "How it was trained is not recorded."
    loss = _dict(training.get("validation"))
    rows = []
    if isinstance(loss.get("loss"), float):
        of = f"{_int(loss.get('frames'))} keys of {_int(loss.get('games'))} games"
        rows.append(("held-out loss", f"{loss['loss']:.4f} nats per key ({of})"))
    if isinstance(loss.get("accuracy"), float):
        rows.append(("held-out accuracy", f"{loss['accuracy']:.1%}"))
    rows += _played(training)
    seen = f"{_int(training.get('samples'))} samples seen"
    if "unique_samples" in training:
        seen += f", {_int(training['unique_samples'])} unique"
    rows.append(("data", f"`{_plain(training.get('data'))}`, {seen}"))
    flops, a_frame = training.get("flops"), facts.config.get("train_flops_per_frame")
    if _is_number(flops):
        rows.append(("training compute", f"{flops:.3e} exact FLOPs, {_int(a_frame)} a frame"))
    if _is_number(training.get("seconds")):
        by = f"{_int(training.get('threads'))} CPU thread(s)"
        if _int(training.get("processes")) not in ("1", "?"):
            by = f"{_int(training.get('processes'))} processes of {by}"
        if training.get("device", "cpu") != "cpu":
            by += f", {quote(training.get('device'))}"
        rows.append(("training time", f"{training['seconds'] / 60:.0f} minutes, {by}"))
    chosen = _dict(facts.config.get("sampling"))
    sampling = f"softmax at temperature {_number(chosen.get('temperature'))}"
    if chosen.get("patience"):
        sampling += (
            f", once more as hot for every {_int(chosen['patience'])} screens without a turn"
        )
    rows.append(("sampling", sampling))
    table = "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)
    return table + (f"\n\n{curve_table(facts.curve)}" if facts.curve else "")


def _played(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is special to an entry that learnt by playing."""
    rows = []
    for name, said in (("start", "began as"), ("teacher", "held to")):
        entry = _dict(training.get(name))
        if entry:
            flops = entry.get("flops")
            cost = f" ({flops:.3e} FLOPs)" if _is_number(flops) else ""
            rows.append((said, f"`{_plain(entry.get('entry'))}`{cost}"))
    if "rewards" in training:
        extras = training.get("extras") or "none"
        rows.append(("rewards", f"score, {quote(training['rewards'])}; extras: {quote(extras)}"))
    if isinstance(training.get("mean_score"), float):
        rows.append(
            ("mean score of its latest games in training", f"{training['mean_score']:,.1f}")
        )
    return rows


_LIMITS = (
    "It knows the characters it was trained on, and seeds give the same dungeons on one machine "
    "type only. Under a protocol a game has one legal trace per agent: playing again to pick the "
    "best shows."
)
_HABITS = {
    "bc": "It imitates, so it has the expert's habits without its plans. ",
    "impala": "It was paid for the growth of the score and for nothing else, and plays like that. ",
}


def _limits(facts: Facts) -> str:
    method = _dict(facts.config.get("training")).get("method")
    return _HABITS.get(str(method), "") + _LIMITS


def _cite(facts: Facts) -> str:
    key = re.sub(r"[^a-z0-9]", "", facts.name.lower()) or "agent"
    entry = (
        f"@misc{{nhzoo-{key},\n  title = {{{facts.name}: an agent of the nhzoo zoo for NetHack}},\n"
        f"  author = {{{facts.repo.partition('/')[0]}}},\n  url = {{{HUB_URL}/{facts.repo}}},\n"
        f"  note = {{revision: the commit, as in hf://{facts.repo}@COMMIT}}\n}}"
    )
    return (
        "Name the commit that you used: `source` in the `result.json` of an evaluation, or "
        f"`nhzoo pull {facts.repo}`.\n\n" + code(entry, "bibtex")
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


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    """Whether it is one that can be counted with: an int may be too large to become a float."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and -1e300 < value < 1e300


def _int(value: object) -> str:
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
