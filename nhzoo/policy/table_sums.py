"""Sums of table rows (embedding bags), with a bias and a ReLU in the same pass.

In training each sum is a step of its own, with a backward. torch's `embedding_bag` spends most of
its backward in sorting indices; a loop that adds a gradient row to the row it came from does only
the additions, on a CPU in a fixed order. The sums are the largest arrays of a small network, and
memory is what they cost. In inference all tables of a screen are summed in one pass.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch

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
from nhzoo.policy.vectors import spread_row, sum_rows
from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]

_PATCH_WORDS = WINDOW_COLS // PATCH_COLS  # a patch's row of four cells as one number


def table_sum(table: torch.Tensor, indices: torch.Tensor, relu: bool = False) -> torch.Tensor:
    """Sum the rows of `table` [rows, width] that `indices` [..., k] select: [..., width].

    Index -1 adds nothing; `indices` are int32 or int64. On CPU in float32 by the loops below,
    elsewhere by torch.
    """
    if table.device.type != "cpu" or table.dtype != torch.float32:
        return _by_torch(table, indices, None, relu)
    chosen = _chosen_rows(indices.numpy().reshape(-1, indices.shape[-1]))
    result: torch.Tensor = _RowSum.apply(  # type: ignore[no-untyped-call]
        table, None, chosen, indices.shape[:-1], relu
    )
    return result


def symbol_sum(
    table: torch.Tensor,
    symbols: torch.Tensor,
    places: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None = None,
    relu: bool = False,
) -> torch.Tensor:
    """Sum the rows of `table` [rows, width] that symbols select: [..., groups, width].

    `symbols` uint8 [..., n]; `places` int32 [groups, k] and `rows` int32 [k, 256] as in
    `features.Layout`: group g sums table row rows[j, symbols[..., places[g, j]]] over j, then
    `bias` [width] is added.
    """
    if table.device.type != "cpu" or table.dtype != torch.float32:
        at = symbols[..., places.long()].long()
        indices = rows[torch.arange(len(rows), device=rows.device), at]
        return _by_torch(table, indices, bias, relu)
    flat = symbols.numpy().reshape(-1, symbols.shape[-1])
    chosen = _chosen_symbols(flat, places.numpy(), rows.numpy())
    result: torch.Tensor = _RowSum.apply(  # type: ignore[no-untyped-call]
        table, bias, chosen, (*symbols.shape[:-1], len(places)), relu
    )
    return result


def _by_torch(
    table: torch.Tensor, indices: torch.Tensor, bias: torch.Tensor | None, relu: bool
) -> torch.Tensor:
    """The same by torch's own operations, on any device."""
    flat = indices.reshape(-1, indices.shape[-1])
    summed: torch.Tensor = _GatherSum.apply(table, flat)  # type: ignore[no-untyped-call]
    summed = summed.reshape(*indices.shape[:-1], table.shape[1])
    summed = summed if bias is None else summed + bias
    return torch.relu(summed) if relu else summed


_BLANKS = 256
"""Rows of zeros: additions to one row wait for one another, and most cells of a map are blank."""
_AT_ONCE = 1 << 26
"""Numbers of gradients that are laid out for one addition: 256 MB."""


class _GatherSum(torch.autograd.Function):
    """Sums of the rows of `table` that `indices` [n, k] select, -1 for none.

    The backward of `embedding_bag` on CUDA sorts all indices, sums those of one row in one warp and
    counts its threads in 32 bits, too few for a batch of maps. This adds rows by atomics.
    """

    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        sums = torch.arange(len(indices), dtype=indices.dtype, device=indices.device)
        blank = (len(table) + sums % _BLANKS)[:, None]
        indices = torch.where(indices < 0, blank, indices)
        ctx.save_for_backward(indices)
        ctx.rows = len(table)
        padded = torch.cat([table, table.new_zeros(_BLANKS, table.shape[1])])
        return torch.nn.functional.embedding_bag(indices, padded, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (indices,), grad = ctx.saved_tensors, grads[0]
        sums, width = grad.shape
        total = grad.new_zeros(ctx.rows + _BLANKS, width)
        for places in indices.split(max(1, _AT_ONCE // max(1, grad.numel())), 1):
            each = grad[:, None].expand(sums, places.shape[1], width)
            total.index_add_(0, places.reshape(-1), each.reshape(-1, width))
        return total[: ctx.rows], None


class _RowSum(torch.autograd.Function):
    """`chosen`: the rows of all sums one after another, and where each sum's end."""

    @staticmethod
    def forward(
        ctx: Any,
        table: torch.Tensor,
        bias: torch.Tensor | None,
        chosen: tuple[Array, Array],
        shape: tuple[int, ...],
        relu: bool,
    ) -> torch.Tensor:
        out = torch.empty(*shape, table.shape[1])
        added = np.zeros(table.shape[1], np.float32) if bias is None else bias.detach().numpy()
        _sum(table.detach().numpy(), added, *chosen, out.numpy(), relu)
        if relu:
            ctx.save_for_backward(out)
        ctx.rows, ctx.chosen, ctx.biased = len(table), chosen, bias is not None
        return out

    @staticmethod
    def backward(
        ctx: Any, *grads: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None, None]:
        grad = grads[0].contiguous()
        relu = bool(ctx.saved_tensors)
        out = ctx.saved_tensors[0] if relu else grad
        table_grad = torch.zeros(ctx.rows, grad.shape[-1])
        bias_grad = torch.zeros(grad.shape[-1] if ctx.biased else 0)
        chosen, ends = ctx.chosen
        _spread(
            grad.numpy(), out.numpy(), relu, chosen, ends, table_grad.numpy(), bias_grad.numpy()
        )
        return table_grad, bias_grad if ctx.biased else None, None, None, None


@kernels.njit()
def _sum(table: Array, bias: Array, chosen: Array, ends: Array, out: Array, relu: bool) -> None:
    begin = 0
    for i in range(len(ends)):
        sum_rows(out, i * table.shape[1], table, bias, chosen, begin, ends[i], relu)
        begin = ends[i]


@kernels.njit()
def _spread(
    grad: Array,
    out: Array,
    relu: bool,
    chosen: Array,
    ends: Array,
    table_grad: Array,
    bias_grad: Array,
) -> None:
    begin = 0
    for i in range(len(ends)):
        at = i * table_grad.shape[1]
        spread_row(grad, out, at, table_grad, bias_grad, chosen, begin, ends[i], relu)
        begin = ends[i]


@kernels.njit()
def _chosen_rows(indices: Array) -> tuple[Array, Array]:
    """int32 rows >= 0 of all `indices` [n, k] in order, and int64 [n] where each sum's end."""
    chosen = np.empty(indices.size + 1, np.int32)
    ends = np.empty(len(indices), np.int64)
    n = 0
    for i in range(len(indices)):
        for k in range(indices.shape[1]):
            chosen[n] = indices[i, k]
            n += indices[i, k] >= 0
        ends[i] = n
    return chosen[:n], ends


# Unsigned indices cannot mean "from the end": without that check the loops are plain.


@kernels.njit()
def _chosen_symbols(symbols: Array, places: Array, rows: Array) -> tuple[Array, Array]:
    """`_chosen_rows` of the rows that a layout says: the sums are groups of frames."""
    frames, groups, each = len(symbols), len(places), np.uint64(places.shape[1])
    chosen = np.empty(frames * groups * each + 1, np.int32)
    ends = np.empty(frames * groups, np.int64)
    skips = _in_fours(symbols, places, rows)
    fours = symbols.view(np.uint32) if skips else np.empty((0, 0), np.uint32)
    n = np.uint64(0)
    for i in range(np.uint64(frames)):
        for group in range(np.uint64(groups)):
            k = np.uint64(0)
            while k < each:
                place = np.uint64(places[group, k])
                if skips and not k & np.uint64(3) and not fours[i, place >> np.uint64(2)]:
                    k += np.uint64(4)
                    continue
                row = rows[k, symbols[i, place]]
                chosen[n] = row
                n += np.uint64(row >= 0)
                k += np.uint64(1)
            ends[i * np.uint64(groups) + group] = n
    return chosen[:n], ends


@numba.njit(nogil=True)
def _in_fours(symbols: Array, places: Array, rows: Array) -> bool:
    """Whether symbols lie in aligned fours, and 0 selects nothing: a map is mostly blank."""
    groups, each = places.shape
    if each % 4 or symbols.shape[1] % 4 or rows[:, 0].max() >= 0:
        return False
    for group in range(groups):
        for k in range(each):
            first = places[group, k - k % 4]
            if first % 4 or places[group, k] != first + k % 4:
                return False
    return True


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
