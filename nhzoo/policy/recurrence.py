"""A recurrence that is linear in its state, so that all its matrix products are of whole batches.

The minimal LSTM of Feng et al., "Were RNNs All We Needed?" (arXiv 2410.01201, section 3.2): gates
and candidates depend on the input alone,

    f, i = sigmoid(W_f x), sigmoid(W_i x);  h_t = (f h_{t-1} + i W_h x) / (f + i).

An LSTM's four products with its own past, a step at a time, become three with the input, all steps
at once; what is left to do in order is an addition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]


def scan(keep: Tensor, new: Tensor, state: Tensor) -> Tensor:
    """All h_t = keep_t h_{t-1} + new_t, [T, B, width], from h_{-1} = `state` [B, width]."""
    if keep.device.type == "cpu" and keep.dtype == torch.float32:
        result: Tensor = _Scan.apply(keep, new, state)  # type: ignore[no-untyped-call]
        return result
    steps = []
    for kept, added in zip(keep.unbind(0), new.unbind(0), strict=True):
        state = torch.addcmul(added, kept, state)
        steps.append(state)
    return torch.stack(steps)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keep: Tensor, new: Tensor, state: Tensor) -> Tensor:
        keep, new, state = keep.contiguous(), new.contiguous(), state.contiguous()
        out = torch.empty_like(new)
        _forward(_flat(keep), _flat(new), state.detach().numpy().reshape(-1), _flat(out))
        ctx.save_for_backward(keep, out, state)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keep, out, state = ctx.saved_tensors
        grad = grads[0].contiguous()
        keep_grad, new_grad = torch.empty_like(keep), torch.empty_like(keep)
        state_grad = torch.zeros_like(state)
        _backward(
            _flat(grad),
            _flat(keep),
            _flat(out),
            state.numpy().reshape(-1),
            _flat(keep_grad),
            _flat(new_grad),
            state_grad.numpy().reshape(-1),
        )
        return keep_grad, new_grad, state_grad


def _flat(tensor: Tensor) -> Array:
    return tensor.detach().numpy().reshape(len(tensor), -1)


@kernels.njit()
def _forward(keep: Array, new: Array, state: Array, out: Array) -> None:
    before = state
    for t in range(len(out)):
        for k in range(np.uint64(len(state))):
            out[t, k] = keep[t, k] * before[k] + new[t, k]
        before = out[t]


@kernels.njit()
def _backward(
    grad: Array,
    keep: Array,
    out: Array,
    state: Array,
    keep_grad: Array,
    new_grad: Array,
    state_grad: Array,
) -> None:
    """`state_grad` holds what h of a step gets from later ones, in the end the first state."""
    for t in range(len(out) - 1, -1, -1):
        before = out[t - 1] if t else state
        total = new_grad[t]
        for k in range(np.uint64(len(state))):
            total[k] = grad[t, k] + state_grad[k]
        for k in range(np.uint64(len(state))):
            keep_grad[t, k] = total[k] * before[k]
        for k in range(np.uint64(len(state))):
            state_grad[k] = total[k] * keep[t, k]
