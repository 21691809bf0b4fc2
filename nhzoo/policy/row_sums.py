"""Table sums of whole screens for inference: every table in one pass, forward only.

`tables` is their other half, for training: there each sum is a step of its own, with a backward.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nhzoo.policy.config import (
    CROP_CELLS,
    DIRECTIONS,
    GRID_COLS,
    GRID_ROWS,
    PATCH_COLS,
    PATCH_ROWS,
    PATCHES,
    WINDOW_COLS,
)
from nhzoo.policy.vectors import sum_rows
from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]

_PATCH_WORDS = WINDOW_COLS // PATCH_COLS  # a patch's row of four cells as one number


@kernels.njit()
def sum_tables(
    crop: Array,
    words: Array,
    message: Array,
    symbols: tuple[Array, ...],
    compass: Array,
    tables: tuple[Array, ...],
    biases: tuple[Array, ...],
    rows: tuple[Array, ...],
    chosen: Array,
    cells: Array,
    patches: Array,
    read: Array,
    joined: Array,
    start: int,
) -> None:
    """All table sums of n screens: those that layers read, and those that are joined as they are.

    `symbols` are of status, cursor, choices, recent and here; `words` is the map, four cells each;
    `chosen` is room for the rows of one sum. `joined` gets its columns from `start` on, up to the
    bearings. Patches, message, status and compass are rectified.
    """
    crop_table, crop_rows, crop_bias = tables[0], rows[0], biases[0]
    map_table, map_rows, map_bias = tables[1], rows[1], biases[1]
    message_table, message_bias = tables[2], biases[2]
    compass_table, compass_rows, compass_bias = tables[8], rows[7], biases[8]
    cell, patch, way = crop_table.shape[1], map_table.shape[1], compass_table.shape[1]
    large = np.uint32(len(message_table))
    for i in range(len(crop)):
        for k in range(np.uint64(CROP_CELLS)):
            for layer in range(np.uint64(3)):
                chosen[layer] = crop_rows[layer, crop[i, layer, k]]
            at = (i * CROP_CELLS + np.int64(k)) * cell
            sum_rows(cells, at, crop_table, crop_bias, chosen, 0, 3, False)
        for y in range(GRID_ROWS):
            for x in range(GRID_COLS):
                n = 0
                for down in range(PATCH_ROWS):
                    word = words[i, (y * PATCH_ROWS + down) * _PATCH_WORDS + x]
                    for right in range(PATCH_COLS if word else 0):
                        symbol = word >> np.uint32(8 * right) & np.uint32(255)
                        chosen[n] = map_rows[down * PATCH_COLS + right, symbol]
                        n += chosen[n] >= 0
                at = (i * PATCHES + y * GRID_COLS + x) * patch
                sum_rows(patches, at, map_table, map_bias, chosen, 0, n, True)
        n = 0
        for k in range(message.shape[1]):
            if message[i, k] >= 0:
                chosen[n] = np.uint32(message[i, k]) % large
                n += 1
        at = i * joined.shape[1] + start
        sum_rows(joined, at, message_table, message_bias, chosen, 0, n, True)
        at += message_table.shape[1]
        for part in range(5):
            table = tables[3 + part]
            n = _choose(rows[2 + part], symbols[part], i, chosen)
            sum_rows(joined, at, table, biases[3 + part], chosen, 0, n, part == 0)
            at += table.shape[1]
        for line in range(i * DIRECTIONS, (i + 1) * DIRECTIONS):
            n = _choose(compass_rows, compass, line, chosen)
            sum_rows(read, line * way, compass_table, compass_bias, chosen, 0, n, True)


@kernels.njit()
def _choose(rows: Array, symbols: Array, line: int, chosen: Array) -> int:
    """Put the rows that a line of symbols selects into `chosen`; returns how many."""
    n = 0
    for k in range(np.uint64(symbols.shape[1])):
        chosen[n] = rows[k, symbols[line, k]]
        n += chosen[n] >= 0
    return n
