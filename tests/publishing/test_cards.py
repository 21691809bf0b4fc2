"""Cards: from facts alone, and whatever an author's words are, they stay words."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nhzoo.envs.protocols import get_protocol
from nhzoo.errors import InputError
from nhzoo.evaluation import results
from nhzoo.publishing import card_facts, cards, learning_curve
from nhzoo.publishing.card_facts import Facts, read_facts
from nhzoo.publishing.cards import model_card
from tests import ROOT

BUNDLED = sorted(path.parent for path in (ROOT / "agents").glob("*/config.json"))


def head(card: str) -> dict:
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.S)[1])


def played(entry: Path) -> list[Path]:
    results_of = ROOT / "leaderboard" / "results" / entry.name
    return sorted(path.parent for path in results_of.glob("*/result.json"))


@pytest.mark.parametrize("entry", BUNDLED, ids=lambda path: path.name)
def test_bundled_cards_say_what_their_facts_are(entry):
    assert (entry / "README.md").read_text() == model_card(read_facts(entry, None, played(entry)))


@pytest.mark.parametrize("entry", BUNDLED, ids=lambda path: path.name)
def test_a_card_has_what_a_reader_needs(entry):
    facts = read_facts(entry, None, played(entry))
    card = model_card(facts)
    for score in facts.scores:
        low, high = score.summary["mean_score_ci95"]
        line = next(line for line in card.splitlines() if f"| `{score.protocol.id}` |" in line)
        assert f"{score.summary['mean_score']:,.1f} [{low:,.1f}, {high:,.1f}]" in line
    training = facts.config["training"]
    cloned = training["method"] == "bc"
    of_its_kind = ("autoascend-monk-v1", "held-out loss") if cloned else ("by playing (IMPALA)",)
    for words in (
        f'nhzoo.load("hf://nhzoo/{entry.name}")',
        "nhzoo evaluate hf://",
        training["command"],
        "exact FLOPs",
        *of_its_kind,
        "## Limits",
        "It imitates" if cloned else "It was paid for",
        "@misc{",
    ):
        assert words in card
    index = head(card)["model-index"][0]
    assert index["name"] == entry.name
    assert all(metric["verified"] is False for r in index["results"] for metric in r["metrics"])


def test_the_hubs_own_reader_takes_head_and_results():
    from huggingface_hub import ModelCard, parse_eval_result_entries

    facts = read_facts(BUNDLED[0], None, played(BUNDLED[0]))
    card = ModelCard(model_card(facts))
    assert card.data.library_name == "nhzoo"
    assert {result.metric_type for result in card.data.eval_results} >= {"mean_reward"}
    (text,) = cards.eval_results(facts).values()
    (entry,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.task_id) == ("nhzoo/results", "monk-lite-v1")
    assert isinstance(entry.value, float)


@pytest.mark.parametrize("entry", BUNDLED, ids=lambda path: path.name)
def test_the_hubs_own_reader_loses_nothing_of_a_head(entry):
    from huggingface_hub import ModelCard

    card = (entry / "README.md").read_text()
    assert ModelCard(card).data.to_dict() == head(card)


def test_a_name_is_escaped_in_text_and_as_it_is_in_code():
    card = model_card(
        Facts("it's <mine> & *yours*", "you/it's", {"training": {"command": "a < b"}})
    )
    assert r"# it's \<mine\> \& \*yours\*" in card
    assert "results/it's <mine> & *yours* --audit hf://you/it's" in card and "\na < b\n" in card
    assert "it&#39;s" not in outside_code(card).split("## Cite it")[0]


def test_scores_are_counted_from_the_games_not_from_the_claim(tmp_path):
    entry = BUNDLED[0]
    folder = tmp_path / "result"
    folder.mkdir()
    for name in ("result.json", "episodes.jsonl"):
        shutil.copy(played(entry)[0] / name, folder / name)
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(re.sub(r'"mean_score": [\d.]+', '"mean_score": 9e9', text))
    score = read_facts(entry, None, [folder]).scores[0]
    assert score.summary["mean_score"] < 10_000
    (folder / "result.json").write_text(text.replace('"weights_sha256": "', '"weights_sha256": "0'))
    with pytest.raises(InputError, match="is of other weights than this entry's"):
        read_facts(entry, None, [folder])


def test_what_an_author_adds_below_the_line_is_kept(entry):
    cards.write_card(entry)
    readme = entry / "README.md"
    readme.write_text(readme.read_text() + "\n## Mine\n\nMore.\n")
    cards.write_card(entry)
    once = readme.read_text()
    cards.write_card(entry)
    assert readme.read_text() == once
    assert once.endswith("## Mine\n\nMore.\n")
    readme.write_text(once.replace("license: apache-2.0", "license: mit"))
    assert head(cards.write_card(entry))["license"] == "mit"


HOSTILE = [
    "```\n# heading\n<script>alert(1)</script>",
    "---\nlibrary_name: evil\n---",
    "a: b\n- c: !!python/object/apply:os.system ['x']",
    "![x](https://example.org/x.png) [y](javascript:alert(1))",
    "- a list",
    "1. another",
    "---",
    "see https://example.org or www.example.org, ask me@example.org",
    "$$x$$",
    "| a | b |\n|---|---|",
    "\x1b[31mred\u202e",
    "&lt;img src=x&gt;",
    "```" * 30,
    "",
    "true",
]
words = st.sampled_from(HOSTILE) | st.text(max_size=80)
values = words | st.integers(-(10**400), 10**400) | st.none() | st.booleans() | st.lists(words)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    config=st.fixed_dictionaries(
        {},
        optional={
            "description": values,
            "params": values,
            "architecture": values,
            "policy": values | st.fixed_dictionaries({"hidden": values}),
            "sampling": values | st.fixed_dictionaries({"temperature": values}),
            "training": values
            | st.dictionaries(
                st.sampled_from(
                    [
                        "method",
                        "data",
                        "samples",
                        "flops",
                        "seconds",
                        "threads",
                        "command",
                        "validation",
                        "processes",
                        "device",
                        "unique_samples",
                        "rewards",
                        "extras",
                        "mean_score",
                        "start",
                        "teacher",
                    ]
                ),
                values | st.fixed_dictionaries({"entry": values, "flops": values}),
            ),
        },
    ),
    end=words,
    agent=values,
)
def test_hostile_words_stay_words(config, end, agent):
    protocol = get_protocol("smoke-v1")
    rows = [results_row(index) for index in range(8)]
    result = {"temperature": agent, "machine": agent, "versions": {"nle": agent}}
    score = card_facts.Score(protocol, result, results.summarize(rows), "")
    replay = card_facts.Replay(3, "smoke-v1", end)
    facts = Facts("mine", "you/mine", config, (score,), None, replay)
    card = model_card(facts)
    assert set(head(card)) <= {
        *("library_name", "license", "pipeline_tag", "tags", "datasets", "model-index")
    }
    assert head(card)["library_name"] == "nhzoo"
    body = outside_code(card.split("\n---\n", 1)[1])
    assert not re.search(r"(?<!\\)<(?!!-- What)", body)
    assert not re.search(r"(?<!\\)\[(?!Play|nhzoo\]|[\d.,-]+,)", re.sub(r"`[^`\n]*`", "", body))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", card)
    bare = re.sub(r"`[^`\n]*`", "", body)
    assert not re.search(r"https?:(?!//huggingface\.co/|//nhzoo-)|www\.|[^\\]@(?=example)", bare)
    assert not re.search(r"^\s*([-+=]|\d+[.)])", body, re.M)
    titles = re.findall(r"^#+ .*$", body, re.M)
    assert len(titles) == 7, titles
    for text in cards.eval_results(facts).values():
        assert len(yaml.safe_load(text)) == 1


def outside_code(card: str) -> str:
    """A card without its blocks of code, by the rule of CommonMark."""
    kept, fence = [], ""
    for line in card.splitlines():
        found = re.match(r"(`{3,})", line)
        if fence:
            if found and len(found[1]) >= len(fence) and not line.strip("`").strip():
                fence = ""
            continue
        if found:
            fence = found[1]
            continue
        kept.append(line)
    assert not fence, "a block of code is not ended"
    return "\n".join(kept)


def results_row(index: int) -> dict:
    row = {
        "index": index,
        "core": 1,
        "disp": 2,
        "character": "mon-hum-neu-mal",
        "score": 10.0 * index,
        "steps": 100,
        "turns": 90,
        "depth": 1,
        "max_depth": 2,
        "experience_level": 1,
        "progression": 0.01,
        "end_status": "death",
        "cause": "killed",
        "keys": 100,
        "sha256": "0" * 64,
    }
    results.check_row(row, "row")
    return row


def test_curves(tmp_path):
    path = tmp_path / "curve.csv"
    assert learning_curve.read_curve(path) is None
    path.write_text("samples,flops,train_loss,validation_loss\n10,1e9,2.5,\n20,2e9,2.0,2.1\n")
    assert learning_curve.read_curve(path).rows == ((10.0, 1e9, 2.5, None), (20.0, 2e9, 2.0, 2.1))
    path.write_text("samples,flops,train_loss,validation_loss\n")
    assert learning_curve.read_curve(path) is None
    for bad in ("x\n", "samples,flops,train_loss,validation_loss\n1,2\n", "\n,,,\n"):
        path.write_text(bad)
        with pytest.raises(InputError, match=str(path)):
            learning_curve.read_curve(path)
    path.write_text("samples,flops,train_loss,validation_loss\n1,2,x,\n")
    with pytest.raises(InputError, match="no number"):
        learning_curve.read_curve(path)


def test_a_played_curve_has_the_mean_score_of_the_games_between_its_rows(tmp_path):
    log, path = tmp_path / "log.jsonl", tmp_path / "curve.csv"
    rows = [
        {"frames": 100, "flops": 1e9, "games": 0},
        {"frames": 110, "flops": 1.1e9, "games": 1, "score": 40.0},
        {"frames": 200, "flops": 2e9, "games": 4, "score": 60.0},
        {"frames": 210, "flops": 2.1e9, "games": 6, "score": 10.0},
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.write_bytes(learning_curve.played_csv(log))
    curve = learning_curve.read_curve(path)
    assert curve.fields == learning_curve.PLAYED
    assert curve.rows == ((100, 1e9, None, 0), (200, 2e9, 55.0, 4), (210, 2.1e9, 10.0, 2))
    card = model_card(Facts("mine", "you/mine", {"training": {"method": "impala"}}, (), curve))
    assert "| 100 | 1.0e+09 | - | 0 |\n| 200 | 2.0e+09 | 55.0 | 4 |\n" in card
