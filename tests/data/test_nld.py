"""NLD folders of both layouts, good and damaged, and traces written as ttyrecs."""

from __future__ import annotations

import bz2
import dataclasses
import datetime
import os
import shutil
import struct
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from nle import nethack

from nhzoo.data import ttyrec
from nhzoo.data.nld import NldFolder, layout
from nhzoo.data.traces import Diverged, Trace, open_traces, replay
from nhzoo.data.ttyrec import scan, write_ttyrec, write_ttyrecs
from nhzoo.envs.actions import TTY
from nhzoo.envs.game import Game
from nhzoo.errors import InputError

HEADER = struct.Struct("<iiiB")
BEGIN = int(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC).timestamp())


def records(data: bytes) -> list[tuple[int, bytes]]:
    """(channel, bytes) of each record of unpacked version 3 data."""
    found, at = [], 0
    while at < len(data):
        _, _, length, channel = HEADER.unpack_from(data, at)
        at += HEADER.size
        found.append((channel, data[at : at + length]))
        at += length
    return found


def pack(found: list[tuple[int, bytes]], version: int = 3) -> bytes:
    size = 13 if version == 3 else 12
    parts = [HEADER.pack(9, 0, len(body), channel)[:size] + body for channel, body in found]
    return bz2.compress(b"".join(parts))


def replayed(trace: Trace) -> list[tuple[dict[str, np.ndarray], int]]:
    return [
        ({name: frame[name].copy() for name in TTY}, key) for frame, key in replay(trace, Game())
    ]


def read(folder: NldFolder, game=None) -> list[tuple[dict[str, np.ndarray], int]]:
    return [
        ({name: frame[name].copy() for name in TTY}, key)
        for frame, key in folder.frames(game or folder.games[0])
    ]


@pytest.fixture(scope="module")
def traces(small_set) -> tuple[Trace, ...]:
    return open_traces(small_set).traces


@pytest.fixture(scope="module")
def recorded(traces, tmp_path_factory) -> Path:
    """An NLD-AA folder of two games, to be read only."""
    folder = tmp_path_factory.mktemp("nld") / "nle_data"
    for trace in traces[:2]:
        write_ttyrec(trace, folder)
    return folder


@pytest.fixture
def damageable(recorded, tmp_path) -> Path:
    folder = tmp_path / "nle_data"
    shutil.copytree(recorded, folder)
    return folder


def ttyrec_of(folder: Path, game: int = 0) -> Path:
    return folder / str(game) / f"nle.{game}.0.ttyrec3.bz2"


def damage(folder: Path, change) -> Path:
    path = ttyrec_of(folder)
    path.write_bytes(change(path.read_bytes()))
    return path


def test_a_written_trace_reads_as_its_replay(traces, recorded):
    nld = NldFolder(recorded)
    assert (nld.kind, nld.has_keys, nld.left_out) == ("nld-aa", True, {})
    assert [game.game for game in nld.games] == [f"{i}/nle.{i}.0.ttyrec3.bz2" for i in range(2)]
    for trace, game in zip(traces, nld.games, strict=False):
        expected, found = replayed(trace), read(nld, game)
        assert len(found) >= len(expected) == trace.length
        for (a, key), (b, pressed) in zip(expected, found, strict=False):
            assert pressed == key
            for name in TTY:
                np.testing.assert_array_equal(a[name], b[name])
        frame, _ = found[0]
        assert {name: (a.shape, a.dtype.name) for name, a in frame.items()} == {
            "tty_chars": ((24, 80), "uint8"),
            "tty_colors": ((24, 80), "int8"),
            "tty_cursor": ((2,), "uint8"),
        }
        assert bytes(key for _, key in found) == nld.keys(game)
        assert nld.keys(game)[: trace.length] == trace.keys()
        assert (game.role, game.race, game.gender, game.align) == ("Mon", "Hum", "Mal", "Neu")
        assert game.turns > 0 and game.maxlvl >= 1 and game.points >= 0 and game.death


def test_a_game_that_goes_on_is_quit(traces, recorded):
    """The recorded games of `small_set` that nothing killed within their keys."""
    going_on = []
    game = Game()
    for trace in traces[:2]:
        for _ in replay(trace, game):
            pass
        going_on.append(not game.over)
    game.close()
    assert any(going_on)
    deaths = [game.death for game in NldFolder(recorded).games]
    for goes_on, death in zip(going_on, deaths, strict=True):
        assert (death == "quit") == goes_on


@pytest.mark.parametrize("keys", [b" ", b"#", b"i", b"  hhhh;", b"n20", b"E", b"S", b"*"])
def test_a_game_is_quit_wherever_it_stands(traces, tmp_path, keys):
    """In the opening, an extended command, a menu, a question, a count, a text."""
    import hashlib

    from nhzoo.runtime import files

    path = tmp_path / "keys.xz"
    files.atomic_write(path, files.compress_xz(keys))
    digest = hashlib.sha256(keys).hexdigest()
    trace = dataclasses.replace(traces[0], path=path, length=len(keys), sha256=digest)
    write_ttyrec(trace, tmp_path / "nld")
    nld = NldFolder(tmp_path / "nld")
    assert nld.games[0].death == "quit" and nld.keys(nld.games[0]).startswith(keys)


def test_only_the_game_that_asks_for_it_is_recorded(traces, tmp_path):
    game = Game()
    for number, path in enumerate((None, tmp_path / "1.ttyrec3.bz2", None, tmp_path / "2.bz2")):
        game.start(traces[0].spec, ttyrec=path)
        for key in b"hjkl"[: number + 1]:
            game.step(key)
    game.close()
    assert scan(tmp_path / "1.ttyrec3.bz2", 3).keys == b"hj"
    assert scan(tmp_path / "2.bz2", 3).keys == b"hjkl"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_capped_game_with_a_score_is_quit(traces, tmp_path):
    trace = traces[0]
    for _ in (shown := replay(trace, game := Game())):
        pass
    score = float(game.observation["blstats"][nethack.NLE_BL_SCORE])
    assert not game.over
    game.close()
    shown.close()
    capped = dataclasses.replace(trace, score=score, end_status="step_cap")
    write_ttyrec(capped, tmp_path)
    nld = NldFolder(tmp_path)
    assert nld.games[0].death == "quit"
    assert nld.keys(nld.games[0])[: trace.length] == trace.keys()


def test_nle_reads_what_is_written_without_us(recorded, tmp_path):
    import nle.dataset as nld

    database = str(tmp_path / "ttyrecs.db")
    nld.db.create(database)
    nld.add_nledata_directory(str(recorded), "x", database)
    dataset = nld.TtyrecDataset("x", batch_size=2, seq_length=32, dbfilename=database)
    assert len(dataset._gameids) == 2
    assert next(iter(dataset))["keypresses"].any()


def test_writing_a_trace_that_diverges_leaves_nothing(traces, tmp_path):
    wrong = dataclasses.replace(traces[0], frame_hashes=("0123456789abcdef",))
    with pytest.raises(Diverged):
        write_ttyrec(wrong, tmp_path / "nld")
    assert not list((tmp_path / "nld").iterdir())


def test_writing_a_set_goes_on_where_it_was(small_set, recorded, damageable):
    other = next(damageable.glob("1/*.xlogfile"))
    other.write_text(other.read_text().replace("trace=", "trace=0"))
    seen = []
    report = write_ttyrecs(
        open_traces(small_set), damageable, 2, lambda report, games: seen.append(report.written)
    )
    assert (report.written, report.already, list(report.refused)) == (2, 1, ["1"])
    assert "holds another game" in report.refused["1"]
    assert seen == [0, 1, 2]
    assert len(NldFolder(damageable).games) == 4
    (damageable / ".9.abc.tmp").mkdir()
    shutil.copy(ttyrec_of(damageable), damageable / ".9.abc.tmp")
    assert NldFolder(damageable).left_out == {}


def test_the_real_recordings_are_sound(expert_monk):
    nld = NldFolder(expert_monk / "nld" / "nle_data")
    assert len(nld.games) == 4 and not nld.left_out
    game = min(nld.games, key=lambda game: game.points)
    keys = nld.keys(game)
    trace = next(t for t in open_traces(expert_monk).traces if game.game.startswith(t.game))
    assert keys[: trace.length] == trace.keys()
    shown = list(islice(nld.frames(game), 600))
    assert bytes(key for _, key in shown) == keys[:600]


# What NLE takes for a game, a shorter game, or an instruction to overwrite memory.


def unpacked(change):
    return lambda data: pack(change(records(bz2.decompress(data))))


BAD = {
    "half": (lambda d: d[: len(d) // 2], "truncated"),
    "all but a byte": (lambda d: d[:-1], "truncated"),
    "nothing": (lambda d: b"", "truncated"),
    "text": (lambda d: b"hello" * 99, "bz2 data is not valid"),
    "flipped bit": (lambda d: d[:2000] + bytes([d[2000] ^ 4]) + d[2001:], "bz2 data is not valid"),
    "other bz2": (lambda d: bz2.compress(b"hello" * 99), "not a ttyrec of version 3"),
    "two streams": (lambda d: d + d, "goes on after its first bz2 stream"),
    "within a record": (lambda d: bz2.compress(bz2.decompress(d)[:-2]), "within a record"),
    "within a header": (lambda d: bz2.compress(bz2.decompress(d) + b"12345"), "within a record"),
    "zeros": (lambda d: bz2.compress(bz2.decompress(d) + bytes(26)), "make no sense"),
    "negative": (
        lambda d: bz2.compress(HEADER.pack(0, 0, -5, 0) + bz2.decompress(d)),
        "make no sense",
    ),
    "huge": (
        lambda d: bz2.compress(HEADER.pack(0, 0, 1 << 30, 0) + bz2.decompress(d)),
        "make no sense",
    ),
    "channel 7": (unpacked(lambda r: [*r, (7, b"x")]), "make no sense"),
    "two scores": (unpacked(lambda r: [*r, (2, b"abcd")]), "do not alternate"),
    "short score": (unpacked(lambda r: [(2, b"a"), *r]), "do not alternate"),
    "two bytes of key": (unpacked(lambda r: [(2, b"abcd"), (1, b"hh"), *r]), "do not alternate"),
    "version 2": (unpacked(lambda r: [x for x in r if x[0] != 2]), "do not alternate"),
    "version 1": (lambda d: pack(records(bz2.decompress(d)), version=1), "version 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_ttyrec_is_refused_and_the_others_are_read(damageable, name):
    change, says = BAD[name]
    path = damage(damageable, change)
    nld = NldFolder(damageable)
    with pytest.raises(InputError, match=says) as error:
        next(nld.frames(nld.games[0]))
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match=says):
        nld.keys(nld.games[0])
    assert len(read(nld, nld.games[1])) == len(nld.keys(nld.games[1])) > 0


def test_a_ttyrec_that_ends_with_a_key_keeps_its_last_frame(damageable, recorded):
    whole = read(NldFolder(recorded))

    def cut(found):
        last = max(i for i, (channel, _) in enumerate(found) if channel == 1)
        return found[: last + 1]

    path = damage(damageable, unpacked(cut))
    assert scan(path, 3).ends_in_frame
    nld = NldFolder(damageable)
    for _ in range(2):
        found = read(nld)
        assert len(found) == len(whole)
        for name in TTY:
            np.testing.assert_array_equal(found[-1][0][name], whole[-1][0][name])


def test_frames_are_counted_against_what_nle_reads(damageable, monkeypatch):
    nld = NldFolder(damageable)
    monkeypatch.setattr(
        "nhzoo.data.nld.scan", lambda path, version: ttyrec.Scan(99_999, b"", False)
    )
    with pytest.raises(InputError, match="of its 99,999 frames"):
        read(nld)


def test_files_that_are_no_games_are_named_and_the_rest_is_read(damageable):
    run = damageable / "0"
    shutil.copy(ttyrec_of(damageable), run / "nle.0.1.ttyrec3.bz2")
    (run / "nle.0.2.ttyrec2.bz2").write_bytes(b"")
    (run / "nle.0.3.ttyrec.bz2").write_bytes(b"")
    os.mkfifo(run / "nle.0.4.ttyrec3.bz2")
    (damageable / "empty").mkdir()
    (damageable / "lonely").mkdir()
    (damageable / "lonely" / "nle.7.xlogfile").write_text("points=3\tttyrecname=gone.bz2\n")
    log = run / "nle.0.xlogfile"
    good = log.read_text()
    log.write_bytes(
        b"garbage\n\xff\xfe\n" + good.replace("points=", "points=x").encode() + good.encode() * 2
    )
    nld = NldFolder(damageable)
    assert [game.game for game in nld.games] == [f"{i}/nle.{i}.0.ttyrec3.bz2" for i in range(2)]
    assert read(nld)
    reasons = {
        "0/nle.0.1.ttyrec3.bz2": "no line",
        "0/nle.0.2.ttyrec2.bz2": "not of ttyrec version 3",
        "0/nle.0.3.ttyrec.bz2": "not of ttyrec version 3",
        "0/nle.0.4.ttyrec3.bz2": "not a regular file",
        "0/nle.0.xlogfile, line 1": "not a line of an xlogfile",
        "0/nle.0.xlogfile, line 2": "not a line of an xlogfile",
        "0/nle.0.xlogfile, line 3": "its points is not a number",
        "0/nle.0.xlogfile, line 5": "has a line already",
    }
    assert set(nld.left_out) == set(reasons)
    for where, reason in reasons.items():
        assert reason in nld.left_out[where]


def test_folders_without_a_game(tmp_path, recorded):
    with pytest.raises(InputError, match="no ttyrec was found"):
        NldFolder(tmp_path)
    assert layout(tmp_path) is None
    run = tmp_path / "set [1]" / "run"
    run.mkdir(parents=True)
    shutil.copy(ttyrec_of(recorded), run / "nle.0.0.ttyrec3.bz2")
    with pytest.raises(InputError, match=r"no game to read .*not played to its end"):
        NldFolder(run.parent)
    shutil.copy(recorded / "0" / "nle.0.xlogfile", run)
    assert len(read(NldFolder(run.parent))) > 0  # its name is no pattern
    (run / "nle.0.0.ttyrec3.bz2").unlink()
    with pytest.raises(InputError, match="no game to read"):
        NldFolder(run.parent)


def test_fingerprints_follow_the_files(damageable):
    before = NldFolder(damageable)
    prints = [before.fingerprint(game) for game in before.games]
    digest = before.digest
    assert digest == NldFolder(damageable).digest
    assert len(set(prints)) == 2 and all(len(text) == 16 for text in prints)
    os.utime(ttyrec_of(damageable), ns=(1, 1))
    after = NldFolder(damageable)
    assert after.fingerprint(after.games[0]) != prints[0]
    assert after.fingerprint(after.games[1]) == prints[1]
    assert after.digest != digest
    ttyrec_of(damageable).unlink()
    with pytest.raises(InputError, match="is gone"):
        after.fingerprint(after.games[0])
    with pytest.raises(InputError, match="no such file"):
        next(after.frames(after.games[0]))


# NLD-NAO


def xlog(name: str, **fields: object) -> str:
    given = {
        "version": "3.6.7", "points": 77, "deathlev": 1, "maxlvl": 3, "role": "Val", "race": "Dwa",
        "gender": "Fem", "align": "Law", "name": name, "death": "killed by a jackal",
        "turns": 500, "starttime": BEGIN, "endtime": BEGIN + 7200,
    }  # fmt: skip
    return "\t".join(f"{key}={value}" for key, value in (given | fields).items()) + "\n"


@pytest.fixture
def altorg(recorded, tmp_path) -> tuple[Path, list[tuple[int, bytes]]]:
    """One game in two ttyrecs, and the terminal output that they hold together."""
    folder = tmp_path / "altorg"
    found = records(bz2.decompress(ttyrec_of(recorded).read_bytes()))
    shown = [record for record in found if record[0] == 0]
    (folder / "Bob").mkdir(parents=True)
    (folder / "Bob" / "2020-01-01.00:00:01.ttyrec.bz2").write_bytes(pack(shown[:300], 1))
    (folder / "Bob" / "2020-01-01.01_00_00.ttyrec.bz2").write_bytes(pack(shown[300:], 1))
    (folder / "xlogfile.1").write_text(xlog("bob"))
    return folder, shown


def test_nao_games_are_joined_and_have_no_keys(altorg, recorded):
    folder, shown = altorg
    assert layout(folder) == "nld-nao"
    nld = NldFolder(folder)
    assert (nld.has_keys, nld.left_out) == (False, {})
    (game,) = nld.games
    assert game.parts == (
        "Bob/2020-01-01.00:00:01.ttyrec.bz2",
        "Bob/2020-01-01.01_00_00.ttyrec.bz2",
    )
    assert (game.points, game.role, game.turns, game.maxlvl) == (77, "Val", 500, 3)
    assert game.death == "killed by a jackal"
    found = read(nld)
    assert len(found) == len(shown)
    assert {key for _, key in found} == {0} and nld.keys(game) == b""
    # A frame for each output: among them, in order, those that a player of version 3 saw.
    whole = iter(frame["tty_chars"] for frame, _ in read(NldFolder(recorded)))
    wanted = next(whole)
    seen = 0
    for frame, _ in found:
        while wanted is not None and np.array_equal(frame["tty_chars"], wanted):
            wanted = next(whole, None)
            seen += 1
    assert seen > 450  # up to a line of text longer than the screen: version 1 does not wrap it


def test_nao_files_that_are_no_games_are_named(altorg):
    folder, _ = altorg
    user = folder / "Bob"
    part = (user / "2020-01-01.00:00:01.ttyrec.bz2").read_bytes()
    (user / "2019-01-01.00:00:01.ttyrec.bz2").write_bytes(part)
    (user / "notes.ttyrec.bz2").write_bytes(part)
    (user / "2020-01-01.00:00:02.ttyrec.gz").write_bytes(part)
    (folder / "blacklist.txt").write_text("Bob/2020-01-01.01_00_00.ttyrec.bz2\nx\n")
    short = xlog("ann", turns=5, death="quit")
    (folder / "ann").mkdir()
    (folder / "ann" / "2020-01-01.00:00:01.ttyrec.bz2").write_bytes(part)
    (folder / "xlogfile.2").write_text("garbage\n" + xlog("bob", points="1e3") + short)
    nld = NldFolder(folder)
    assert [game.parts for game in nld.games] == [("Bob/2020-01-01.00:00:01.ttyrec.bz2",)]
    reasons = {
        "Bob/2019-01-01.00:00:01.ttyrec.bz2": "no game of this player",
        "Bob/notes.ttyrec.bz2": "not the time",
        "Bob/2020-01-01.00:00:02.ttyrec.gz": "not of ttyrec version 1",
        "Bob/2020-01-01.01_00_00.ttyrec.bz2": "blacklist",
        "ann/2020-01-01.00:00:01.ttyrec.bz2": "given up within 10 turns",
        "xlogfile.2, line 1": "not a line of an xlogfile",
        "xlogfile.2, line 2": "its points is not a number",
    }
    assert set(nld.left_out) == set(reasons)
    for where, reason in reasons.items():
        assert reason in nld.left_out[where]


def test_a_damaged_part_refuses_its_game(altorg):
    folder, _ = altorg
    path = folder / "Bob" / "2020-01-01.01_00_00.ttyrec.bz2"
    path.write_bytes(path.read_bytes()[:-50])
    nld = NldFolder(folder)
    with pytest.raises(InputError, match=r"01_00_00.ttyrec.bz2: truncated"):
        next(nld.frames(nld.games[0]))
    path.write_bytes(pack([(1, b"abc")] * 9))
    with pytest.raises(InputError, match="not a ttyrec of version 1"):
        next(nld.frames(nld.games[0]))
