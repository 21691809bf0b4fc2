"""Messages between processes, either of which may be stopped or killed at any moment.

A message is pickled and framed by its length. A channel never waits for its other end: what the
other end does not take yet is kept and sent later, what has come in part is kept until the rest is
there. `multiprocessing.Pipe` blocks in both cases for as long as the other process is stopped.
"""

from __future__ import annotations

import pickle
import selectors
import socket
import time
from collections import deque
from collections.abc import Collection
from typing import Any, TypeVar

End = TypeVar("End", bound=Any)
_HEADER = 8
_CHUNK = 1 << 18
_AT_ONCE = 1 << 26
"""Bytes read in one call: an end that never stops sending must not keep its reader."""
_MAX_MESSAGE = 1 << 32
"""A longer one is not ours: something else was written into the socket."""


class Channel:
    """One end of a connection. Not thread-safe.

    It can be an argument of a process that is being spawned. The parent then closes its own copy of
    that end, so that it sees when the child is gone.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._unread = bytearray()
        self._unsent: deque[memoryview] = deque()
        self._messages: deque[Any] = deque()
        self._ended = False

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends that are connected."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    def __reduce__(self) -> tuple[Any, ...]:
        return Channel, (self._socket,)

    def fileno(self) -> int:
        """The file descriptor, for selectors; -1 once closed."""
        return self._socket.fileno()

    @property
    def unsent(self) -> int:
        """Bytes that the other end has not taken yet."""
        return sum(map(len, self._unsent))

    @property
    def received(self) -> int:
        """Bytes of a message that has come in part."""
        return len(self._unread)

    def send(self, message: Any) -> None:
        """Send what the other end takes now and keep the rest for `flush`.

        That the other end is gone is no error here: `receive` tells, after all that came from it.
        """
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._unsent.append(memoryview(len(data).to_bytes(_HEADER, "little") + data))
        self.flush()

    def flush(self) -> bool:
        """Send what the other end takes now; whether nothing is left."""
        while self._unsent:
            part = self._unsent[0]
            try:
                sent = self._socket.send(part)
            except BlockingIOError:
                return False
            except OSError:  # the other end is gone
                self._unsent.clear()
                return True
            if sent < len(part):
                self._unsent[0] = part[sent:]
            else:
                self._unsent.popleft()
        return True

    def drain(self, timeout: float | None = None) -> None:
        """Wait until all is sent, or the other end is gone; TimeoutError after `timeout` seconds.

        For a process that has nothing else to do, as `next`.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        with selectors.PollSelector() as selector:
            selector.register(self, selectors.EVENT_WRITE)
            while not self.flush():
                left = None if limit is None else limit - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                selector.select(left)

    def receive(self) -> list[Any]:
        """The messages that are here in whole, perhaps none.

        EOFError once the other end is gone, or has sent what is no message, and all its messages
        were given; a message that it has not finished is dropped.
        """
        self._read()
        messages = list(self._messages)
        self._messages.clear()
        if self._ended and not messages:
            raise EOFError
        return messages

    def next(self, timeout: float | None = None) -> Any:
        """The next message, for a process that has nothing else to do than to wait for it.

        EOFError as in `receive`; TimeoutError after `timeout` seconds (None: no limit, which suits
        only a child that waits for the parent with which it ends).
        """
        limit = None if timeout is None else time.monotonic() + timeout
        while not self._messages:
            left = None if limit is None else max(0.0, limit - time.monotonic())
            if wait([self], left):
                self._read()
                if self._ended and not self._messages:
                    raise EOFError
            elif left == 0:
                raise TimeoutError
        return self._messages.popleft()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _read(self) -> None:
        """Take in what has come."""
        for _ in range(_AT_ONCE // _CHUNK):
            if self._ended:
                break
            try:
                data = self._socket.recv(_CHUNK)
            except BlockingIOError:
                break
            except OSError:  # reset: it was killed with something unread
                data = b""
            self._ended = not data
            self._unread += data
            self._split()

    def _split(self) -> None:
        """Turn what is there in whole into messages."""
        begin = 0
        while len(self._unread) - begin >= _HEADER:
            at = begin + _HEADER
            size = int.from_bytes(self._unread[begin:at], "little")
            if size > _MAX_MESSAGE:
                self._ended = True
                break
            if len(self._unread) - at < size:
                break
            try:
                self._messages.append(pickle.loads(bytes(self._unread[at : at + size])))
            except Exception:  # foreign code has written into the socket: whatever may be raised
                self._ended = True
                break
            begin = at + size
        del self._unread[:begin]


def wait(ends: Collection[End], timeout: float | None) -> list[End]:
    """Those of `ends` with something to receive (or that have ended), within `timeout` seconds.

    `ends` are channels, and file descriptors or what has one. Channels send meanwhile what their
    other ends begin to take. A signal whose handler returns does not end the wait: whoever has to
    look at what a handler noted gives a short `timeout`.
    """
    limit = None if timeout is None else time.monotonic() + timeout
    while True:
        with selectors.PollSelector() as selector:
            for end in ends:
                sending = isinstance(end, Channel) and end.unsent
                selector.register(
                    end, selectors.EVENT_READ | (selectors.EVENT_WRITE if sending else 0), end
                )
            left = None if limit is None else max(0.0, limit - time.monotonic())
            ready = selector.select(left)
        for key, events in ready:
            if events & selectors.EVENT_WRITE:
                key.data.flush()
        readable = [key.data for key, events in ready if events & selectors.EVENT_READ]
        if readable or not ready or left == 0:
            return readable
