"""Training in many processes: ranks, sums over all of them, one that reports.

`torchrun` starts the processes and tells each its number. In a process started without it every
function here answers as the only one, at no cost. Small things (counts, a request to stop) go
between the hosts by gloo; gradients go by NCCL where they are on a GPU.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from nhzoo.errors import InputError, NhzooError
from nhzoo.runtime import console

TIMEOUT = 1_800.0
"""Seconds of silence after which a process counts as lost; `$NHZOO_TIMEOUT` overrides it."""

BUCKET = 8 << 20
"""Bytes of gradients that are summed at once."""

_T = TypeVar("_T")
_store: Any = None  # a table that all processes share


class Lost(NhzooError):
    """Another process died or fell silent; the run ends, and the same command resumes."""


def rank() -> int:
    """The number of this process; 0 writes and speaks for all."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def machines() -> int:
    """How many machines they are on."""
    return max(1, world() // _number("LOCAL_WORLD_SIZE", world()))


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Be one of torchrun's processes, of which the first speaks, or else the first that fails."""
    global _store
    if _number("WORLD_SIZE", 1) == 1:
        yield
        return
    console.mute(_number("RANK", 0) != 0)
    with_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    patience = timedelta(seconds=_timeout())
    try:
        table, number, count = next(rendezvous("env://", timeout=patience))
        # The table may be older than a restart, with the addresses of the processes before it.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        _store = dist.PrefixStore(f"nhzoo/{attempt}", table)  # type: ignore[attr-defined]
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if with_gpus else "gloo",
            store=_store,
            rank=number,
            world_size=count,
            timeout=patience,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the processes do not find each other ({reason})") from error
    try:
        yield
        wait_for_all()  # who fails at the very end fails all
    except BaseException:
        for number in (signal.SIGTERM, signal.SIGINT):  # torchrun now stops all: not to hide why
            signal.signal(number, signal.SIG_IGN)
        console.mute(not _fails_first())
        raise
    finally:  # gloo's threads let go of the last tensors, or the interpreter dies of them at exit
        time.sleep(0.1)
    dist.destroy_process_group()


def pick_device(name: str) -> torch.device:
    """The device that `--device` names: cpu, cuda, cuda:N or auto.

    Each process of a machine takes the GPU of its own number.
    """
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "auto") or (index and (kind != "cuda" or not index.isdigit())):
        raise InputError(f"--device {name}: give cpu, cuda, cuda:N or auto")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cpu" or (kind == "auto" and not count):
        return torch.device("cpu")
    if index and world() > machines():
        raise InputError(f"--device {name}: give cuda, each process takes a GPU of its own")
    number = int(index) if index else _number("LOCAL_RANK", 0)
    if number >= count:
        raise InputError(
            f"--device {name}: torch {torch.__version__} sees {count} GPUs, number {number} is "
            "needed; give --device cpu"
        )
    return torch.device("cuda", number)


def total(values: Sequence[float]) -> list[float]:
    """Each of some numbers, summed over all processes."""
    if world() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    with _watched():
        dist.all_reduce(tensor)
    return [float(value) for value in tensor]


def from_first(value: _T) -> _T:
    """What process 0 gave, in every process."""
    if world() == 1:
        return value
    values = [value]
    with _watched():
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def gathered(part: torch.Tensor, dim: int) -> torch.Tensor:
    """Equal parts of a tensor, one in each process, joined along `dim`, on the CPU."""
    part = part.detach().cpu().contiguous()
    if world() == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(world())]
    with _watched():
        dist.all_gather(parts, part)
    return torch.cat(parts, dim)


def wait_for_all() -> None:
    """Return when every process has come here."""
    total([0.0])


def local_first(work: Callable[[], _T], name: str) -> _T:
    """Let one process of each machine do `work` (a cache to fill); the others find it done."""
    if world() == 1:
        return work()
    key = f"{name}/{_number('GROUP_RANK', 0)}"
    if _number("LOCAL_RANK", 0) != 0:
        while not _store.check([key]):  # not a wait in C++: signals are to be heard
            time.sleep(0.2)
    result = work()
    _store.set(key, "done")
    return result


class GradientSum:
    """Sums gradients over all processes, in buckets, while the backward pass makes the next.

    The backward pass of a network makes its gradients in one order, so the buckets of all processes
    hold the same.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._bucket: list[torch.Tensor] = []
        self._begun: list[tuple[Any, torch.Tensor, list[torch.Tensor]]] = []
        self._last = False
        if world() > 1:
            for parameter in parameters:
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(self._made)  # type: ignore[no-untyped-call]

    def expect(self) -> None:
        """The next backward pass is the update's last: its gradients are to be summed."""
        self._last = True

    def finish(self, *also: torch.Tensor) -> None:
        """Wait for the sums, those of the tensors `also` with them; all are summed in place."""
        self._last = False
        if world() == 1:
            return
        self._bucket += also
        self._begin()
        begun, self._begun = self._begun, []
        for work, flat, tensors in begun:
            with _watched():
                work.wait()
            parts = torch.split(flat, [tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def _made(self, parameter: torch.Tensor) -> None:
        if self._last and parameter.grad is not None:
            self._bucket.append(parameter.grad)
            if sum(tensor.nbytes for tensor in self._bucket) >= BUCKET:
                self._begin()

    def _begin(self) -> None:
        tensors, self._bucket = self._bucket, []
        if tensors:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            with _watched():
                self._begun.append((dist.all_reduce(flat, async_op=True), flat, tensors))


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's
        silent = "timed out" in str(error).lower()
        what = f"was silent for {_timeout():,.0f} s" if silent else "died"
        raise Lost(
            f"one of the {world()} processes {what}; the same command resumes from the last "
            "saved state"
        ) from error


def _fails_first() -> bool:
    """Whether no other process has failed before; one failure fells the others."""
    try:
        return bool(_store.add("failed", 1) == 1)
    except RuntimeError:  # the table was in a process that is gone
        return True


def _timeout() -> float:
    return float(_number("NHZOO_TIMEOUT", int(TIMEOUT)))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise InputError(f"${name} must be a whole number, is {text!r}")
    return int(text)
