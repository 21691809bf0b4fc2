"""Weights that one process writes and others read, without a lock.

Whoever reads may be killed at any moment, and the writer may be stopped: a lock would be held for
ever then. So there are two places. The writer fills the one that is not the newest, between two
counts, and then calls it the newest. A reader copies the newest and looks at the counts again: when
the writer has come to that place meanwhile, the copy is torn and is made again. A sum over the copy
finds what the counts do not, on a CPU that shows stores to other cores in another order.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_TRIES = 8
_BEGUN, _ENDED, _VERSION, _SUM = range(4)


class SharedWeights:
    """`size` float32 and the number of their version, in memory of `context` (multiprocessing).

    It can be an argument of a process that is being spawned.
    """

    def __init__(self, context: Any, size: int) -> None:
        self._hold(context.RawArray("q", 9), context.RawArray("f", 2 * size))
        self._marks[:, _VERSION] = -1

    def __getstate__(self) -> tuple[Any, Any]:
        return self._memory

    def __setstate__(self, memory: tuple[Any, Any]) -> None:
        self._hold(*memory)

    def write(self, weights: Array, version: int) -> None:
        """Make these the newest. One process alone may write."""
        place = 1 - int(self._newest[0])
        marks = self._marks[place]
        marks[_BEGUN] += 1
        self._weights[place][:] = weights
        marks[_VERSION] = version
        marks[_SUM] = _sum(self._weights[place], version)
        marks[_ENDED] = marks[_BEGUN]
        self._newest[0] = place

    def read(self, known: int) -> tuple[Array, int] | None:
        """A copy of the newest weights and their version.

        None where that is `known`, or when every copy was torn: the writer was faster each time.
        """
        for _ in range(_TRIES):
            place = int(self._newest[0])
            marks = self._marks[place]
            ended, version, total = (int(marks[name]) for name in (_ENDED, _VERSION, _SUM))
            if version == known:
                return None
            weights = self._copy(place)
            if int(marks[_BEGUN]) == ended and _sum(weights, version) == total:
                return weights, version
        return None

    def _copy(self, place: int) -> Array:
        return np.array(self._weights[place])

    def _hold(self, marks: Any, weights: Any) -> None:
        self._memory = marks, weights
        counts = np.frombuffer(marks, np.int64)
        self._newest, self._marks = counts[:1], counts[1:].reshape(2, 4)
        self._weights = np.frombuffer(weights, np.float32).reshape(2, -1)


def _sum(weights: Array, version: int) -> int:
    return zlib.crc32(weights.data, version & 0xFFFFFFFF)
