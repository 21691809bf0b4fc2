"""Functions compiled by numba, and the cache of their compiled code.

By itself numba keeps code beside the source or in the user's home, refuses to work where it can
write to neither, fails at a file that was cut short, mixes up what two processes keep at a time,
and does not notice that a function called from another file has changed. Here code lies in the
cache folder, else in a private temporary one, else nowhere: then every process compiles anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import shutil
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from multiprocessing import parent_process
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar, cast

from nhzoo.errors import InputError, Notice
from nhzoo.runtime import files
from nhzoo.runtime.system import PACKAGE


def _state() -> list[tuple[int, int]]:
    """When each source file was changed, and its size."""
    return [(found.st_mtime_ns, found.st_size) for found in map(os.stat, _FILES)]


# Before the import of numba, which takes a second: the modules in memory are those of this moment.
# What is compiled depends on the files that hold such functions, and on the two rooms whose numbers
# and functions they use.
_TEXTS = {path: path.read_bytes() for path in sorted(PACKAGE.rglob("*.py"))}
_FILES = [
    path
    for path, text in _TEXTS.items()
    if b"njit(" in text or path.relative_to(PACKAGE).parts[0] in ("envs", "policy")
]
_STATE = _state()
_SOURCES = hashlib.sha256(b"".join(_TEXTS.pop(path) for path in _FILES)).digest()
_TEXTS.clear()

import llvmlite  # noqa: E402
import numba  # noqa: E402
import numpy as np  # noqa: E402
from numba.core import caching, compiler, serialize  # noqa: E402
from numba.core.dispatcher import Dispatcher  # noqa: E402

F = TypeVar("F", bound=Callable[..., Any])

_PROBE = bytes(1 << 16)  # what a folder must take before compiled code is trusted to it
_KEPT_SECONDS = 30 * 24 * 3600  # for the code of a version that is not used any more


def njit(**options: Any) -> Callable[[F], F]:
    """Compile with numba, without Python's lock; `options` are those of `numba.njit`.

    The compiled code outlives the process. It is made again when a source file has changed that
    holds such functions or what they use.
    """

    def compiled(function: F) -> F:
        dispatcher = numba.njit(nogil=True, **options)(function)
        keep(dispatcher, function)
        return cast(F, dispatcher)

    return compiled


def adopt() -> None:
    """Have whatever says `cache=True` in this process, anybody's code, kept like ours."""

    def enable(self: Any) -> None:
        keep(self, self.py_func)

    setattr(Dispatcher, "enable_caching", enable)  # noqa: B010  (mypy wants no method assigned)


def keep(dispatcher: Any, function: Callable[..., Any]) -> None:
    """Keep the compiled code of numba's `dispatcher`, or of its `CFunc`, for `function`."""
    with contextlib.suppress(OSError):  # no source file: code that was typed in, or an archive's
        dispatcher._cache = _Kept(function)  # what numba's own option `cache` sets


@functools.cache
def folder() -> Path | None:
    """Where this process keeps compiled code; None where no place can be written.

    The folder that numba's own NUMBA_CACHE_DIR names comes first. Code is read from there to be
    run: a folder that others can write to or replace is passed over. Each version has its own.
    """
    versions = [sys.version, numba.__version__, llvmlite.__version__, np.__version__]
    for name in ("nle", "nethackers"):  # their constants are compiled in
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(metadata.version(name))
    version = hashlib.sha256(_SOURCES + repr(versions).encode()).hexdigest()[:16]
    tried: list[Callable[[], Path]] = [files.cache_folder, files.private_folder]
    if named := os.environ.get("NUMBA_CACHE_DIR") or getattr(numba.config, "CACHE_DIR", ""):
        tried.insert(0, lambda: Path(named))
    for find in tried:
        with contextlib.suppress(OSError, InputError):
            path = Path(os.path.realpath(find())) / f"kernels-{os.getuid()}" / version
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
            if not _is_ours_alone(path):
                continue
            with tempfile.TemporaryFile(dir=path) as probe:
                probe.write(_PROBE)
            os.utime(path)  # in use
            for other in path.parent.iterdir():
                with contextlib.suppress(OSError):  # another process does the same
                    if time.time() - other.stat().st_mtime > _KEPT_SECONDS:
                        shutil.rmtree(other)
            return path
    if parent_process() is None:  # workers need not repeat it
        warnings.warn(
            "compiled code can be kept nowhere, so every start takes up to a minute longer: name a "
            "folder that can be written in NHZOO_CACHE",
            Notice,
            stacklevel=2,
        )
    return None


def _is_ours_alone(path: Path) -> bool:
    """Whether nobody else can write to the folder, nor put another in its place."""
    trusted = {0, os.getuid(), Path("/").stat().st_uid}  # the last: root, seen from a container
    for parent in reversed(path.parents):
        found = parent.stat()
        shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if found.st_uid not in trusted or (shared and not found.st_mode & stat.S_ISVTX):
            return False
        if found.st_uid == os.getuid() and not found.st_mode & (stat.S_IXGRP | stat.S_IXOTH):
            break  # nobody else comes further
    return files.is_private(path) and not path.stat().st_mode & 0o077


class _Kept(caching.NullCache):
    """The compiled code of one function: a file for each signature and kind of CPU.

    No fault of a file stops the function: it is compiled anew, and the file is replaced.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        code = self._code = function.__code__
        self._py_func = function  # where numba's `_index_key` looks
        text = hashlib.sha256(Path(code.co_filename).read_bytes()).hexdigest()
        self._source = (code.co_filename, text, code.co_firstlineno, function.__qualname__)

    @property
    def cache_path(self) -> str | None:
        """Where numba's statistics say that it is."""
        return str(folder() or "") or None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code for a signature; None when there is none, or it is not whole."""
        target_context.refresh()
        with contextlib.suppress(Exception):  # whatever a file may raise that others have made
            path, key = self._place(sig, target_context.codegen())
            data = path.read_bytes()
            if hashlib.sha256(data[32:]).digest() == data[:32]:
                kept, reduced = pickle.loads(data[32:])
                rebuild: Any = compiler.CompileResult._rebuild
                return rebuild(target_context, *reduced) if kept == key else None
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the code for a signature, if that can be."""
        if data.lifted or data.library.has_dynamic_globals:
            return
        with contextlib.suppress(Exception):  # as on a full disk: the code is in memory
            path, key = self._place(sig, data.codegen)
            dump: Any = serialize.dumps
            body = dump((key, data._reduce()))
            files.atomic_write(path, hashlib.sha256(body).digest() + body, sync=False)

    def _place(self, sig: Any, codegen: Any) -> tuple[Path, Any]:
        """The file for a signature, and what it is the code of; FileNotFoundError without one."""
        place = folder()
        if place is None or _state() != _STATE:  # a pull: the code in memory is the old one
            raise FileNotFoundError
        index_key: Any = caching.Cache._index_key  # with the bytecode and what a closure holds
        key = (self._source, _parts(self._code), index_key(self, sig, codegen))
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:24]
        return place / f"{Path(self._code.co_filename).stem}.{self._code.co_name}-{name}", key


def _parts(code: CodeType) -> list[Any]:
    """What tells apart two functions of one line, the same in every process."""
    inner = [_parts(part) if isinstance(part, CodeType) else repr(part) for part in code.co_consts]
    return [code.co_code.hex(), code.co_names, *inner]
