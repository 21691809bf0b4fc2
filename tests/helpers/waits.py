"""What makes the host wait for a GPU, found on a CPU: torch's calls that need a tensor's values."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_METHODS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__")
_READING = {getattr(torch.Tensor, name): name for name in _METHODS}
_OPERATIONS = (
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::repeat_interleave",
)
"""Those whose result's size, or value on the host, depends on a tensor's values."""
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class Waits(TorchDispatchMode):
    """Inside it `found` collects the names of such calls."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._methods = _Methods(self.found)

    def __enter__(self) -> Waits:
        self._methods.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._methods.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        masks = (torch.bool, torch.uint8)
        masked = name in _INDEXING and any(
            index is not None and index.dtype in masks for index in args[1]
        )
        if masked or name in _OPERATIONS:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    """What reads a tensor on the host without an operation of its own where it lies there."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READING:
            self._found.append(_READING[func])
        return func(*args, **(kwargs or {}))
