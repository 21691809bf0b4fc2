from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nhzoo.data import frames, packed_set, packing
from nhzoo.data.batches import Batch, Streams, read_games
from nhzoo.data.nld import NldFolder
from nhzoo.data.traces import open_traces, replay
from nhzoo.envs.actions import ACTION_KEYS, ACTION_OF_KEY, TTY
from nhzoo.envs.game import Game
from nhzoo.errors import InputError
from nhzoo.policy import features, memory
from nhzoo.runtime import files
from tests.conftest import record


@pytest.fixture(scope="module")
def packed(small_set, tmp_path_factory):
    """The report of packing the small set, for tests that only read."""
    return packing.pack(small_set, workers=2, cache=tmp_path_factory.mktemp("packed"))


def whole(path: Path) -> dict[str, np.ndarray]:
    game = frames.GameFrames(path)
    return game.read(0, game.length)


def same_batch(a: Batch, b: Batch) -> None:
    assert a.inputs.keys() == b.inputs.keys()
    for name in a.inputs:
        np.testing.assert_array_equal(a.inputs[name], b.inputs[name])
    np.testing.assert_array_equal(a.actions, b.actions)
    np.testing.assert_array_equal(a.first, b.first)
    assert a.valid == b.valid


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


@pytest.mark.slow
def test_packing_again_does_nothing_and_repairs_what_is_damaged(small_set, tmp_path):
    first = packing.pack(small_set, workers=1, cache=tmp_path)
    bytes_before = [path.read_bytes() for path in first.games]
    again = packing.pack(small_set, workers=1, cache=tmp_path)
    assert (again.already, again.packed, again.frames) == (4, 0, first.frames)
    first.games[2].write_bytes(bytes_before[2][:-20])
    with pytest.raises(InputError, match="pack or copy it again"):
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
    report = packing.pack(folder, workers=1, cache=tmp_path)
    assert list(report.refused) == ["1"]
    assert "screen before key 0 differs" in report.refused["1"]
    assert [path.stem.split("-")[0] for path in report.games] == ["0", "2", "3"]


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
        same_batch(a, b)


def test_a_folder_that_is_no_nld_data(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "nle.1.xlogfile").write_text("nonsense\n")
    with pytest.raises(InputError):
        NldFolder(tmp_path)


@pytest.mark.slow
def test_streams_read_every_frame_of_an_epoch_and_carry_keys(packed):
    games = packed.games
    held = {path: whole(path) for path in games}
    streams = Streams(games, streams=4, batch=2, time=16, seed=3, view="screens")
    followed: list[list[tuple]] = [[] for _ in range(4)]
    for _ in range(400):
        batch, rows = streams.next()
        for row in range(2):
            followed[rows.start + row].append(
                (
                    batch.first[row],
                    batch.actions[:, row],
                    batch.inputs["previous_key"][:, row],
                    batch.inputs["tty_chars"][:, row],
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
            game = next(p for p in held.values() if np.array_equal(p["tty_chars"], chars))
            np.testing.assert_array_equal(ACTION_KEYS[actions[real]], game["keys"])
            np.testing.assert_array_equal(keys[1:], game["keys"][:-1])
            assert keys[0] == 0


def test_streams_go_on_exactly_where_they_were(packed):
    games = packed.games

    def batches(streams, count):
        return [streams.next()[0] for _ in range(count)]

    reference = batches(Streams(games, 4, 2, 16, seed=1), 300)
    streams = Streams(games, 4, 2, 16, seed=1)
    batches(streams, 137)
    state = streams.state()
    resumed = Streams(games, 4, 2, 16, seed=1)
    resumed.restore(state)
    for a, b in zip(reference[137:], batches(resumed, 163), strict=True):
        same_batch(a, b)


def test_every_key_of_the_table_has_an_action():
    assert (ACTION_KEYS[ACTION_OF_KEY[ACTION_KEYS]] == ACTION_KEYS).all()
    assert (ACTION_OF_KEY >= 0).sum() == 118


def test_the_policys_view_is_the_screens_encoded(packed):
    games = packed.games
    recall = features.no_recall(3)
    for (seen, at), (shown, same) in zip(
        read_games(games, 3, 50), read_games(games, 3, 50, view="screens"), strict=True
    ):
        assert at.tolist() == same.tolist()
        np.testing.assert_array_equal(seen.actions, shown.actions)
        recall[seen.first] = 0
        screens = [shown.inputs[name] for name in ("tty_chars", "tty_colors", "tty_cursor")]
        for t, keys in enumerate(shown.inputs["previous_key"]):
            for row in np.flatnonzero(keys):
                memory.push_key(recall[row], keys[row])
            encoded = features.encode(*(array[t] for array in screens), recall)
            real = seen.actions[t] >= 0
            for name, array in vars(encoded).items():
                np.testing.assert_array_equal(seen.inputs[name][t][real], array[real])


def test_streams_that_are_restored_recall_what_they_had_read(packed):
    games = packed.games
    ours, restored = (Streams(games, streams=6, batch=3, time=20, seed=2) for _ in range(2))
    for _ in range(25):
        ours.next()
    restored.restore(json.loads(json.dumps(ours.state())))
    for _ in range(30):
        (batch, rows), (again, same) = ours.next(), restored.next()
        assert rows == same
        for name, array in batch.inputs.items():
            np.testing.assert_array_equal(again.inputs[name], array)


def test_the_first_pass_of_the_streams_reads_nearly_every_frame_once(packed):
    games = packed.games
    total = sum(frames.frames_in(path) for path in games)
    streams = Streams(games, streams=16, batch=4, time=4, seed=1)
    read = 0
    while read < total:
        read += streams.next()[0].valid
    assert streams.unique_frames > 0.93 * total


@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_read_what_one_would_and_any_number_goes_on(packed, world):
    games = packed.games

    def streams(rank: int, world: int) -> Streams:
        return Streams(games, 16, 4, 20, seed=2, shard=(rank, world))

    alone = streams(0, 1)
    parts = [streams(rank, world) for rank in range(world)]
    for step in range(90):
        if step == 50:  # all states are the same: go on from one, as other processes
            states = [part.state() for part in (alone, *parts)]
            assert all(state == states[0] for state in states)
            parts = [streams(rank, world) for rank in range(world)]
            for part in (alone, *parts):
                part.restore(states[-1])
        batch, rows = alone.next()
        for rank, part in enumerate(parts):
            piece, its = part.next()
            mine = slice(rank * 4 // world, (rank + 1) * 4 // world)
            assert its == slice(rows.start + mine.start, rows.start + mine.stop)
            np.testing.assert_array_equal(piece.actions, batch.actions[:, mine])
            np.testing.assert_array_equal(piece.first, batch.first[mine])
            for name in batch.inputs:
                np.testing.assert_array_equal(piece.inputs[name], batch.inputs[name][:, mine])
    with pytest.raises(InputError, match="does not divide among 3 processes"):
        Streams(games, 16, 4, 20, shard=(0, 3))


@pytest.mark.slow
def test_datasets_of_one_name_do_not_meet_in_the_cache(small_set, tmp_path):
    other = record(tmp_path / "elsewhere" / small_set.name, games=3, steps=80)
    first = packing.pack(small_set, workers=1, cache=tmp_path / "cache")
    second = packing.pack(other, workers=1, cache=tmp_path / "cache")
    assert first.folder == second.folder
    assert (second.packed, second.already) == (3, 0)
    assert not set(first.games) & set(second.games)
    assert packing.pack(small_set, workers=1, cache=tmp_path / "cache").already == 4


@pytest.mark.slow
def test_a_dataset_that_grew_packs_only_what_is_new(small_set, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(small_set, folder)
    rows = files.read_jsonl(folder / "games.jsonl")
    files.atomic_write(folder / "games.jsonl", files.dump_jsonl(rows[:2]))
    assert packing.pack(folder, workers=1, cache=tmp_path / "cache").packed == 2
    files.atomic_write(folder / "games.jsonl", files.dump_jsonl(rows))
    grown = packing.pack(folder, workers=1, cache=tmp_path / "cache")
    assert (grown.already, grown.packed) == (2, 2)


def test_exported_frames_are_a_dataset(packed, tmp_path):
    out = tmp_path / "carried"
    packed_set.export("small", packed.exportable, out)
    again = {path: path.stat().st_mtime_ns for path in out.glob("*.frames")}
    packed_set.export("small", packed.exportable, out)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.frames")} == again
    used = packing.pack(out, split="train", workers=1, cache=tmp_path / "unused")
    assert not (tmp_path / "unused").exists()
    assert [path.name for path in used.games] == ["0.frames", "2.frames"]
    assert used.frames == sum(frames.frames_in(path) for path in packed.games[::2])
    for mine, theirs in zip(
        read_games(packed.games[::2], 1, 64), read_games(used.games, 1, 64), strict=True
    ):
        same_batch(mine[0], theirs[0])


def test_exported_frames_that_are_not_whole_are_left_out_and_named(packed, tmp_path):
    out = tmp_path / "carried"
    packed_set.export("small", packed.exportable, out)
    (out / "0.frames").unlink()
    data = bytearray((out / "1.frames").read_bytes())
    data[100] ^= 1
    (out / "1.frames").write_bytes(data)
    used = packing.pack(out, workers=1)
    assert [path.name for path in used.games] == ["2.frames", "3.frames"]
    assert set(used.refused) == {"0", "1"}
    assert "copy it again" in used.refused["1"]
    lacking = packing.pack(out, (*TTY, "glyphs"), workers=1)
    assert "was packed without glyphs" in lacking.refused["2"]
    index = files.read_json(out / "packed.json")
    for field, value, message in (
        ("schema_version", 9, "another version of nhzoo"),
        ("format", 1, "another version of nhzoo"),
        ("games", [], "lists no game"),
        ("games", [index["games"][0]] * 2, "listed twice"),
        ("games", [index["games"][0] | {"game": "../../x"}], "cannot be the name"),
        ("games", [index["games"][0] | {"frames": "7"}], "'frames' is of the wrong type"),
    ):
        files.atomic_write(out / "packed.json", files.dump_json(index | {field: value}))
        with pytest.raises(InputError, match=message):
            packed_set.open_packed(out)


@pytest.mark.slow
def test_splits_are_exported_together_and_other_games_never_over_them(small_set, tmp_path):
    out = tmp_path / "carried"
    for split in ("train", "validation"):
        part = packing.pack(small_set, split=split, workers=1, cache=tmp_path / "cache")
        packed_set.export("small", part.exportable, out)
    assert [game.game for game in packed_set.open_packed(out).games] == ["0", "2", "1", "3"]
    other = record(tmp_path / "other", games=2, steps=60)
    strange = packing.pack(other, workers=1, cache=tmp_path / "cache").exportable
    with pytest.raises(InputError, match="holds games of small"):
        packed_set.export("other", strange, out)
    with pytest.raises(InputError, match="is another game 0"):
        packed_set.export("small", strange, out)


@pytest.mark.slow
def test_a_damaged_chunk_is_packed_again_and_never_exported(small_set, tmp_path):
    report = packing.pack(small_set, workers=1, cache=tmp_path / "cache")
    data = bytearray(report.games[1].read_bytes())
    data[200] ^= 1
    report.games[1].write_bytes(data)
    with pytest.raises(InputError, match="chunk 0 is damaged"):
        packed_set.export("small", report.exportable, tmp_path / "out")
    again = packing.pack(small_set, workers=1, cache=tmp_path / "cache")
    assert (again.already, again.packed) == (3, 1)
    packed_set.export("small", again.exportable, tmp_path / "out")


def test_one_bad_link_among_packed_games_is_one_refused_game(packed, tmp_path):
    out = tmp_path / "carried"
    packed_set.export("small", packed.exportable, out)
    (out / "0.frames").unlink()
    (out / "0.frames").symlink_to("/etc/hostname")
    (out / "1.frames").unlink()
    os.mkfifo(out / "1.frames")
    used = packing.pack(out, workers=1)
    assert [path.name for path in used.games] == ["2.frames", "3.frames"]
    assert "outside" in used.refused["0"]
    assert "not a regular file" in used.refused["1"]


@pytest.mark.parametrize("game", ["my run/nle.1.0.ttyrec3.bz2", "_x/2020", "é/ü", "a\nb", "-"])
def test_any_games_name_becomes_a_files_name(game):
    assert files.is_plain_name(packing._name(game))
    assert packing._name(game) != packing._name(game + "?")


def test_an_export_does_not_write_among_other_files(packed, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"holds other things \(thesis.tex\)"):
        packed_set.export("small", packed.exportable[:1], tmp_path / "mine")


def test_ttyrecs_have_no_more_than_a_screen(expert_monk, tmp_path):
    with pytest.raises(InputError, match="they have no glyphs"):
        packing.pack(expert_monk / "nld" / "nle_data", (*TTY, "glyphs"), cache=tmp_path)


_PACK = """
import pathlib, sys
from nhzoo.data import packing
packing.pack(sys.argv[1], workers=2, cache=pathlib.Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_packing_killed_at_random_moments_ends_with_the_same_bytes(tmp_path):
    source = record(tmp_path / "set", games=6, steps=2_000)
    reference = packing.pack(source, workers=2, cache=tmp_path / "whole").games
    random = np.random.default_rng(0)
    for _ in range(4):
        command = [sys.executable, "-c", _PACK, str(source), str(tmp_path / "killed")]
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0.8, 3.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    ended = packing.pack(source, workers=2, cache=tmp_path / "killed").games
    assert [path.name for path in ended] == [path.name for path in reference]
    for mine, theirs in zip(ended, reference, strict=True):
        assert mine.read_bytes() == theirs.read_bytes()


def test_a_full_disk_is_one_line_and_leaves_no_half_file(small_set, tmp_path):
    """The limit on file sizes stands for a disk without room."""
    traces = open_traces(small_set).traces
    task = packing.PackTask(TTY, None)
    assert task.work((traces[0], tmp_path / "0.frames")) == traces[0].length
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(InputError, match=r"1.frames: cannot be written: File too large; "):
            task.work((traces[1], tmp_path / "1.frames"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["0.frames"]
