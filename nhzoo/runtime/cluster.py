"""The connection to a Ray cluster."""

from __future__ import annotations

import os
import socket
from typing import Any

from nhzoo.errors import InputError

_ANSWER_SECONDS = 10.0  # for the cluster's address
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def connect(address: str) -> Any:
    """The module `ray`, connected to the cluster at `address`; InputError when none answers."""
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError("--cluster needs Ray: pip install 'nhzoo[cluster]'") from None
    if ray.is_initialized():
        return ray
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    try:
        if colon and port.isdigit():  # Ray itself tries for minutes
            _greet(host.strip("[]"), int(port))
        ray.init(address=address, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--cluster {address}: no Ray cluster answers ({reason}); give the address that "
            "`ray start --head` said, or auto"
        ) from None
    return ray


def _greet(host: str, port: int) -> None:
    """OSError or ValueError unless something there speaks HTTP/2, as Ray's services do."""
    with socket.create_connection((host, port), _ANSWER_SECONDS) as peer:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return
        peer.sendall(_PREFACE)
        if peer.recv(9)[3:4] != b"\x04":  # its settings come first
            raise ValueError("what listens there is none")
