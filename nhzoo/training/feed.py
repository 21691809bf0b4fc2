"""Prefetching: a thread reads batches as tensors onto the training device.

A thread runs ahead on streams of its own; the position that is saved is that of the batches handed
out. On a GPU the batches lie in pinned memory and are copied beside the computation. Processes may
read for the thread, see `nhzoo.data.loaders`: neither changes a bit of the batches.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from nhzoo.data.loaders import LoaderPool, MakeStreams
from nhzoo.evaluation.loss import tensors_of

MOST_LOADERS = 16
"""Processes that read for a GPU by default; fewer where the machine has fewer cores."""


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
    """Batches of `streams()`; with `ahead` > 0 a thread reads that many before they are asked for.

    `loaders` processes read them, or none: then this one. `say` hears of those that were replaced.
    """

    def __init__(
        self,
        streams: MakeStreams,
        device: torch.device,
        ahead: int,
        loaders: int = 0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.streams = streams()
        """Stands behind the batch that was handed out last."""
        self._pool = LoaderPool(streams, loaders, say) if loaders else None
        self._reader = self._pool or (streams() if ahead else self.streams)
        self._device, self._ahead = device, ahead
        self._pending: deque[Future[DeviceBatch]] = deque()
        self._thread = ThreadPoolExecutor(1, "prefetch") if ahead else None
        self._copies = _copy_stream(device) if device.type == "cuda" else None

    def next(self) -> DeviceBatch:
        """The next batch."""
        if self._thread is None:
            fed = self._read()
        else:
            while len(self._pending) <= self._ahead:
                self._pending.append(self._thread.submit(self._read))
            fed = self._pending.popleft().result()
        if self._reader is not self.streams:
            self.streams.skip()
        return self._send(fed)

    def restart(self) -> None:
        """Read on from where `streams` stands now."""
        self.close()
        if self._reader is not self.streams:
            self._reader.restore(self.streams.state())
        if self._thread is not None:
            self._thread = ThreadPoolExecutor(1, "prefetch")

    def close(self) -> None:
        """End the thread and the processes."""
        if self._pool is not None:
            self._pool.stop()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._pending.clear()
        if self._pool is not None:
            self._pool.close()

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
        elif self._pool is not None:  # whose memory is for the next batches
            fed.inputs = {name: tensor.clone() for name, tensor in fed.inputs.items()}
            fed.actions = fed.actions.clone()
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


def to_device(arrays: Mapping[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    """Arrays as tensors there, without waiting for a GPU."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if device.type != "cuda":
        return tensors
    return {k: v.pin_memory().to(device, non_blocking=True) for k, v in tensors.items()}


def default_loaders(device: torch.device, processes: int) -> int:
    """How many processes read for one of `processes` trainers of this machine.

    For a GPU as many as cores are left for them, up to 16; none for a CPU, which has the cores to
    train with.
    """
    if device.type == "cpu":
        return 0
    return max(1, min(MOST_LOADERS, len(os.sched_getaffinity(0)) // processes - 1))
