from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nhzoo.data import frames
from nhzoo.envs.actions import TTY
from nhzoo.errors import InputError
from nhzoo.runtime.arrays import arrays_in

WIDE = (*TTY, "screen_descriptions")  # a record of more than 65,535 bytes


def some_frames(count: int, seed: int, fields: tuple[str, ...] = TTY) -> list[tuple[dict, int]]:
    """Frames that change a little, much, or not at all."""
    random = np.random.default_rng(seed)
    frame = {}
    for name in fields:
        shape, dtype = frames.field_layout(name)
        frame[name] = np.zeros(shape, dtype)
    result = []
    for _ in range(count):
        frame = {name: array.copy() for name, array in frame.items()}
        for array in frame.values():
            flat = array.reshape(-1).view(np.uint8)
            for _ in range(random.integers(0, 4)):
                begin = random.integers(0, len(flat))
                length = random.integers(1, random.choice([2, 40, len(flat) + 1]))
                part = flat[begin : begin + length]
                part[:] = random.integers(0, 256, len(part))
        result.append((frame, int(random.integers(0, 256))))
    return result


def write(path: Path, content: list[tuple[dict, int]], fields: tuple[str, ...] = TTY) -> Path:
    frames.write_game(path, iter(content), fields, {"game": "x", "split": "train"})
    return path


@given(st.integers(0, 1_100), st.integers(0, 1 << 30), st.data())
@settings(max_examples=15, deadline=None)
def test_any_frames_are_read_back_at_random(tmp_path_factory, count, seed, data):
    path = tmp_path_factory.mktemp("frames") / "game.frames"
    content = some_frames(count, seed)
    game = frames.GameFrames(write(path, content))
    assert game.length == frames.frames_in(path) == count
    start = data.draw(st.integers(0, count))
    length = data.draw(st.integers(0, 600))
    part = game.read(start, length)
    expected = content[start : start + length]
    assert part["keys"].tolist() == [key for _, key in expected]
    for name in TTY:
        assert len(part[name]) == len(expected)
        for shown, (frame, _) in zip(part[name], expected, strict=True):
            np.testing.assert_array_equal(shown, frame[name])


def test_records_wider_than_a_run_can_step(tmp_path):
    content = some_frames(40, 3, WIDE)
    for frame, _ in content[1:]:  # far apart, so that a gap needs several steps
        frame["tty_chars"][0, 0] += 1
        frame["screen_descriptions"][20, 78, 79] += 1
    part = frames.GameFrames(write(tmp_path / "g.frames", content, WIDE)).read(0, 40)
    for name in WIDE:
        np.testing.assert_array_equal(part[name], np.stack([frame[name] for frame, _ in content]))


def test_a_reader_goes_on_over_chunks_from_any_place(tmp_path):
    content = some_frames(1_300, 5)
    game = frames.GameFrames(write(tmp_path / "g.frames", content))
    everything = game.read(0, 1_300)
    reader = frames.FrameReader(game, 700)
    sizes, at = [1, 63, 300, 0, 200, 900], 700
    for size in sizes:
        rows = arrays_in(reader.rows(size), game.layout)
        taken = min(size, 1_300 - at)
        np.testing.assert_array_equal(rows["tty_chars"], everything["tty_chars"][at : at + taken])
        np.testing.assert_array_equal(rows["keys"], everything["keys"][at : at + taken])
        at += taken
        assert reader.position == at


def test_the_same_frames_are_the_same_bytes(tmp_path):
    content = some_frames(600, 7)
    first, second = (write(tmp_path / f"{n}.frames", content) for n in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_a_damaged_file_is_named_or_gives_the_frames(tmp_path_factory, data):
    """Whatever bytes are changed or cut off: one clear error, never other frames, never a crash."""
    path = tmp_path_factory.mktemp("frames") / "game.frames"
    content = some_frames(530, 11)
    good = write(path, content).read_bytes()
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.one_of(st.integers(0, 60), st.integers(0, len(good) - 1)))
        bad[where] = data.draw(st.integers(0, 255))
    del bad[data.draw(st.one_of(st.just(len(bad)), st.integers(0, len(bad)))) :]
    path.write_bytes(bad)
    try:
        part = frames.GameFrames(path).read(0, 600)
    except InputError as refused:
        message = str(refused)
    else:
        message = str(path)
        assert bytes(bad) == good or part["keys"].tolist() == [key for _, key in content]
    assert str(path) in message


def test_other_versions_and_files_are_told_apart(tmp_path):
    path = write(tmp_path / "g.frames", some_frames(3, 1))
    data = bytearray(path.read_bytes())
    data[4] += 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="another version of nhzoo"):
        frames.GameFrames(path)
    path.write_bytes(b"something else entirely, and long enough for a header")
    for reading in (frames.GameFrames, frames.frames_in):
        with pytest.raises(InputError, match="not a whole packed game"):
            reading(path)
        with pytest.raises(InputError, match="no such file"):
            reading(tmp_path / "none.frames")
        os.mkfifo(tmp_path / f"{reading.__name__}.frames")
        with pytest.raises(InputError, match="not a regular file"):
            reading(tmp_path / f"{reading.__name__}.frames")
    with pytest.raises(InputError, match="unknown frame field 'glifs'"):
        frames.field_layout("glifs")


def test_a_forged_chunk_cannot_write_outside_its_record(tmp_path):
    """CRCs are no protection from somebody who computes them too."""
    import json
    import zlib

    import zstandard

    path = write(tmp_path / "g.frames", some_frames(2, 1))
    width = frames.GameFrames(path).layout.itemsize
    for gaps, lengths, values in (
        ([width], [1], b"x"),
        ([0], [width + 1], b"x" * (width + 1)),
        ([0], [2], b"x"),  # more bytes than there are
        ([0, 0], [1, 0], b"x"),  # more runs than frames claim
    ):
        counts = np.array([1, 0], np.uint32)
        parts = counts.tobytes(), np.array(gaps, np.uint16).tobytes()
        raw = b"".join((*parts, np.array(lengths, np.uint16).tobytes(), values))
        chunk = zstandard.compress(raw)
        index = {
            "fields": ("keys", *TTY),
            "chunks": [
                [frames._HEADER.size, len(chunk), zlib.crc32(chunk), len(gaps), len(values)]
            ],
            "meta": {},
        }
        body = zlib.compress(json.dumps(index).encode())
        header = frames._HEADER.pack(
            b"NHZF", frames.FORMAT, 2, frames._HEADER.size + len(chunk), len(body) + 4
        )
        path.write_bytes(header + chunk + body + zlib.crc32(body).to_bytes(4, "little"))
        with pytest.raises(InputError, match="chunk 0 is not as its index says"):
            frames.GameFrames(path).chunk(0)
