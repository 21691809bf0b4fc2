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
import inspect
import os
import pickle
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite
import numba
from numba.core import caching, compiler, serialize
from numba.core.dispatcher import Dispatcher

from nhzoo import files
from nhzoo.errors import InputError, Notice

F = TypeVar("F", bound=Callable[..., Any])

_PROBE = bytes(1 << 16)  # what a folder must take before compiled code is trusted to it
_KEPT_SECONDS = 30 * 24 * 3600  # for the code of another version or another checkout
_IMPORT = re.compile(rb"^\s*from nhzoo(?:\.(\w+))? import (\([^)]*\)|.*)", re.M)


def njit(**options: Any) -> Callable[[F], F]:
    """Compile with numba, without Python's lock; `options` are those of `numba.njit`.

    The compiled code outlives the process. It is made again when the function's module, or any
    module of nhzoo that it imports, has changed.
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
    if named := getattr(numba.config, "CACHE_DIR", ""):
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
            "compiled code can be kept nowhere, so every start takes a minute longer: name a "
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
            _sources(inspect.getfile(self._function)),
            numba.__version__,
            llvmlite.__version__,
            sys.implementation.cache_tag,
            codegen.magic_tuple(),
            self._function.__code__.co_firstlineno,
            str(sig),
        )
        name = hashlib.sha256(repr(made).encode()).hexdigest()[:24]
        return place / f"{module}.{self._function.__qualname__}-{name}"


@functools.cache
def _sources(file: str) -> str:
    """A hash of a module and of all modules of nhzoo that it imports, directly or not.

    Constants become part of compiled code, and so do functions that it calls.
    """
    package, todo, seen = Path(__file__).parent, [Path(file)], {}
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        try:
            seen[path] = source = path.read_bytes()
        except OSError:  # a name that is no module, or sources that are not installed
            seen[path] = b""
            continue
        for inner, names in _IMPORT.findall(source):
            found = [inner] if inner else re.findall(rb"\w+", names)
            todo += [package / f"{name.decode()}.py" for name in found]
    digest = hashlib.sha256()
    for path, source in sorted(seen.items()):
        digest.update(f"{path.name} {len(source)}\n".encode() + source)
    return digest.hexdigest()
