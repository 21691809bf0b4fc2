"""Sums of table rows, the cheapest layer there is: forward and backward as plain loops.

torch's `embedding_bag` spends most of its backward in sorting indices; a loop that adds a gradient
row to the row it came from does only the additions, in a fixed order.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch

Array = np.ndarray[Any, Any]


def table_sum(table: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Sum the rows of `table` [rows, width] that `indices` [..., k] select: [..., width].

    Index -1 adds nothing. On CPU in float32 by the loops below, elsewhere by torch.
    """
    if table.device.type == "cpu" and table.dtype == torch.float32:
        result: torch.Tensor = _TableSum.apply(table, indices)  # type: ignore[no-untyped-call]
        return result
    return _bag(table, indices.long())


def symbol_sum(
    table: torch.Tensor, symbols: torch.Tensor, places: torch.Tensor, rows: torch.Tensor
) -> torch.Tensor:
    """Sum the rows of `table` [rows, width] that symbols select: [..., groups, width].

    `symbols` uint8 [..., n]; `places` int32 [groups, k] and `rows` int32 [k, 256] as in
    `features.Layout`: group g sums table row rows[j, symbols[..., places[g, j]]] over j.
    """
    if table.device.type == "cpu" and table.dtype == torch.float32:
        result: torch.Tensor = _SymbolSum.apply(  # type: ignore[no-untyped-call]
            table, symbols, places, rows
        )
        return result
    chosen = symbols[..., places.long()].long()
    return _bag(table, rows.long()[torch.arange(len(rows), device=rows.device), chosen])


def _bag(table: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """`table_sum` by torch's own operations, on any device."""
    flat = indices.reshape(-1, indices.shape[-1])
    padded = torch.cat([table, table.new_zeros(1, table.shape[1])])
    flat = torch.where(flat < 0, len(table), flat)
    summed = torch.nn.functional.embedding_bag(flat, padded, mode="sum")
    return summed.reshape(*indices.shape[:-1], table.shape[1])


class _TableSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(indices)
        ctx.rows = len(table)
        out = torch.zeros(*indices.shape[:-1], table.shape[1])
        _add_rows(
            table.detach().numpy(),
            indices.numpy().reshape(-1, indices.shape[-1]),
            out.numpy().reshape(-1, table.shape[1]),
        )
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (indices,) = ctx.saved_tensors
        grad = grads[0].contiguous()
        out = torch.zeros(ctx.rows, grad.shape[-1])
        _scatter_rows(
            grad.numpy().reshape(-1, grad.shape[-1]),
            indices.numpy().reshape(-1, indices.shape[-1]),
            out.numpy(),
        )
        return out, None


@numba.njit(cache=True, nogil=True)
def _add_rows(table: Array, indices: Array, out: Array) -> None:
    width = table.shape[1]
    for i in range(np.uint64(indices.shape[0])):
        for k in range(np.uint64(indices.shape[1])):
            row = indices[i, k]
            if row >= 0:
                chosen = np.uint64(row)
                for d in range(np.uint64(width)):
                    out[i, d] += table[chosen, d]


@numba.njit(cache=True, nogil=True)
def _scatter_rows(grad: Array, indices: Array, out: Array) -> None:
    width = out.shape[1]
    for i in range(np.uint64(indices.shape[0])):
        for k in range(np.uint64(indices.shape[1])):
            row = indices[i, k]
            if row >= 0:
                chosen = np.uint64(row)
                for d in range(np.uint64(width)):
                    out[chosen, d] += grad[i, d]


class _SymbolSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        table: torch.Tensor,
        symbols: torch.Tensor,
        places: torch.Tensor,
        rows: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(symbols, places, rows)
        ctx.rows = len(table)
        out = torch.zeros(*symbols.shape[:-1], len(places), table.shape[1])
        _add_symbols(
            table.detach().numpy(),
            symbols.numpy().reshape(-1, symbols.shape[-1]),
            places.numpy(),
            rows.numpy(),
            out.numpy().reshape(-1, len(places), table.shape[1]),
        )
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        symbols, places, rows = ctx.saved_tensors
        grad = grads[0].contiguous()
        out = torch.zeros(ctx.rows, grad.shape[-1])
        _scatter_symbols(
            grad.numpy().reshape(-1, len(places), grad.shape[-1]),
            symbols.numpy().reshape(-1, symbols.shape[-1]),
            places.numpy(),
            rows.numpy(),
            out.numpy(),
        )
        return out, None, None, None


# Unsigned indices cannot mean "from the end": without that check the loops are plain additions.


@numba.njit(cache=True, nogil=True)
def _add_symbols(table: Array, symbols: Array, places: Array, rows: Array, out: Array) -> None:
    width = np.uint64(table.shape[1])
    groups, each = np.uint64(places.shape[0]), np.uint64(places.shape[1])
    for i in range(np.uint64(symbols.shape[0])):
        for group in range(groups):
            for k in range(each):
                row = rows[k, symbols[i, np.uint64(places[group, k])]]
                if row >= 0:
                    chosen = np.uint64(row)
                    for d in range(width):
                        out[i, group, d] += table[chosen, d]


@numba.njit(cache=True, nogil=True)
def _scatter_symbols(grad: Array, symbols: Array, places: Array, rows: Array, out: Array) -> None:
    width = np.uint64(out.shape[1])
    groups, each = np.uint64(places.shape[0]), np.uint64(places.shape[1])
    for i in range(np.uint64(symbols.shape[0])):
        for group in range(groups):
            for k in range(each):
                row = rows[k, symbols[i, np.uint64(places[group, k])]]
                if row >= 0:
                    chosen = np.uint64(row)
                    for d in range(width):
                        out[chosen, d] += grad[i, group, d]
