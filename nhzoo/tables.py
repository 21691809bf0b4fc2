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
    flat = indices.reshape(-1, indices.shape[-1]).long()
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
    for i in range(indices.shape[0]):
        for k in range(indices.shape[1]):
            row = indices[i, k]
            if row >= 0:
                for d in range(width):
                    out[i, d] += table[row, d]


@numba.njit(cache=True, nogil=True)
def _scatter_rows(grad: Array, indices: Array, out: Array) -> None:
    width = out.shape[1]
    for i in range(indices.shape[0]):
        for k in range(indices.shape[1]):
            row = indices[i, k]
            if row >= 0:
                for d in range(width):
                    out[row, d] += grad[i, d]
