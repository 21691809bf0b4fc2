"""Named arrays that lie in one piece of memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

Field = tuple[str, Any, Sequence[int]]
"""Name, dtype and shape of an array."""


def memory_layout(fields: Iterable[Field], alignment: int) -> np.dtype[Any]:
    """A structured dtype of `fields` in order, each at a multiple of `alignment` bytes.

    Its `itemsize` is the memory that they take, at least a byte.
    """
    names, formats, offsets, end = [], [], [], 0
    for name, dtype, shape in fields:
        names.append(name)
        formats.append((np.dtype(dtype), tuple(shape)))
        offsets.append(end)
        end += -(-np.dtype(dtype).itemsize * math.prod(shape) // alignment) * alignment
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": max(1, end)}
    )


def arrays_in(memory: Array, layout: np.dtype[Any]) -> dict[str, Array]:
    """The fields of a layout over `memory`, uint8 [..., itemsize]: views [..., *shape], by name."""
    items = memory.view(layout)[..., 0]
    return {name: items[name] for name in layout.names or ()}
