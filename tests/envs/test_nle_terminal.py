"""NLE's screens by our terminal emulator: those of its own, in every cell."""

from __future__ import annotations

import ctypes
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nle.nethack.nethack import DLPATH

from nhzoo.data.traces import open_traces
from nhzoo.envs import nle_terminal
from nhzoo.envs.actions import TTY
from nhzoo.envs.game import Game
from nhzoo.envs.protocols import get_protocol

ROWS, COLUMNS = 24, 80
_Callback = ctypes.c_void_p
_ours = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


@pytest.fixture(scope="module")
def library():
    """NLE's library by itself, no game in it."""
    library = ctypes.CDLL(DLPATH)
    library.tmt_open.restype = ctypes.c_void_p
    library.tmt_open.argtypes = [
        *([ctypes.c_size_t] * 2),
        *([ctypes.c_void_p] * 3),
        ctypes.c_bool,
    ]
    library.tmt_write.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.tmt_close.argtypes = [ctypes.c_void_p]
    return library


class Terminal:
    """One terminal of the library, with an observation that it shows itself in."""

    def __init__(self, library, write):
        self.chars = np.zeros((ROWS, COLUMNS), np.uint8)
        self.colors = np.zeros((ROWS, COLUMNS), np.int8)
        self.cursor = np.zeros(2, np.uint8)
        self._seen = (ctypes.c_void_p * 40)()
        for at, array in ((0x78, self.chars), (0x80, self.colors), (0x88, self.cursor)):
            self._seen[at // 8] = array.ctypes.data
        self._context = ctypes.create_string_buffer(0x2058)
        ctypes.c_void_p.from_buffer(self._context, 0x2050).value = ctypes.addressof(self._seen)
        callback = ctypes.cast(library.nle_vt_callback, ctypes.c_void_p)
        self._library, self._write = library, write
        self.at = library.tmt_open(
            ROWS, COLUMNS, callback, ctypes.addressof(self._context), None, True
        )

    def write(self, text):
        """Draw; what came of it: the observation, and the terminal's memory but for addresses."""
        held = ctypes.create_string_buffer(text, len(text) + 1)
        self._write(self.at, held, len(text))
        memory = bytearray(ctypes.string_at(self.at, 340))
        memory[96:136] = b""  # lines, tabs, callback, context, another alphabet
        lines = (ctypes.c_void_p * ROWS).from_address(
            ctypes.c_void_p.from_address(self.at + 96).value
        )
        cells = b"".join(ctypes.string_at(line, 4 + 24 * COLUMNS) for line in lines)
        seen = self.chars.tobytes(), self.colors.tobytes(), self.cursor.tobytes()
        return seen, _without_padding(bytes(memory)), _without_padding_in_cells(cells)

    def close(self):
        self._library.tmt_close(self.at)


def _without_padding(memory):
    """The terminal's fields up to `wrap`, and its parser's, without the bytes between."""
    return memory[:38], memory[40:49], memory[72:76], memory[76 + 4 : 96], memory[-84:]


def _without_padding_in_cells(cells):
    lines = np.frombuffer(cells, np.uint8).reshape(ROWS, 4 + 24 * COLUMNS)
    parts = lines[:, 4:].reshape(ROWS, COLUMNS, 24)
    return lines[:, 0].tobytes(), parts[..., :10].tobytes(), parts[..., 12:20].tobytes()


def _both(library, pieces):
    """Write the pieces to two terminals, by NLE's function and by ours."""
    ours = _ours(nle_terminal.address())
    theirs = Terminal(library, library.tmt_write)
    mine = Terminal(library, lambda at, text, n: ours(at, ctypes.addressof(text), n))
    try:
        for piece in pieces:
            yield piece, theirs.write(piece), mine.write(piece)
    finally:
        theirs.close()
        mine.close()


_numbers = st.one_of(
    st.integers(0, 3), st.integers(0, 100), st.sampled_from((0, 1, 7, 22, 24, 25, 31, 79, 80, 81))
)
_sequence = st.builds(
    lambda numbers, end: b"\x1b[" + b";".join(b"%d" % n for n in numbers) + end,
    st.lists(_numbers, max_size=9),
    st.sampled_from([b"H", b"m", b"K", b"J", b"A", b"B", b"C", b"D", b"f", b"d", b"S", b"z", b"?"]),
)
_output = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=90).map(str.encode),
    _sequence,
    st.sampled_from([b"\r", b"\n", b"\b", b"\x0e", b"\x0f", b"\x1b", b"\x1b[", b"\x1b[1;"]),
    st.binary(max_size=4),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(_output, max_size=12).map(b"".join), max_size=6))
@example([b"\x1b[24;80Hx", b"y"])  # the last cell: the screen scrolls
@example([b"\x1b[1;31mA\x1b[22mB\x1b[0;7mC\x1b[m", b"\x1b[5;5H\x1b[2J"])
@example([b"\x1b[", b"3", b"1mred", b"\x1b[2", b";2H\x1b[K"])  # cut anywhere
@example([b"\x1b[;;;;;;;;;5m\x1b[99999999999;5Hx\x1b[999A\x1b[999D"])
@example([b"\0", b"a\0b", b"\xff\xe4"])
@example([b"one\r\ntwo\r\nsix\x1b[2;2H" + b"\x1b[%dK" % n for n in range(4)])
@example([b"one\r\ntwo\r\nsix\x1b[2;2H" + b"\x1b[%dJ" % n for n in range(4)])
@example([b"\x1b[9;9H\x1b[%d%ca" % (n, end) for end in b"ABCDHdf" for n in (0, 1, 8, 9, 99)])
def test_any_output_leaves_the_terminal_as_nle_does(library, pieces):
    for piece, theirs, mine in _both(library, pieces):
        assert mine == theirs, piece


def test_without_an_observation_nothing_is_shown(library):
    """While NLE starts it has none yet: lines stay marked as changed until it has."""
    ours = _ours(nle_terminal.address())
    for write in (library.tmt_write, lambda at, text, n: ours(at, ctypes.addressof(text), n)):
        terminal = Terminal(library, write)
        there = ctypes.c_void_p.from_buffer(terminal._context, 0x2050)
        there.value, before = None, there.value
        terminal.write(b"unseen")
        assert not terminal.chars[0, :6].tobytes().strip(b" \0")
        there.value = before
        terminal.write(b"\x1b[2;1Hseen")
        assert terminal.chars[0, :6].tobytes() == b"unseen"
        terminal.close()


def _screens(trace, steps, faster, monkeypatch):
    """Whether our terminal drew, and what was seen at each step."""
    installed = []

    def install(base):
        slot = ctypes.c_size_t.from_address(base + nle_terminal._SLOT)
        assert slot.value  # NLE's own, or the code that looks it up
        original(base)
        installed.append(slot.value == nle_terminal.address())

    original = nle_terminal.install
    with monkeypatch.context() as patch:
        patch.setattr(nle_terminal, "install", install)
        game = Game(faster=faster)
        game.start(trace.spec)
    digest = hashlib.sha256()
    screen = [game.observation[name] for name in TTY]
    for key in trace.keys()[:steps]:
        game.press(key)
        for array in screen:
            digest.update(array)
    game.close()
    return installed == [True], digest.hexdigest()


@pytest.mark.parametrize("index", [0, 7, 31])
def test_expert_games_look_the_same_screen_by_screen(index, monkeypatch):
    trace = open_traces("autoascend-monk-v1").traces[index]
    own = _screens(trace, 1500, True, monkeypatch)
    assert own[0], "the library is that of NLE 1.3.0, so it draws by our terminal"
    theirs = _screens(trace, 1500, False, monkeypatch)
    assert not theirs[0]
    assert own[1] == theirs[1]


@pytest.mark.parametrize("length", [nle_terminal._CODE[1], 1 << 40])
def test_another_library_keeps_its_own_terminal(monkeypatch, length):
    """Other code, and a library that ends before the code would: which is not even looked at."""
    monkeypatch.setattr(nle_terminal, "_CODE", (nle_terminal._CODE[0], length, "0" * 32))
    trace = open_traces("autoascend-monk-v1").traces[0]
    assert not _screens(trace, 10, True, monkeypatch)[0]


def test_numba_is_imported_for_it_once_that_pays():
    """A process that plays little does without; after enough steps the next game draws faster."""
    code = """
import json, sys
from nhzoo.envs import game as games, nle_library
from nhzoo.envs.protocols import get_protocol
game, found = games.Game(), []
for index, worth in enumerate((100_000, 100_000, 5)):
    nle_library._WORTH_AN_IMPORT = worth
    game.start(get_protocol("smoke-v1").game(index))
    found.append("numba" in sys.modules)
    for _ in range(10):
        game.step(27)
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout) == [False, False, True], done.stderr


def test_a_protocols_first_screen_is_the_same():
    """The opening is drawn by NLE itself, before the terminal is replaced."""
    spec = get_protocol("smoke-v1").game(0)
    screens = []
    for faster in (True, False):
        game = Game(faster=faster)
        game.start(spec)
        game.skip_opening()
        screens.append([game.observation[name].copy() for name in TTY])
        game.close()
    for one, other in zip(*screens, strict=True):
        assert np.array_equal(one, other)
