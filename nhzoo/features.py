"""What a policy reads of a screen: small symbols that select rows of tables. Preprocessing v1.

Only what a terminal shows goes in (characters, colours, cursor) and the previous key, so recorded
ttyrecs, replays and live games are one input. Symbol 0 means "nothing". Which table row a symbol
selects depends on its place: `Layout` says how.

Of the two status lines only the lower is read, and not its turn counter: name, attributes and turn
tell one game and one moment from all others, and a network that reads them learns games by heart
(held-out loss at 5e12 FLOPs 0.836 with them, 0.824 without; `training/LOG.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

VERSION = 1
"""Version of this preprocessing; a checkpoint names the one it was trained with."""

ROWS, COLS = 24, 80
CHARS = 96  # printable ASCII, from the space on; anything else reads as a space
COLORS = 16
CROP = 11  # cells on a side, the cursor in the middle
PATCH_ROWS, PATCH_COLS = 3, 4  # cells of one patch of the map
GRID_ROWS, GRID_COLS = 7, 19  # patches, the cursor in the middle one
STATUS_CELLS = COLS
STATUS_SYMBOLS = 40  # digits, letters without case, space, three kinds of punctuation
WORDS = 24  # words of the message line that are read, and as many pairs of neighbours
KEYS = 256

CELLS = CROP * CROP
PATCHES = GRID_ROWS * GRID_COLS
PATCH_CELLS = PATCH_ROWS * PATCH_COLS
WINDOW_ROWS, WINDOW_COLS = GRID_ROWS * PATCH_ROWS, GRID_COLS * PATCH_COLS
WHERE_ROWS = KEYS + ROWS + COLS
"""Rows of the table that `where` selects from: keys, cursor rows, cursor columns."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Features:
    """What a policy reads of frames [...]; a batch of demonstrations has [T, B].

    `crop` uint8 [..., 2, 121]: characters and colours round the cursor. `map` uint8
    [..., 21, 76]: characters of the map, the cursor in the middle. `status` uint8 [..., 80]: the
    bottom line. `message` int32 [..., 48]: hashes (not yet reduced to a table's size, -1 for
    nothing) of words and neighbouring words of the top line. `where` uint8 [..., 3]: the previous
    key, cursor row, cursor column.
    """

    crop: Array
    map: Array
    status: Array
    message: Array
    where: Array

    @classmethod
    def empty(cls, *shape: int) -> Features:
        """Arrays for frames of that shape, to be filled."""
        return cls(
            crop=np.empty((*shape, 2, CELLS), np.uint8),
            map=np.empty((*shape, WINDOW_ROWS, WINDOW_COLS), np.uint8),
            status=np.empty((*shape, STATUS_CELLS), np.uint8),
            message=np.empty((*shape, 2 * WORDS), np.int32),
            where=np.empty((*shape, 3), np.uint8),
        )

    def clear(self, row: int, start: int) -> None:
        """Set row `row` of [T, B] from time `start` on to nothing."""
        for array in (self.crop, self.map, self.status, self.where):
            array[start:, row] = 0
        self.message[start:, row] = -1


@dataclass(frozen=True)
class Layout:
    """Which table rows a feature's symbols select.

    `places` [groups, k]: the k places whose rows are summed for each group. `rows` [k, 256]: the
    table row for a symbol at the k-th place of its group, -1 for nothing. Both int32.
    """

    places: Array
    rows: Array


def _offsets(ranges: list[tuple[int, int, int]]) -> Array:
    """int32 [k, 256]: the symbols first..last of each place select rows from `row` on."""
    rows = np.full((len(ranges), 256), -1, np.int32)
    for place, (first, last, row) in enumerate(ranges):
        rows[place, first : last + 1] = np.arange(row, row + last + 1 - first)
    return rows


def _crop_layout() -> Layout:
    cells = np.arange(CELLS, dtype=np.int32)
    rows = _offsets([(1, CHARS, 0), (1, COLORS, CHARS)])
    return Layout(np.stack([cells, CELLS + cells], 1), rows)


def _map_layout() -> Layout:
    window = np.arange(WINDOW_ROWS * WINDOW_COLS, dtype=np.int32)
    patches = window.reshape(GRID_ROWS, PATCH_ROWS, GRID_COLS, PATCH_COLS).transpose(0, 2, 1, 3)
    rows = _offsets([(1, CHARS - 1, k * CHARS + 1) for k in range(PATCH_CELLS)])
    return Layout(np.ascontiguousarray(patches.reshape(PATCHES, PATCH_CELLS)), rows)


def _where_layout() -> Layout:
    rows = _offsets([(0, 255, 0), (0, ROWS - 1, KEYS), (0, COLS - 1, KEYS + ROWS)])
    rows[1, ROWS:], rows[2, COLS:] = KEYS + ROWS - 1, KEYS + ROWS + COLS - 1
    return Layout(np.arange(3, dtype=np.int32)[None], rows)


def status_layout(table_rows: int) -> Layout:
    """The bottom line's: position x symbol, wrapped to a table of `table_rows`."""
    symbols = STATUS_SYMBOLS
    rows = _offsets([(1, symbols - 1, k * symbols + 1) for k in range(STATUS_CELLS)])
    return Layout(
        np.arange(STATUS_CELLS, dtype=np.int32)[None], np.where(rows < 0, -1, rows % table_rows)
    )


CROP_LAYOUT, MAP_LAYOUT, WHERE_LAYOUT = _crop_layout(), _map_layout(), _where_layout()


def encode(chars: Array, colors: Array, cursor: Array, previous_keys: Array) -> Features:
    """Encode n screens: [n, 24, 80] characters and colours, [n, 2] cursors, [n] previous keys."""
    n = len(chars)
    if chars.shape != (n, ROWS, COLS) or colors.shape != chars.shape or cursor.shape != (n, 2):
        raise ValueError(
            f"screens of {chars.shape}, {colors.shape}, {cursor.shape} are not n x 24 x 80"
        )
    features = Features.empty(n)
    _encode(
        np.ascontiguousarray(chars, np.uint8).reshape(n, -1),
        np.ascontiguousarray(colors).view(np.uint8).reshape(n, -1),
        np.ascontiguousarray(cursor, np.uint8),
        np.ascontiguousarray(previous_keys, np.uint8),
        features.crop,
        features.map,
        features.status,
        features.message,
        features.where,
    )
    return features


def _status_symbols() -> Array:
    """uint8 [256]: what a status line's character is read as."""
    table = np.full(256, 39, np.uint8)
    table[ord(" ")] = 0
    for i in range(10):
        table[ord("0") + i] = 1 + i
    for i in range(26):
        table[ord("A") + i] = table[ord("a") + i] = 11 + i
    table[ord(":")] = 37
    table[ord("(")] = 38
    return table


_STATUS = _status_symbols()


@numba.njit(cache=True, nogil=True)
def _encode(
    chars: Array,
    colors: Array,
    cursor: Array,
    previous: Array,
    crop: Array,
    window: Array,
    status: Array,
    message: Array,
    where: Array,
) -> None:
    for i in range(len(chars)):
        row, col = int(cursor[i, 0]), int(cursor[i, 1])
        encode_crop(chars[i], colors[i], row, col, crop[i])
        encode_map(chars[i], row, col, window[i])
        encode_status(chars[i], status[i])
        encode_message(chars[i], message[i])
        where[i, 0], where[i, 1], where[i, 2] = previous[i], row, col


@numba.njit(cache=True, nogil=True)
def encode_crop(chars: Array, colors: Array, row: int, col: int, crop: Array) -> None:
    """Cells round the cursor of one screen, uint8 [1920] twice, into `crop` [2, 121]."""
    # Unsigned indices cannot mean "from the end": numba then makes plain loops of all this.
    left = col - CROP // 2
    first, last = np.uint64(max(0, -left)), np.uint64(max(0, min(CROP, COLS - left)))
    for k in range(CROP):
        y = row - CROP // 2 + k
        cell = np.uint64(k * CROP)
        if not 0 <= y < ROWS or last - first < CROP:
            for x in range(np.uint64(CROP)):
                crop[0, cell + x] = 0
                crop[1, cell + x] = 0
        if 0 <= y < ROWS:
            start = np.uint64(y * COLS + left)
            for x in range(first, last):
                char = np.uint8(chars[start + x] - 32)
                crop[0, cell + x] = char + 1 if char < CHARS else 1
                crop[1, cell + x] = (colors[start + x] & 15) + 1


@numba.njit(cache=True, nogil=True)
def encode_map(chars: Array, row: int, col: int, window: Array) -> None:
    """Characters of the map of one screen, uint8 [1920], into `window` [21, 76]."""
    left = col - WINDOW_COLS // 2
    first = np.uint64(max(0, -left))
    last = np.uint64(max(0, min(WINDOW_COLS, COLS - left)))
    for k in range(np.uint64(WINDOW_ROWS)):
        y = row - WINDOW_ROWS // 2 + k
        if not 1 <= y < ROWS - 2:
            for x in range(np.uint64(WINDOW_COLS)):
                window[k, x] = 0
            continue
        for x in range(first):
            window[k, x] = 0
        start = np.uint64(y * COLS + left)
        for x in range(first, last):
            char = np.uint8(chars[start + x] - 32)
            window[k, x] = char if char < CHARS else 0
        for x in range(last, np.uint64(WINDOW_COLS)):
            window[k, x] = 0


@numba.njit(cache=True, nogil=True)
def encode_status(chars: Array, status: Array) -> None:
    """The bottom line of one screen, uint8 [1920], without its turn counter, into [80]."""
    turn = False
    for k in range(STATUS_CELLS):
        at = (ROWS - 1) * COLS + k
        if k >= 2 and chars[at - 1] == 58 and chars[at - 2] == 84:
            turn = True  # after "T:"
        turn = turn and chars[at] != 32
        status[k] = 0 if turn else _STATUS[chars[at]]


@numba.njit(cache=True, nogil=True)
def encode_message(chars: Array, message: Array) -> None:
    """Hashes of the words of the top line of one screen, uint8 [1920], and of pairs: [48]."""
    message[:] = -1
    words = length = 0
    last = np.uint32(0)
    word = np.uint32(2166136261)
    for x in range(COLS + 1):
        char = chars[x] if x < COLS else np.uint8(32)
        if char != 32:
            word = np.uint32((word ^ char) * np.uint32(16777619))
            length += 1
        elif length:
            if words < WORDS:
                message[words] = word >> 1
                pair = np.uint32((last * np.uint32(31)) ^ word)
                message[WORDS + words] = np.uint32(pair * np.uint32(2654435761)) >> 1
                words += 1
            last = word
            word = np.uint32(2166136261)
            length = 0
