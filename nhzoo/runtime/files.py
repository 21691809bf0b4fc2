"""Bounded reading of untrusted files, and atomic, durable writing.

Everything that enters from outside (checkpoints, submissions, datasets) is read here, with a size
limit, inside a root folder, and parsed without running code. Everything that a later run resumes
from is written here: complete or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import io
import json
import lzma
import math
import os
import re
import secrets
import shutil
import stat
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from nhzoo.errors import InputError, Notice, refusal
from nhzoo.runtime import processes

if TYPE_CHECKING:  # takes a while to import
    from pydantic import TypeAdapter

T = TypeVar("T")
MEGABYTE = 1 << 20
_POINTER = b"version https://git-lfs.github.com/spec/"
_STALE_SECONDS = 3_600.0  # of what has a name for temporary files that is not ours
FOREIGN_SECONDS = 7 * 86_400.0
"""How long nobody has written to what another machine or container has begun when it is removed."""
_warned: list[Path] = []  # where a file system without locks was met


def cache_folder() -> Path:
    """What can be made or fetched again: $NHZOO_CACHE, else nhzoo in the user's cache folder."""
    return user_folder("NHZOO_CACHE", "XDG_CACHE_HOME", ".cache")


def user_folder(variable: str, xdg: str, below_home: str) -> Path:
    """The folder that `variable` names, else `nhzoo` in the one that the XDG variable names.

    An XDG variable that is empty or relative counts as unset, as its specification has it. Then it
    is `below_home`; a user without a home (a container's) gets a folder among the temporary files.
    """
    if os.environ.get(variable):
        return Path(os.environ[variable])
    base = os.environ.get(xdg, "")
    if os.path.isabs(base):
        return Path(base) / "nhzoo"
    try:
        return Path.home() / below_home / "nhzoo"
    except RuntimeError:
        pass
    try:
        return private_folder() / below_home / "nhzoo"
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise InputError(f"there is no home folder ({reason}); set HOME or {variable}") from None


def private_folder() -> Path:
    """A folder among the temporary files that is this user's alone, whoever else writes there.

    The same one in a worker, which has temporary files of its own. OSError when there is none to
    be had, or it belongs to others.
    """
    for base in filter(None, (os.environ.get("TMPDIR"), "/tmp", "/var/tmp")):
        path = Path(base) / f"nhzoo-{os.getuid()}-cache"
        with contextlib.suppress(OSError):
            path.mkdir(mode=0o700, exist_ok=True)
            if is_private(path):
                return path
    raise PermissionError(errno.EPERM, "cannot be made, or belongs to others", path)


def is_private(folder: Path) -> bool:
    """Whether it is a folder, no link, that only this user can write to."""
    found = folder.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return ours and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def inside(root: Path, name: str) -> Path:
    """The file `name` below `root`; InputError when it would leave `root` (.., absolute, link)."""
    path = root / name
    try:
        resolved, base = path.resolve(), root.resolve()
    except (OSError, RuntimeError):
        raise InputError(f"{path}: its links lead nowhere") from None
    if resolved != base and base not in resolved.parents:
        raise InputError(f"{path}: points outside {root}; only files inside the folder are read")
    return path


def is_plain_name(name: str, longest: int = 128) -> bool:
    """Whether `name` can name a file of ours: letters, digits, ".", "_", "-"."""
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None
    return plain and len(name) <= longest


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(limit + 1) if size <= limit else b""
    if size > limit or len(data) > limit:
        raise InputError(f"{path}: larger than the {limit:,} bytes allowed here")
    return data


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[io.BufferedReader]:
    """Open a regular file to read; what cannot be read, or is no file, is an InputError."""
    try:
        # Not to wait for a writer, should it be a pipe.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{path}: not a regular file")
            if file.peek(len(_POINTER)).startswith(_POINTER):
                raise InputError(
                    f"{path}: is a pointer of Git LFS, and not the file: fetch that (git lfs pull)"
                )
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {refusal(error)}") from None


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone, until it ends; InputError when another holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not flock(handle, folder, wait=False):
            raise InputError(f"{folder}: another process is at work there; wait for it")
        yield
    finally:
        os.close(handle)


def flock(handle: int, path: Path, wait: bool) -> bool:
    """Lock an open file or folder for this process; False when another holds it.

    Where the file system has no locks (some of Lustre, FUSE and NFS), go on as if it were locked
    and warn once: that two commands do not write the same folder is then for the user to see to.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # which one differs: ENOSYS, EOPNOTSUPP, ENOLCK, EBADF on NFS
        if not _warned:
            _warned.append(path)
            warnings.warn(
                f"{path}: cannot be locked on this file system ({error.strerror}); going on "
                "without: let no two commands write there at once",
                Notice,
                stacklevel=3,
            )
    return True


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Hold a file that is replaced as a whole, made empty if it is not there; wait for others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            flock(handle, path, wait=True)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    yield
                    return
        finally:  # whoever held it has put another file in its place
            os.close(handle)


def parse_json(text: bytes | str, where: str) -> Any:
    """Strict JSON: no NaN or Infinity, no repeated keys, bounded nesting."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(
            text,
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=no_repeats,
        )
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "nested too deeply"
        raise InputError(f"{where}: not valid JSON ({reason})") from None


def read_json(path: Path, limit: int = MEGABYTE) -> dict[str, Any]:
    """The JSON object held by `path`."""
    value = parse_json(read_bounded(path, limit), str(path))
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds {type(value).__name__}, a JSON object is needed")
    return value


def as_object(value: object) -> dict[str, Any]:
    """A JSON object as it is; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def read_jsonl(path: Path, limit: int = 64 * MEGABYTE) -> list[dict[str, Any]]:
    """The JSON objects of `path`, one a line; a half-written line is named by its number."""
    rows = []
    for number, line in enumerate(read_bounded(path, limit).splitlines(), 1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: a JSON object is needed")
        rows.append(row)
    return rows


def validate(model: TypeAdapter[T], value: object, where: str) -> T:
    """What `parse_json` has read as the model's type: strictly, "1" is no number.

    InputError names the first field that is not as the model has it.
    """
    from pydantic import ValidationError

    try:
        return model.validate_json(dump_json(value), strict=True)
    except InputError as error:  # of a check that the model makes itself
        raise InputError(f"{where}: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ascii(".".join(map(str, first["loc"])))[1:-1][:100]
        if first["type"] == "json_invalid":  # half a surrogate pair
            reason = "not valid Unicode"
        elif first["type"] in ("missing", "unexpected_keyword_argument"):
            reason = f"field {name} is missing or not known here"
        else:
            message = first["msg"].removeprefix("Value error, ")
            reason = f"{name} is {first['input']!a:.60}: {message}"
        raise InputError(f"{where}: {reason}") from None


def decompress_xz(data: bytes, limit: int, where: str) -> bytes:
    """Unpack one xz stream of at most `limit` bytes (a bomb is refused before it unfolds)."""
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=256 * MEGABYTE)
    try:
        out = decompressor.decompress(data, max_length=limit + 1)
        if len(out) > limit:
            raise InputError(f"{where}: unpacks to more than the {limit:,} bytes allowed here")
        if not decompressor.eof:
            raise InputError(f"{where}: xz data is truncated")
    except lzma.LZMAError as error:
        raise InputError(f"{where}: not valid xz data ({error})") from None
    if decompressor.unused_data:
        raise InputError(f"{where}: has {len(decompressor.unused_data)} bytes after the xz data")
    return out


def inflate(data: bytes, limit: int, where: str) -> bytes:
    """Unpack zlib data of at most `limit` bytes."""
    decompressor = zlib.decompressobj()
    try:
        out = decompressor.decompress(data, limit + 1)
    except zlib.error as error:
        raise InputError(f"{where}: not valid zlib data ({error})") from None
    if len(out) > limit or not decompressor.eof:
        raise InputError(f"{where}: zlib data is truncated or larger than allowed")
    return out


def compress_xz(data: bytes) -> bytes:
    """The same bytes in, the same bytes out: one fixed preset and check."""
    return lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=6)


@contextlib.contextmanager
def atomic_writer(path: Path, keep: Path | None = None, sync: bool = True) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` only when it was written to the end.

    With `sync` the data is on the disk before the rename: a crash of the machine leaves the old
    file or the new one. Without, it may leave an empty one, until `sync` was called for it. With
    `keep` the old file is kept under that name, and a crash may leave it there alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name(path.name))
    # With the mode that the user's umask gives: mkstemp's would have to be changed afterwards.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if keep and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            _name(error, path)
        raise


def temporary_name(name: str) -> str:
    """A name for what becomes `name`, hidden, and told by `sweep` as this process's."""
    return f".{name}.{processes.own_name()}.{secrets.token_hex(4)}.tmp"


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError that names no file, as of a full disk in the middle of a write, names `path`."""
    try:
        yield
    except OSError as error:
        _name(error, path)
        raise


def _name(error: OSError, path: Path) -> None:
    if error.filename is None:
        error.filename = os.fspath(path)


def atomic_write(path: Path, data: bytes, keep: Path | None = None, sync: bool = True) -> None:
    """Write `data` to `path`, complete or not at all; see `atomic_writer`."""
    with atomic_writer(path, keep, sync) as file:
        file.write(data)


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """A full or failing disk, met while a resumable run writes `path`, as one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or path}: cannot be written: {refusal(error)}; what was saved before "
            "is whole, and the same command resumes"
        ) from error


def sync(paths: Iterable[Path]) -> None:
    """Bring files to the disk, all at once: one after another takes ten times as long."""
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(_sync, paths))


def _sync(path: Path) -> None:
    with naming(path), open(path, "rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def temporary_folder(becomes: Path) -> Iterator[Path]:
    """A folder beside `becomes`, to make ready there what is renamed to `becomes` when it is whole.

    It is removed at the end; one that a killed process has left, by the next that makes the same.
    """
    becomes.parent.mkdir(parents=True, exist_ok=True)
    sweep(becomes.parent, _STALE_SECONDS, becomes.name)
    folder = becomes.with_name(temporary_name(becomes.name))
    folder.mkdir()
    handle = hold(folder)
    try:
        yield folder
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: Path, older_than: float = 0.0, name: str | None = None) -> None:
    """Delete what killed processes have left in a folder: what has a `temporary_name` (of `name`).

    What a process that still lives is writing is left alone. A file of another `.*.tmp` name goes
    when it is `older_than` seconds, what was made on another machine after `FOREIGN_SECONDS`. With
    0 both go at once: for who holds the folder, so that nobody else writes there.
    """
    for path in folder.glob(".*.tmp" if name is None else f".{glob.escape(name)}.*.tmp"):
        found = re.search(rf"\.({processes.NAME})\.[0-9a-f]{{8}}\.tmp$", path.name)
        if is_left(path, found[1] if found else None, older_than):
            with contextlib.suppress(OSError):
                if path.is_dir() and not path.is_symlink():
                    if found:
                        shutil.rmtree(path)
                else:
                    path.unlink()


def is_left(path: Path, owner: str | None, older_than: float) -> bool:
    """Whether the process `owner` (see `processes.own_name`), which made `path`, has ended.

    Where that cannot be known: whether nobody has written to `path`, or in it, for `older_than`
    seconds (for `FOREIGN_SECONDS` if it is another machine's, unless that is 0) nor holds it.
    """
    if owner is not None:
        if (ended := processes.has_ended(owner)) is not None:
            return ended
        older_than = older_than and max(older_than, FOREIGN_SECONDS)
    with contextlib.suppress(OSError):
        return time.time() - _newest(path) >= older_than and not _is_held(path)
    return False


def hold(folder: Path) -> int:
    """Show other machines and containers that a folder is in use, until the handle is closed.

    They cannot look for this process. Where folders have no locks, or another machine does not see
    them (NFS), what is in use is told by `FOREIGN_SECONDS` alone.
    """
    handle = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return handle


def _is_held(path: Path) -> bool:
    """Whether a living process has called `hold`."""
    with contextlib.suppress(OSError):  # no folder, or no locks
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
    return False


def _newest(path: Path) -> float:
    """When a file, or anything in a folder, was last written to."""
    newest = path.lstat().st_mtime
    if not path.is_symlink():
        for place, folders, names in os.walk(path):
            for name in (*folders, *names):
                with contextlib.suppress(OSError):
                    newest = max(newest, os.lstat(os.path.join(place, name)).st_mtime)
    return newest


def dump_json(value: Any, indent: int | None = 2) -> bytes:
    """JSON bytes with a final newline; NaN is refused, key order is kept."""
    return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()


def content_hash(value: dict[str, Any]) -> str:
    """The sha256 of a JSON object without its key `sha256`, keys sorted."""
    plain = {key: item for key, item in value.items() if key != "sha256"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seal(value: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with its `content_hash` at its end, see `read_sealed`."""
    return value | {"sha256": content_hash(value)}


def read_sealed(
    path: Path, limit: int, schema: int, parse: Callable[[dict[str, Any]], T], what: str, maker: str
) -> T:
    """What `parse` makes of the sealed object in `path`: `what`, which the command `maker` makes.

    InputError when it is of another schema, was changed after it was written, or has other fields.
    """
    value = read_json(path, limit)
    if value.get("schema") != schema:
        raise InputError(f"{path}: not {what} of this version; make it with {maker}")
    if value.get("sha256") != content_hash(value):
        raise InputError(f"{path}: was changed after it was written; restore it, or use {maker}")
    try:
        return parse(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not {what} ({type(error).__name__}: {error})") from None


def dump_jsonl(rows: Iterable[dict[str, Any]]) -> bytes:
    """One compact JSON object a line."""
    return b"".join(dump_json(row, indent=None) for row in rows)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's pairs as a dict; ValueError when a key is repeated."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is repeated")
    return result
