"""The table sums of whole screens, for playing: forward alone, and eight numbers at a time.

`tables` is their other half, for training: there each sum is a step of its own, with a backward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils
from numba.extending import intrinsic

from nhzoo import features as seen
from nhzoo import walking

Array = np.ndarray[Any, Any]

_PATCH_WORDS = seen.WINDOW_COLS // seen.PATCH_COLS  # a patch's row of four cells as one number
_ZERO = np.float32(0)


def _emit_sum(
    context: Any, table: Any, starts: Any, count: Any, first: Any, out: Any, at: Any
) -> tuple[Any, Callable[..., Any]]:
    """The types and the code of `_sum_eight`."""
    eight, once = ir.VectorType(ir.FloatType(), 8), cast(Any, cgutils.alloca_once_value)

    def emit(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        table, starts, out = (
            target.make_array(signature.args[k])(target, builder, values[k]).data for k in (0, 1, 4)
        )
        total = once(builder, ir.Constant(eight, [0.0] * 8))
        with cgutils.for_range(builder, values[2]) as loop:
            start = builder.load(builder.gep(starts, [loop.index]))
            row = builder.gep(table, [builder.add(start, values[3])])
            columns = builder.load(builder.bitcast(row, eight.as_pointer()), align=4)
            builder.store(builder.fadd(builder.load(total), columns), total)
        where = builder.bitcast(builder.gep(out, [values[5]]), eight.as_pointer())
        builder.store(builder.load(total), where, align=4)
        return target.get_dummy_value()

    whole = numba.types.int64
    return numba.types.void(table, starts, whole, whole, out, whole), emit


_sum_eight: Any = intrinsic(_emit_sum)
"""Sum eight columns from `first` on of `count` rows, into `out` from `at` on.

One register of eight numbers through all rows; numba by itself adds one number at a time.
"""


@numba.njit(cache=True, nogil=True)
def _sum_rows(table: Array, starts: Array, count: int, width: int, out: Array, at: int) -> None:
    """Sum `count` rows of a table, flat, that begin at `starts`, into `out`, flat, from `at` on."""
    for column in range(0, width - 7, 8):
        _sum_eight(table, starts, count, column, out, at + column)
    if width >= 8 and width % 8:  # the last eight: some of them again
        _sum_eight(table, starts, count, width - 8, out, at + width - 8)
    for d in range(width if width < 8 else 0):
        total = _ZERO
        for k in range(count):
            total += table[starts[k] + d]
        out[at + d] = total


@numba.njit(cache=True, nogil=True)
def _sum_symbols(
    table: Array,
    rows: Array,
    symbols: Array,
    line: int,
    starts: Array,
    width: int,
    out: Array,
    at: int,
) -> None:
    """Sum the rows that line `line` of symbols selects into `out`, flat, from `at` on."""
    count = 0
    for k in range(np.uint64(symbols.shape[1])):
        row = rows[k, symbols[line, k]]
        starts[count] = row * width
        count += row >= 0
    _sum_rows(table, starts, count, width, out, at)


@numba.njit(cache=True, nogil=True)
def sum_tables(
    crop: Array,
    words: Array,
    message: Array,
    symbols: tuple[Array, ...],
    compass: Array,
    tables: tuple[Array, ...],
    rows: tuple[Array, ...],
    widths: Array,
    starts: Array,
    cells: Array,
    patches: Array,
    read: Array,
    joined: Array,
    start: int,
) -> None:
    """All table sums of n screens: those that layers read, and those that are joined as they are.

    `symbols` are of status, cursor, choices, recent and here; `words` is the map, four cells each.
    `joined` gets its columns from `start` on, up to the bearings.
    """
    flat_cells, flat_patches = cells.reshape(-1), patches.reshape(-1)
    flat_read, flat_joined = read.reshape(-1), joined.reshape(-1)
    crop_table, map_table, message_table = tables[0], tables[1], tables[2]
    crop_rows, map_rows, compass_table, compass_rows = rows[0], rows[1], tables[8], rows[7]
    large = np.uint32(len(message_table) // widths[2])
    for i in range(len(crop)):
        width = widths[0]
        for k in range(np.uint64(seen.CELLS)):
            for layer in range(np.uint64(3)):
                starts[layer] = crop_rows[layer, crop[i, layer, k]] * width
            at = (i * seen.CELLS + np.int64(k)) * width
            _sum_rows(crop_table, starts, 3, width, flat_cells, at)
        width = widths[1]
        for y in range(seen.GRID_ROWS):
            for x in range(seen.GRID_COLS):
                count = 0
                for down in range(seen.PATCH_ROWS):
                    word = words[i, (y * seen.PATCH_ROWS + down) * _PATCH_WORDS + x]
                    for right in range(seen.PATCH_COLS if word else 0):
                        symbol = word >> np.uint32(8 * right) & np.uint32(255)
                        row = map_rows[down * seen.PATCH_COLS + right, symbol]
                        starts[count] = row * width
                        count += row >= 0
                at = (i * seen.PATCHES + y * seen.GRID_COLS + x) * width
                _sum_rows(map_table, starts, count, width, flat_patches, at)
        count = 0
        width = widths[2]
        for k in range(message.shape[1]):
            if message[i, k] >= 0:
                starts[count] = np.int64(np.uint32(message[i, k]) % large) * width
                count += 1
        at = i * joined.shape[1] + start
        _sum_rows(message_table, starts, count, width, flat_joined, at)
        for part in range(5):
            at += width
            width = widths[3 + part]
            _sum_symbols(
                tables[3 + part], rows[2 + part], symbols[part], i, starts, width, flat_joined, at
            )
        width = widths[8]
        for line in range(i * walking.DIRECTIONS, (i + 1) * walking.DIRECTIONS):
            at = line * width
            _sum_symbols(compass_table, compass_rows, compass, line, starts, width, flat_read, at)
