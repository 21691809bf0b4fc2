from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nhzoo import files, frames, packing
from nhzoo.demonstrations import ACTION_OF_KEY, Streams, read_games
from nhzoo.envs import ACTION_KEYS, TTY, Game
from nhzoo.errors import InputError
from nhzoo.nld import NldFolder
from nhzoo.replay import replay
from nhzoo.traces import open_traces


def whole(path: Path) -> dict[str, np.ndarray]:
    game = frames.GameFrames(path)
    chunks = [game.chunk(i) for i in range(-(-game.length // frames.CHUNK))]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in game.fields}


def test_packed_frames_are_the_frames(small_set, tmp_path):
    extra = ("glyphs", "inv_glyphs", "inv_letters", "inv_strs", "message")
    report = packing.pack(
        small_set, (*frames.DEFAULT_FIELDS, *extra), workers=2, cache=tmp_path / "cache"
    )
    assert not report.refused
    traces = open_traces(small_set).traces
    assert report.frames == sum(trace.length for trace in traces)
    for trace, path in zip(traces, report.games, strict=True):
        packed = whole(path)
        assert set(packed) == {"keys", *frames.DEFAULT_FIELDS, *extra}
        for step, (frame, key) in enumerate(replay(trace, Game((*TTY, *extra)))):
            assert packed["keys"][step] == key
            for name in (*frames.DEFAULT_FIELDS, *extra):
                np.testing.assert_array_equal(packed[name][step], frame[name])


def test_packing_again_does_nothing_and_repairs_what_is_damaged(small_set, tmp_path):
    first = packing.pack(small_set, workers=1, cache=tmp_path)
    bytes_before = [path.read_bytes() for path in first.games]
    again = packing.pack(small_set, workers=1, cache=tmp_path)
    assert (again.already, again.packed, again.frames) == (4, 0, first.frames)
    first.games[2].write_bytes(bytes_before[2][:-20])
    with pytest.raises(InputError, match="pack again"):
        frames.GameFrames(first.games[2])
    repaired = packing.pack(small_set, workers=1, cache=tmp_path)
    assert (repaired.already, repaired.packed) == (3, 1)
    assert [path.read_bytes() for path in first.games] == bytes_before


def test_a_damaged_chunk_is_named(small_set, tmp_path):
    path = packing.pack(small_set, workers=1, cache=tmp_path).games[0]
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)
    with pytest.raises(InputError, match="chunk 0 is damaged"):
        frames.GameFrames(path).chunk(0)


def test_a_game_that_diverges_is_refused_and_named(small_set, tmp_path):
    import json

    folder = tmp_path / "set"
    shutil.copytree(small_set, folder)
    rows = files.read_jsonl(folder / "games.jsonl")
    rows[1]["frame_hashes"] = ["0123456789abcdef"]
    (folder / "games.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    report = packing.pack(folder, workers=2, cache=tmp_path)
    assert list(report.refused) == ["1"]
    assert "screen before key 0 differs" in report.refused["1"]
    assert [path.stem for path in report.games] == ["0", "2", "3"]


def test_unknown_fields_and_missing_data(small_set, tmp_path):
    with pytest.raises(InputError, match="unknown frame field"):
        packing.pack(small_set, ("glifs",), cache=tmp_path)
    with pytest.raises(InputError, match="no dataset"):
        packing.pack("nowhere", cache=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not a trace set"):
        packing.pack(tmp_path / "empty", cache=tmp_path)


@pytest.mark.slow
def test_ttyrecs_and_replays_are_the_same_frames_and_keys(expert_monk, tmp_path):
    """One game by both roads: NLD ttyrec through nle.dataset, and its trace replayed."""
    nld = NldFolder(expert_monk / "nld" / "nle_data")
    game = next(game for game in nld.games if game.game.startswith("1000011/"))
    trace = next(t for t in open_traces(expert_monk).traces if t.game == "1000011")
    steps = 0
    for (shown, pressed), (frame, key) in zip(nld.frames(game), replay(trace, Game()), strict=True):
        assert pressed == key
        for name in TTY:
            np.testing.assert_array_equal(shown[name], frame[name])
        steps += 1
    assert steps == trace.length


@pytest.mark.slow
def test_batches_of_an_nld_folder_are_those_of_the_traces(expert_monk, tmp_path):
    source = tmp_path / "nle_data"
    shutil.copytree(expert_monk / "nld" / "nle_data" / "1000011", source / "1000011")
    from_nld = packing.pack(source, workers=1, cache=tmp_path).games
    trace = next(t for t in open_traces(expert_monk).traces if t.game == "1000011")
    path = tmp_path / "replayed.frames"
    frames.write_game(path, replay(trace, Game()), TTY, {})
    for (a, _), (b, _) in zip(read_games(from_nld, 1, 64), read_games([path], 1, 64), strict=True):
        for name in ("chars", "colors", "cursor", "previous", "actions"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_a_folder_that_is_no_nld_data(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "nle.1.xlogfile").write_text("nonsense\n")
    with pytest.raises(InputError):
        NldFolder(tmp_path)


def test_streams_read_every_frame_of_an_epoch_and_carry_keys(small_set, tmp_path):
    games = packing.pack(small_set, workers=2, cache=tmp_path).games
    packed = {path: whole(path) for path in games}
    streams = Streams(games, streams=4, batch=2, time=16, seed=3)
    followed: list[list[tuple]] = [[] for _ in range(4)]
    for _ in range(400):
        batch, rows = streams.next()
        for row in range(2):
            followed[rows.start + row].append(
                (
                    batch.first[row],
                    batch.actions[:, row],
                    batch.previous[:, row],
                    batch.chars[:, row],
                )
            )
    for pieces in followed:
        starts = [i for i, piece in enumerate(pieces) if piece[0]]
        assert starts[0] == 0
        for begin, end in pairwise(starts[1:]):  # whole games only
            actions = np.concatenate([piece[1] for piece in pieces[begin:end]])
            real = actions >= 0
            chars = np.concatenate([piece[3] for piece in pieces[begin:end]])[real]
            keys = np.concatenate([piece[2] for piece in pieces[begin:end]])[real]
            game = next(p for p in packed.values() if np.array_equal(p["tty_chars"], chars))
            np.testing.assert_array_equal(ACTION_KEYS[actions[real]], game["keys"])
            np.testing.assert_array_equal(keys[1:], game["keys"][:-1])
            assert keys[0] == 0


def test_streams_go_on_exactly_where_they_were(small_set, tmp_path):
    games = packing.pack(small_set, workers=2, cache=tmp_path).games

    def batches(streams, count):
        return [streams.next()[0] for _ in range(count)]

    reference = batches(Streams(games, 4, 2, 16, seed=1), 300)
    streams = Streams(games, 4, 2, 16, seed=1)
    batches(streams, 137)
    state = streams.state()
    resumed = Streams(games, 4, 2, 16, seed=1)
    resumed.restore(state)
    for a, b in zip(reference[137:], batches(resumed, 163), strict=True):
        for name in ("chars", "colors", "cursor", "previous", "actions", "first"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_every_key_of_the_table_has_an_action():
    assert (ACTION_KEYS[ACTION_OF_KEY[ACTION_KEYS]] == ACTION_KEYS).all()
    assert (ACTION_OF_KEY >= 0).sum() == 118
