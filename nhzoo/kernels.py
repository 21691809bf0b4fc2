"""Functions that numba compiles, and where their compiled code is kept.

numba by itself keeps it beside the source or in the user's home, refuses to work where it can write
to neither, reads a file that a full disk has cut short, and does not notice that a function called
from another file was changed. Here it lies in the cache folder, else in a private temporary one,
else nowhere: then every process compiles anew. Each file is checked before it is used.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing import parent_process
from pathlib import Path
from types import ModuleType, NoneType
from typing import Any, TypeVar, cast

import llvmlite
import numba
import numpy as np
from numba.core import caching, compiler, serialize
from numba.core.dispatcher import Dispatcher

from nhzoo import files
from nhzoo.errors import InputError, Notice

F = TypeVar("F", bound=Callable[..., Any])

_PROBE = bytes(1 << 16)  # what a folder must take before compiled code is trusted to it
_KEPT_SECONDS = 30 * 24 * 3600  # for the code of another version or another checkout


def njit(**options: Any) -> Callable[[F], F]:
    """Compile with numba, without Python's lock; `options` are those of `numba.njit`.

    The compiled code outlives the process. It is made again when the function has changed, or one
    that it may call, or a constant; see `_stamp`.
    """

    def compiled(function: F) -> F:
        dispatcher = numba.njit(nogil=True, **options)(function)
        dispatcher._cache = _Kept(function)  # what numba's own option `cache` sets
        return cast(F, dispatcher)

    return compiled


def adopt() -> None:
    """Have whatever says `cache=True` in this process, anybody's code, kept like ours."""

    def enable(self: Any) -> None:
        self._cache = _Kept(self.py_func)

    setattr(Dispatcher, "enable_caching", enable)  # noqa: B010  (mypy wants no method assigned)


@functools.cache
def folder() -> Path | None:
    """Where this process keeps compiled code; None where no place can be written.

    The folder that numba's own NUMBA_CACHE_DIR names comes first. Code is read from there to be
    run: a folder that belongs to, or may be written by, somebody else is passed over.
    """
    tried: list[Callable[[], Path]] = [files.cache_folder, files.private_folder]
    if named := os.environ.get("NUMBA_CACHE_DIR") or getattr(numba.config, "CACHE_DIR", ""):
        tried.insert(0, lambda: Path(named))
    for find in tried:
        with contextlib.suppress(OSError, InputError):
            path = find().absolute() / f"kernels-{os.getuid()}"
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not files.is_private(path):
                continue
            with tempfile.TemporaryFile(dir=path) as probe:
                probe.write(_PROBE)
            return path
    if parent_process() is None:  # workers need not repeat it
        warnings.warn(
            "compiled code can be kept nowhere, so every start takes up to a minute longer: name a "
            "folder that can be written in NHZOO_CACHE",
            Notice,
            stacklevel=2,
        )
    return None


class _Kept(caching.NullCache):
    """The compiled code of one function: a file for each signature and kind of CPU."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @property
    def cache_path(self) -> str | None:
        """Where numba's statistics say that it is."""
        return str(folder() or "") or None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code for a signature; None when there is none, or it is not whole."""
        target_context.refresh()
        path = self._path(sig, target_context.codegen())
        try:
            data = path.read_bytes() if path else b""
        except OSError:
            return None
        head, body = data[:32], data[32:]
        if hashlib.sha256(body).digest() != head:
            return None
        try:
            kept, reduced = pickle.loads(body)
            if kept == sig:
                rebuild: Any = compiler.CompileResult._rebuild
                return rebuild(target_context, *reduced)
        except Exception:  # kept by a numba that was changed in place: compile again
            return None
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the code for a signature, if that can be."""
        path = self._path(sig, data.codegen)
        if path is None or data.lifted or data.library.has_dynamic_globals:
            return
        dump: Any = serialize.dumps
        body = dump((sig, data._reduce()))
        with contextlib.suppress(OSError):  # a disk that has filled up: the code is in memory
            files.atomic_write(path, hashlib.sha256(body).digest() + body, sync=False)
            for old in path.parent.glob(f"{path.name.rpartition('-')[0]}-*"):
                if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
                    old.unlink()

    def _path(self, sig: Any, codegen: Any) -> Path | None:
        place = folder()
        if place is None:
            return None
        module = self._function.__module__.rpartition(".")[2]
        made = (
            _stamp(self._function.__module__),
            numba.__version__,
            llvmlite.__version__,
            sys.implementation.cache_tag,
            codegen.magic_tuple(),
            self._function.__code__.co_firstlineno,
            str(sig),
        )
        name = hashlib.sha256(repr(made).encode()).hexdigest()[:24]
        return place / f"{module}.{self._function.__qualname__}-{name}"


_stamps: dict[str, str] = {}


def _stamp(name: str) -> str:
    """A hash of all that becomes part of the compiled code of a module's functions.

    That is the source of the module, and of those of its package whose functions it may call. Of
    other modules it can only be constants: their values are hashed, so that another change there
    costs no compilation.
    """
    if name in _stamps:
        return _stamps[name]
    package, digest = name.partition(".")[0], hashlib.sha256()
    todo, seen, whole = [name], set(), True
    while todo:
        name_of = todo.pop(0)
        module = sys.modules.get(name_of)
        if name_of in seen or module is None or name_of == __name__:
            continue
        seen.add(name_of)
        whole &= not getattr(module.__spec__, "_initializing", False)
        found = {key: held for key, held in vars(module).items() if not key.startswith("__")}
        homes = [_home(held) for held in found.values()]
        if any(home.partition(".")[0] == "numba" or home == __name__ for home in homes):
            todo += [home for home in homes if home.partition(".")[0] == package]
            digest.update(_source(module))
        for key, held in sorted(found.items()):
            if _is_constant(held):
                digest.update(f"{key} {held!r}\n".encode())
            elif isinstance(held, np.ndarray) and not held.dtype.hasobject:
                digest.update(f"{key} {held.dtype} {held.shape}\n".encode() + held.tobytes())
    stamp = digest.hexdigest()
    if whole:  # else its import has not come to its end, and more may follow
        _stamps[name] = stamp
    return stamp


def _home(held: Any) -> str:
    """The module that a value is, or that has made it."""
    name = held.__name__ if isinstance(held, ModuleType) else getattr(held, "__module__", "")
    return name if isinstance(name, str) else ""


def _is_constant(held: Any) -> bool:
    if isinstance(held, tuple):
        return all(map(_is_constant, held))
    return isinstance(held, (int, float, str, bytes, np.generic, NoneType))


def _source(module: ModuleType) -> bytes:
    try:
        return Path(module.__file__ or "").read_bytes()
    except OSError:  # not installed
        return b""
