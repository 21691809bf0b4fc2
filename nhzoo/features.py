"""What a policy reads of a screen: small integers that select rows of tables. Preprocessing v1.

Only what a terminal shows goes in (characters, colours, cursor) and the previous key, so recorded
ttyrecs, replays and live games are one input. Everything is an index array; -1 means "nothing".

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

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Features:
    """Index arrays of n frames, int32, -1 for nothing.

    `crop` [n, 121, 2]: character row and colour row of every cell round the cursor. `map`
    [n, 133, 12]: position-in-patch x character, patches counted from the cursor. `message` [n, 48]:
    hashes (not yet reduced to a table's size) of words and neighbouring words of the top line.
    `status` [n, 80]: position x symbol of the bottom line. `where` [n, 3]: the previous key,
    cursor row, cursor column.
    """

    crop: Array
    map: Array
    message: Array
    status: Array
    where: Array


def encode(chars: Array, colors: Array, cursor: Array, previous_keys: Array) -> Features:
    """Encode n screens: [n, 24, 80] characters and colours, [n, 2] cursors, [n] previous keys."""
    n = len(chars)
    if chars.shape != (n, ROWS, COLS) or colors.shape != chars.shape or cursor.shape != (n, 2):
        raise ValueError(
            f"screens of {chars.shape}, {colors.shape}, {cursor.shape} are not n x 24 x 80"
        )
    features = Features(
        crop=np.empty((n, CELLS, 2), np.int32),
        map=np.empty((n, PATCHES, PATCH_CELLS), np.int32),
        message=np.full((n, 2 * WORDS), -1, np.int32),
        status=np.empty((n, STATUS_CELLS), np.int32),
        where=np.empty((n, 3), np.int32),
    )
    _encode(
        np.ascontiguousarray(chars, np.uint8),
        np.ascontiguousarray(colors).view(np.uint8),
        np.ascontiguousarray(cursor, np.uint8),
        np.ascontiguousarray(previous_keys, np.uint8),
        features.crop,
        features.map,
        features.message,
        features.status,
        features.where,
    )
    return features


WHERE_ROWS = KEYS + ROWS + COLS
"""Rows of the table that `where` selects from: keys, cursor rows, cursor columns."""


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
    grid: Array,
    message: Array,
    status: Array,
    where: Array,
) -> None:
    for i in range(len(chars)):
        row, col = int(cursor[i, 0]), int(cursor[i, 1])
        screen = chars[i]
        cell = 0
        for y in range(row - CROP // 2, row + CROP // 2 + 1):
            for x in range(col - CROP // 2, col + CROP // 2 + 1):
                if 0 <= y < ROWS and 0 <= x < COLS:
                    char = screen[y, x] - 32
                    crop[i, cell, 0] = char if 0 <= char < CHARS else 0
                    crop[i, cell, 1] = CHARS + (colors[i, y, x] & 15)
                else:
                    crop[i, cell, 0] = -1
                    crop[i, cell, 1] = -1
                cell += 1
        top = row - (GRID_ROWS // 2) * PATCH_ROWS - PATCH_ROWS // 2
        left = col - (GRID_COLS // 2) * PATCH_COLS - PATCH_COLS // 2
        for p in range(PATCHES):
            y0 = top + (p // GRID_COLS) * PATCH_ROWS
            x0 = left + (p % GRID_COLS) * PATCH_COLS
            for k in range(PATCH_CELLS):
                y, x = y0 + k // PATCH_COLS, x0 + k % PATCH_COLS
                if 1 <= y < ROWS - 2 and 0 <= x < COLS and 32 < screen[y, x] < 128:
                    grid[i, p, k] = k * CHARS + screen[y, x] - 32
                else:
                    grid[i, p, k] = -1  # a blank adds nothing: most of a map is blank
        turn = False
        for k in range(STATUS_CELLS):
            char = screen[ROWS - 1, k]
            if k >= 2 and screen[ROWS - 1, k - 1] == 58 and screen[ROWS - 1, k - 2] == 84:
                turn = True  # after "T:"
            turn = turn and char != 32
            symbol = 0 if turn else _STATUS[char]
            status[i, k] = k * STATUS_SYMBOLS + symbol if symbol else -1
        words = 0
        last = np.uint32(0)
        word = np.uint32(2166136261)
        length = 0
        for x in range(COLS + 1):
            char = screen[0, x] if x < COLS else np.uint8(32)
            if char != 32:
                word = np.uint32((word ^ char) * np.uint32(16777619))
                length += 1
            elif length:
                if words < WORDS:
                    message[i, words] = word >> 1
                    pair = np.uint32((last * np.uint32(31)) ^ word)
                    message[i, WORDS + words] = np.uint32(pair * np.uint32(2654435761)) >> 1
                    words += 1
                last = word
                word = np.uint32(2166136261)
                length = 0
        where[i, 0] = previous[i]
        where[i, 1] = KEYS + min(row, ROWS - 1)
        where[i, 2] = KEYS + ROWS + min(col, COLS - 1)
