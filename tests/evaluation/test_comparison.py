"""Two results side by side; the page that describes the protocols."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nhzoo.envs.protocols import PROTOCOLS, get_protocol
from nhzoo.errors import InputError
from nhzoo.evaluation.comparison import compare
from nhzoo.evaluation.expert import expert_scores
from nhzoo.evaluation.statistics import Interval
from nhzoo.runtime import files
from tests import ROOT


def row(protocol: str, index: int, score: float, **changes) -> dict:
    spec = get_protocol(protocol).game(index)
    return {
        "index": index,
        "core": spec.core,
        "disp": spec.disp,
        "character": spec.character,
        "score": score,
        "steps": 10,
        "turns": 10,
        "depth": 1,
        "max_depth": 1,
        "experience_level": 1,
        "progression": min(score, 1000) / 1000,
        "end_status": "death",
        "cause": "killed by a newt",
        "keys": 10,
        "sha256": "0" * 64,
    } | changes


def write(folder: Path, scores, protocol="monk-lite-v1", indices=None, **changes) -> Path:
    """A result folder with these scores, games from 0 on."""
    indices = range(len(scores)) if indices is None else indices
    rows = [row(protocol, i, float(s)) for i, s in zip(indices, scores, strict=True)]
    result = {
        "schema_version": 1,
        "agent": folder.name,
        "revision": "1",
        "protocol": protocol,
        "machine": "x86_64",
        "versions": {"nle": "1.3.0"},
    } | changes
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(rows))
    files.atomic_write(folder / "result.json", files.dump_json(result))
    return folder


def test_paired_by_hand(tmp_path):
    a = write(tmp_path / "a", [11, 22, 33, 44, 55, 66])
    b = write(tmp_path / "b", [10, 20, 30, 40, 50, 60])
    found = compare(a, b)
    assert found.paired and found.reason == ""
    assert found.difference["mean"].estimate == 3.5
    assert found.difference["median"].estimate == 3.5
    assert found.difference["iqm"].estimate == 3.5
    assert found.progression.estimate == pytest.approx(0.0035)
    assert found.p_value == 2 / 64
    assert found.test == "sign flips of paired differences, all"
    assert found.verdict == "a scores higher"
    assert compare(b, a).verdict == "b scores higher"
    assert (found.wins.won, found.wins.tied, found.wins.lost, found.wins.share) == (6, 0, 0, 1)
    assert found.correlation == found.rank_correlation == pytest.approx(1)
    assert found.a.mean_score.estimate == 38.5 and found.a.agent == "a"
    # 7.849 x 1.871^2 / 3.5^2 + 1.92 = 4.2: the 6 that a test of signs needs; unpaired 7.849 x
    # (20.58^2 + 18.71^2) / 3.5^2 + 0.96 = 496.6
    assert (found.power.paired, found.power.unpaired) == (6, 497)
    assert "more than the 128 of monk-lite-v1" in found.power.text
    assert any("6 games" in note for note in found.notes)
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["paired"] is True


def test_the_same_folder_twice(tmp_path):
    a = write(tmp_path / "a", [3, 1, 4, 1, 5])
    found = compare(a, a)
    for interval in (*found.difference.values(), found.progression):
        assert (interval.estimate, interval.ends) == (0, None)
    assert found.p_value == 1 and found.verdict == "not settled"
    assert found.power.paired is None and found.power.unpaired is None
    assert "the games of both results are the same" in found.notes


def test_one_game(tmp_path):
    found = compare(write(tmp_path / "a", [500]), write(tmp_path / "b", [1]))
    assert found.verdict == "not settled" and found.p_value == 1
    assert found.correlation is None and found.power.detectable is None
    assert any("one game" in note for note in found.notes)
    assert {d.ends for d in found.difference.values()} == {None}
    assert found.a.mean_score.ends is None and found.progression.ends is None
    json.dumps(found.as_json(), allow_nan=False)


def test_all_equal(tmp_path):
    a, b = write(tmp_path / "a", [7] * 9), write(tmp_path / "b", [5] * 9)
    found = compare(a, b)
    mean = found.difference["mean"]
    assert (mean.estimate, mean.low, mean.high) == (2, None, None)
    assert found.a.mean_score == Interval(7, None, None)
    assert found.p_value == 2 / 512 and found.verdict == "a scores higher"
    assert found.correlation is None
    json.dumps(found.as_json(), allow_nan=False)


def test_common_games_are_paired(tmp_path):
    a = write(tmp_path / "a", [1, 2, 3, 4])
    b = write(tmp_path / "b", [9, 5, 5], indices=[7, 2, 3])
    found = compare(a, b)
    assert found.paired and found.a.games == found.b.games == 2
    assert (found.a.left_out, found.b.left_out) == (2, 1)
    assert found.difference["mean"].estimate == 3.5 - 5
    assert "2 games of a are left out: the other result lacks them" in found.notes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"machine": "aarch64"}, "machine type x86_64 and aarch64"),
        ({"versions": {"nle": "1.3.1"}}, "NLE version 1.3.0 and 1.3.1"),
        ({"machine": None}, "does not name its machine type"),
        ({"versions": [1]}, "does not name its NLE version"),
    ],
)
def test_other_dungeons_are_not_paired(tmp_path, changes, says):
    a = write(tmp_path / "a", [1, 2, 3, 4])
    b = write(tmp_path / "b", [5, 6, 7], **changes)
    found = compare(a, b)
    assert not found.paired and says in found.reason
    assert found.a.games == 4 and found.b.games == 3  # none is left out
    assert found.difference["mean"].estimate == -3.5
    assert found.p_value == 2 / 35  # 1 2 3 4 against 5 6 7, and 4 5 6 7 against 1 2 3
    assert (found.wins.won, found.wins.lost, found.wins.share) == (0, 12, 0)
    assert found.correlation is None and found.power.paired is None
    json.dumps(found.as_json(), allow_nan=False)


def test_no_game_in_common(tmp_path):
    a = write(tmp_path / "a", [1, 2, 3])
    b = write(tmp_path / "b", [2, 2, 4], indices=[10, 11, 12])
    found = compare(a, b)
    assert not found.paired and "no game in common" in found.reason
    assert found.wins.tied == 2 and found.wins.share == (2 + 2 / 2) / 9


def test_protocols_do_not_mix(tmp_path):
    a = write(tmp_path / "a", [1, 2])
    b = write(tmp_path / "b", [1, 2], "smoke-v1")
    with pytest.raises(InputError, match=r"monk-lite-v1 and .* smoke-v1: .* evaluate both"):
        compare(a, b)


def test_what_is_refused(tmp_path):
    good = write(tmp_path / "good", [1, 2])
    hostile = {
        "schema version": {"schema_version": 2},
        "unknown protocol": {"protocol": "monk-v9"},
    }
    for says, changes in hostile.items():
        bad = write(tmp_path / says.replace(" ", "-"), [1, 2])
        result = json.loads((bad / "result.json").read_text()) | changes
        (bad / "result.json").write_text(json.dumps(result))
        with pytest.raises(InputError, match=says):
            compare(good, bad)
    with pytest.raises(InputError, match="no such result folder"):
        compare(good, tmp_path / "nowhere")
    unfinished = write(tmp_path / "unfinished", [1, 2])
    (unfinished / "result.json").unlink()
    with pytest.raises(InputError, match=r"no result\.json"):
        compare(good, unfinished)
    empty = write(tmp_path / "empty", [])
    with pytest.raises(InputError, match="lists no game"):
        compare(good, empty)
    for number, (says, change) in enumerate(
        {
            "not valid JSON": {"score": float("nan")},
            "wrong type": {"score": "9000"},
            "out of range": {"score": 1e300},
            "has no game 128": {"index": 128},
            "seeds and character": {"core": 7},
        }.items()
    ):
        bad = write(tmp_path / f"bad{number}", [1, 2])
        line = json.dumps(row("monk-lite-v1", 2, 3.0) | change)
        with (bad / "episodes.jsonl").open("a") as file:
            file.write(line + "\n")
        with pytest.raises(InputError, match=says):
            compare(good, bad)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900)), min_size=1, max_size=10))
def test_swapped_and_scaled(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("compare")
    a, b = np.array(pairs, float).T
    one = compare(write(folder / "a", a), write(folder / "b", b))
    other = compare(folder / "b", folder / "a")
    mirrored = {"a scores higher": "b scores higher", "b scores higher": "a scores higher"}
    assert other.verdict == mirrored.get(one.verdict, one.verdict)
    assert other.p_value == one.p_value
    assert other.wins.share == pytest.approx(1 - one.wins.share)
    assert (other.power.paired, other.power.unpaired) == (one.power.paired, one.power.unpaired)
    for name, interval in one.difference.items():
        if interval.ends is None:
            assert other.difference[name].ends is None
            continue
        assert other.difference[name].low == pytest.approx(-interval.high, abs=1e-6)
        assert interval.low < interval.high
    moved = compare(write(folder / "c", 3 * a + 50), write(folder / "d", 3 * b + 50))
    assert moved.verdict == one.verdict and moved.p_value == one.p_value
    if one.difference["mean"].ends is None:
        assert moved.difference["mean"].ends is None
    else:
        assert moved.difference["mean"].high == pytest.approx(3 * one.difference["mean"].high)


def test_the_committed_results():
    results = ROOT / "leaderboard" / "results"
    found = compare(
        results / "bc-lstm-1m" / "monk-lite-v1", results / "bc-lstm-100k" / "monk-lite-v1"
    )
    assert found.paired and found.verdict == "a scores higher"
    assert found.a.games == 128 and found.p_value < 0.05
    assert found.correlation == pytest.approx(0.11, abs=0.005)  # as PROTOCOLS.md says
    assert found.rank_correlation == pytest.approx(0.16, abs=0.005)


def test_the_page_of_the_protocols_is_right():
    """Its table, and its worked examples recomputed from what the text says."""
    page = (ROOT / "leaderboard" / "PROTOCOLS.md").read_text()
    for protocol in PROTOCOLS.values():
        assert re.search(
            rf"\| `{protocol.id}` \| .*\| {protocol.games:,} \| {protocol.step_cap:,} \| "
            rf"{protocol.no_progress:,} \|",
            page,
        )
        example = re.search(
            rf"\| `{protocol.id}` \| `([0-9a-f]+)` \| (\d+) \| (\d+) \| ([0-9., ]+) \|", page
        )
        assert example, f"no worked example of {protocol.id}"
        digest = hashlib.sha256(f"nhzoo:{protocol.id}:0".encode()).digest()
        assert example[1] == digest[:16].hex()
        core, disp = (int.from_bytes(digest[i : i + 8], "big") >> 1 for i in (0, 8))
        assert (int(example[2]), int(example[3])) == (core, disp)
        spec = protocol.game(0)
        assert (spec.core, spec.disp) == (core, disp)
        uniforms = protocol.uniforms(0)
        for text in example[4].split(", "):
            assert float(text) == pytest.approx(uniforms.random(), abs=5e-7)
    scores = expert_scores("Mon")
    assert f"bundled games' mean is {np.mean(scores):,.0f} and median {np.median(scores):,.0f}" in (
        " ".join(page.split())
    )


def scores_of(count: int, mean: float) -> np.ndarray:
    return np.round(np.random.default_rng(0).lognormal(np.log(mean), 0.5, count))


def test_no_worse_holds_where_the_margin_is_excluded_and_only_there(tmp_path):
    scores = scores_of(128, 1_000)
    noise = np.random.default_rng(1).normal(0, 60, 128)
    b = write(tmp_path / "b", scores)
    for name, change, share, holds in (
        ("as good", noise - noise.mean(), 0.05, True),
        ("2 % worse", noise - noise.mean() - 0.02 * scores.mean(), 0.05, True),
        ("2 % worse, of 0 %", noise - noise.mean() - 0.02 * scores.mean(), 0.0, False),
        ("4.5 % worse", noise - noise.mean() - 0.045 * scores.mean(), 0.05, False),
        ("10 % worse", -0.1 * scores, 0.05, False),
        ("10 % worse, of 20 %", -0.1 * scores, 0.2, True),
    ):
        a = write(tmp_path / name, scores + change)
        found = compare(a, b, no_worse=share)
        assert found.no_worse is not None and found.no_worse.holds is holds, name
        assert found.no_worse.difference.estimate == pytest.approx(
            found.a.mean_score.estimate - (1 - share) * found.b.mean_score.estimate
        )
        assert ("cannot be excluded" in found.no_worse.text) is not holds
        # Unpaired, the spread of the dungeons is in the way.
        other = write(tmp_path / f"{name} elsewhere", scores + change, machine="arm64")
        unpaired = compare(other, b, no_worse=share).no_worse
        assert unpaired.difference.low < found.no_worse.difference.low
        assert unpaired.holds is (share == 0.2)
    assert found.no_worse.games is not None and unpaired.games > found.no_worse.games
    assert compare(a, b).no_worse is None


def test_no_worse_needs_games_unless_they_are_the_same(tmp_path):
    one = write(tmp_path / "one", [500])
    zeros = write(tmp_path / "zeros", [0] * 128)
    other = write(tmp_path / "other", [1_000])
    assert not compare(other, one, no_worse=0.05).no_worse.holds
    for same in (one, zeros):
        assert compare(same, same, no_worse=0.0).no_worse.holds
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="share from 0"):
            compare(one, one, no_worse=share)


def test_no_worse_is_an_exit_code(tmp_path):
    from tests.helpers.commands import run

    scores = scores_of(128, 1_000)
    a, b = write(tmp_path / "a", scores * 0.9), write(tmp_path / "b", scores)
    good = run("compare", b, a, "--no-worse", "5%", "--json")
    assert good.returncode == 0 and json.loads(good.stdout)["no_worse"]["holds"] is True
    bad = run("compare", a, b, "--no-worse", "0.05", "--json")
    assert bad.returncode == 1 and json.loads(bad.stdout)["no_worse"]["share"] == 0.05
    assert bad.stderr.count("\n") == 1
    assert "cannot be excluded that a is worse than b by more than 5 %" in bad.stderr
    wrong = run("compare", a, b, "--no-worse", "5")
    assert wrong.returncode == 2 and "give a share as 5% or 0.05" in wrong.stderr
