"""What a dataset is said to hold is what it holds."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nhzoo.data import packed_set, packing, stats
from nhzoo.data.nld import NldFolder
from nhzoo.data.stats import histogram, statistics
from nhzoo.data.traces import open_traces
from nhzoo.data.ttyrec import write_ttyrec
from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.errors import InputError
from nhzoo.runtime import files


def change(folder: Path, **fields: list) -> None:
    rows = files.read_jsonl(folder / "games.jsonl")
    for name, values in fields.items():
        for row, value in zip(rows, values, strict=True):
            if value is not None:
                row[name] = value
    files.atomic_write(folder / "games.jsonl", files.dump_jsonl(rows))


@pytest.fixture
def own_set(small_set, tmp_path) -> Path:
    shutil.copytree(small_set, tmp_path / "own")
    return tmp_path / "own"


def test_a_trace_set(own_set):
    change(
        own_set,
        env_score=[10.0, None, 30, 80.5],
        turns=[5, 6, 7, None],
        maxlvl=[1, 2, 3, 4],
        character=["mon-hum-neu-mal", "val-hum-neu-fem", "val-dwa-law-fem", "@"],
    )
    found = statistics(own_set, workers=2)
    traces = open_traces(own_set).traces
    keys = [trace.keys() for trace in traces]
    total = sum(len(text) for text in keys)
    assert (found.name, found.kind, found.games, found.keys) == ("own", "traces", 4, total)
    assert {name: (split.games, split.keys) for name, split in found.splits.items()} == {
        "train": (2, len(keys[0]) + len(keys[2])),
        "validation": (2, len(keys[1]) + len(keys[3])),
    }
    scores = found.scores
    assert (scores.count, scores.missing, scores.median) == (3, 1, 30)
    assert scores.mean == pytest.approx(40.1666667)
    assert (scores.minimum, scores.maximum) == (10, 80.5)
    assert scores.quantiles["p25"] == 20 and scores.quantiles["p50"] == 30
    assert found.score_list == [10, 30, 80.5]
    assert (found.turns.mean, found.turns.missing, found.depth.maximum) == (6, 1, 4)
    assert found.longest.keys == max(map(len, keys)) == found.lengths.maximum
    assert found.shortest.keys == min(map(len, keys)) == found.lengths.minimum
    counts = Counter(b"".join(keys))
    assert {action.key: action.count for action in found.actions} == counts
    assert [a.count for a in found.actions] == sorted(counts.values(), reverse=True)
    assert sum(action.share for action in found.actions) == pytest.approx(1)
    names = {action.key: action.action for action in found.actions}
    assert names[ord("k")] == "CompassDirection.N"
    assert [(row.role, row.games, row.mean_score) for row in found.roles] == [
        ("Val", 2, 30),
        ("Mon", 1, 10),
        ("unknown", 1, 80.5),
    ]
    assert found.repeats == [] and found.left_out == {}
    parsed = json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))
    assert parsed["scores"]["count"] == 3 and parsed["splits"]["train"]["games"] == 2


def test_roles_that_were_drawn(own_set):
    change(own_set, character=["@"] * 4, role=["Wiz", "wizard", None, None])
    if not hasattr(open_traces(own_set).traces[0], "role"):
        pytest.skip("traces have no role")
    roles = statistics(own_set, workers=1).roles
    assert [(row.role, row.games) for row in roles] == [("Wiz", 2), ("unknown", 2)]


def test_games_that_are_there_twice(own_set):
    rows = files.read_jsonl(own_set / "games.jsonl")
    shutil.copy(own_set / "keys" / "0.xz", own_set / "keys" / "a.xz")
    shutil.copy(own_set / "keys" / "1.xz", own_set / "keys" / "b.xz")
    other = rows[1]["seeds"] | {"core": 999}
    rows += [rows[0] | {"game": "a"}, rows[1] | {"game": "b", "seeds": other}]
    rows[2]["seeds"] = rows[3]["seeds"]
    rows[2]["ubirthday"] = rows[3]["ubirthday"]
    files.atomic_write(own_set / "games.jsonl", files.dump_jsonl(rows))
    found = {(repeat.same, *repeat.games) for repeat in statistics(own_set, workers=1).repeats}
    assert found == {
        ("start", "0", "a"),
        ("keys", "0", "a"),
        ("keys", "1", "b"),
        ("start", "2", "3"),
    }


def test_keys_that_cannot_be_read(own_set):
    (own_set / "keys" / "1.xz").write_bytes(b"nonsense")
    found = statistics(own_set, workers=1)
    assert list(found.left_out) == ["1"] and "1.xz: xz data" in found.left_out["1"]
    assert (found.games, found.lengths.count, found.lengths.missing) == (4, 3, 1)
    assert found.keys == sum(t.length for t in open_traces(own_set).traces if t.game != "1")


def test_an_nld_folder(small_set, tmp_path, monkeypatch):
    for trace in open_traces(small_set).traces[:2]:
        write_ttyrec(trace, tmp_path / "nle_data")
    (tmp_path / "nle_data" / "0" / "x.ttyrec.bz2").write_bytes(b"")
    nld = NldFolder(tmp_path / "nle_data")
    found = statistics(tmp_path / "nle_data", workers=1)
    keys = [nld.keys(game) for game in nld.games]
    assert (found.kind, found.games, found.keys) == ("nld-aa", 2, sum(map(len, keys)))
    assert {a.key: a.count for a in found.actions} == Counter(b"".join(keys))
    assert found.score_list == [game.points for game in nld.games]
    assert found.turns.maximum == max(game.turns for game in nld.games)
    assert found.roles[0].role == "Mon" and list(found.left_out) == ["0/x.ttyrec.bz2"]
    monkeypatch.setattr(stats, "COUNTED_BYTES", 10)
    uncounted = statistics(tmp_path / "nle_data", workers=1)
    assert (uncounted.keys, uncounted.actions, uncounted.lengths) == (None, None, None)
    assert uncounted.scores == found.scores
    assert {name: split.keys for name, split in uncounted.splits.items()} == dict.fromkeys(
        found.splits
    )


def test_a_packed_set(small_set, tmp_path):
    report = packing.pack(small_set, workers=1, cache=tmp_path / "cache")
    scored = [
        (*game[:3], score) for game, score in zip(report.exportable, (1, 2, None, 6), strict=True)
    ]
    packed_set.export("small", scored, tmp_path / "out")
    found = statistics(tmp_path / "out")
    lengths = [trace.length for trace in open_traces(small_set).traces]
    assert (found.kind, found.games, found.keys) == ("packed", 4, sum(lengths))
    assert (found.longest.keys, found.scores.mean, found.scores.missing) == (max(lengths), 3, 1)
    assert found.splits["train"].keys == lengths[0] + lengths[2]
    assert found.actions is None and found.turns is None and found.repeats == []


def test_every_key_of_the_interface_has_its_own_name():
    keys = stats._Keys(tuple(int(k in ACTION_KEYS) for k in range(256)), "")
    names = [action.action for action in stats._actions([keys])]
    assert len(set(names)) == 118 and not any(name.startswith("key ") for name in names)
    other = stats._Keys(tuple(int(k == 0) for k in range(256)), "")
    assert [a.action for a in stats._actions([other])] == [r"key b'\x00'"]


def counts_of(lines: list[str]) -> list[int]:
    return [int(line.replace("█", "").split()[-1].replace(",", "")) for line in lines]


def test_a_histogram():
    lines = histogram([-5, -1, 0, 0, 0.5, 1, 3, 4, 1000, 1999, 10_000], width=40)
    assert [line.split("  ")[0].strip() or line for line in lines]
    labels = [line.strip().split("  ")[0] for line in lines]
    assert labels[:4] == ["below 0", "0", "0 to 1", "1 to 2"]
    assert labels[-1] == "10,000 to 20,000"
    found = dict(zip(labels, counts_of(lines), strict=True))
    assert found["below 0"] == 2 and found["0"] == 2 and found["0 to 1"] == 1
    assert found["2 to 5"] == 2 and found["5 to 10"] == 0 and found["1,000 to 2,000"] == 2
    assert max(map(len, lines)) == 40


def test_histograms_of_little():
    assert histogram([]) == []
    for scores, label in (([0], "0"), ([-2], "below 0"), ([7], "5 to 10"), ([1], "1 to 2")):
        assert [line.split("  ")[0] for line in histogram(scores)] == [label]
    (line,) = histogram([500] * 1234, width=30)
    assert line.startswith("500 to 1,000  1,234  █") and len(line) == 30
    assert "█" in histogram([5], width=0)[0]
    for bad in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="not a finite number"):
            histogram([1, bad])


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e12, 1e18) | st.integers(-3, 3) | st.integers(0, 10**6), min_size=1),
    st.integers(0, 200),
)
def test_any_histogram_counts_every_score(scores, width):
    lines = histogram(scores, width)
    assert sum(counts_of(lines)) == len(scores)
    assert len(lines) <= 27
    for line, count in zip(lines, counts_of(lines), strict=True):
        assert ("█" in line) == (count > 0)
    bars = [line.count("█") for line in lines]
    assert bars[int(np.argmax(counts_of(lines)))] == max(bars)
