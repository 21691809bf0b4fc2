"""Prefetching: a thread reads batches as tensors onto the training device.

A thread runs ahead on streams of its own; the position that is saved is that of the batches handed
out. On a GPU the batches lie in pinned memory and are copied beside the computation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from nhzoo.data.batches import Streams
from nhzoo.evaluation.loss import tensors_of


@dataclass
class DeviceBatch:
    """One batch: `inputs` and `actions` [T, B, ...], `not_first` bool [B], False at a game's start.

    `rows`: which streams the rows are. `targets` counts the keys to be learnt, `valid` the frames.
    """

    inputs: dict[str, torch.Tensor]
    actions: torch.Tensor
    not_first: torch.Tensor
    rows: slice
    targets: int
    valid: int


class Prefetcher:
    """Batches of `streams()`; with `ahead` > 0 that many are read before they are asked for."""

    def __init__(self, streams: Callable[[], Streams], device: torch.device, ahead: int) -> None:
        self.streams = streams()
        """Stands behind the batch that was handed out last."""
        self._reader = streams() if ahead else self.streams
        self._device, self._ahead = device, ahead
        self._pending: deque[Future[DeviceBatch]] = deque()
        self._thread = ThreadPoolExecutor(1, "prefetch") if ahead else None
        self._copies = _copy_stream(device) if device.type == "cuda" else None

    def next(self) -> DeviceBatch:
        """The next batch."""
        if self._thread is None:
            return self._send(self._read())
        while len(self._pending) <= self._ahead:
            self._pending.append(self._thread.submit(self._read))
        fed = self._pending.popleft().result()
        self.streams.skip()
        return self._send(fed)

    def restart(self) -> None:
        """Read on from where `streams` stands now."""
        self.close()
        if self._thread is not None:
            self._reader.restore(self.streams.state())
            self._thread = ThreadPoolExecutor(1, "prefetch")

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._pending.clear()

    def _read(self) -> DeviceBatch:
        batch, rows = self._reader.next()
        fed = DeviceBatch(
            tensors_of(batch),
            torch.from_numpy(batch.actions),
            torch.from_numpy(~batch.first),
            rows,
            int(np.count_nonzero(batch.actions >= 0)),
            batch.valid,
        )
        if self._device.type == "cuda":
            fed.inputs = {name: tensor.pin_memory() for name, tensor in fed.inputs.items()}
            fed.actions, fed.not_first = fed.actions.pin_memory(), fed.not_first.pin_memory()
        return fed

    def _send(self, fed: DeviceBatch) -> DeviceBatch:
        if self._copies is None:
            return fed
        with torch.cuda.stream(self._copies):
            fed.inputs = {name: self._copy(tensor) for name, tensor in fed.inputs.items()}
            fed.actions, fed.not_first = self._copy(fed.actions), self._copy(fed.not_first)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._copies)
        for tensor in (*fed.inputs.values(), fed.actions, fed.not_first):
            tensor.record_stream(computing)  # its memory is free again when that is done with it
        return fed

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._device, non_blocking=True)


def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
