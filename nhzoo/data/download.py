"""Downloads of large files: resumed, bounded, checked; and safe unpacking of archives.

A download goes into `<file>.part`, beside `<file>.part.json` with what identifies the version on
the server, and becomes `<file>` when it is whole. Killed at any time, it resumes where it was.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import lzma
import os
import shutil
import stat
import struct
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from nhzoo.errors import InputError, refusal
from nhzoo.hub.errors import obstacle
from nhzoo.runtime import files
from nhzoo.runtime.console import ProgressCallback, no_progress

if TYPE_CHECKING:  # takes a while to import
    import httpx2


_BLOCK = 1 << 18
_MOST_REDIRECTS = 20
_AGAIN = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that may pass

# What zipfile raises on archives that are none, or are damaged.
_BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    NotImplementedError,
)


class _Lost(Exception):
    """The connection broke, or the server is busy: worth another try."""


def download(
    url: str,
    path: Path,
    size: int | None = None,
    sha256: str | None = None,
    limit: int = 1 << 36,
    progress: ProgressCallback = no_progress,
    timeout: float = 60.0,
    tries: int = 5,
    pause: float = 1.0,
) -> Path:
    """Fetch `url` (http or https) to `path`, going on with what an earlier call left.

    `size` in bytes and `sha256` (hexadecimal) are checked where given; no more than `size`, or
    `limit` bytes where the size is not known, are read. A half file is continued only if the server
    says that its file is still the same one, and begun anew otherwise. `tries` is how often in a
    row a connection may be lost without a byte gained, `pause` the seconds before the second try,
    doubled each time; `timeout` is in seconds without a byte. InputError, one line, for everything
    that can go wrong.
    """
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError as error:
        raise InputError(f"{url}: {error}") from None
    if scheme not in ("http", "https"):
        raise InputError(f"{url}: only http and https addresses are fetched")
    if path.is_file() and size in (None, path.stat().st_size) and _hash_is(path, sha256):
        return path
    part = path.with_name(path.name + ".part")
    note = part.with_name(part.name + ".json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "ab") as file:
            if not files.flock(file.fileno(), part, wait=False):
                raise InputError(f"{part}: another process is downloading it; wait for it")
            transfer = _Transfer(url, file, note, size, limit, progress, timeout)
            _insist(transfer, tries, pause)
            file.flush()
            os.fsync(file.fileno())
            if not _hash_is(part, sha256):
                file.truncate(0)
                raise InputError(
                    f"{url}: its SHA-256 is not {sha256}, what came was deleted; run again, or "
                    "check the address"
                )
            os.replace(part, path)
            note.unlink(missing_ok=True)
    except OSError as error:
        raise _disk_error(error, part) from None
    finally:
        with contextlib.suppress(OSError):
            if part.stat().st_size == 0:
                part.unlink()
                note.unlink()
    return path


@dataclass(frozen=True)
class _Transfer:
    url: str
    file: IO[bytes]  # opened to append
    note: Path  # which version of which file the half file is of
    size: int | None
    limit: int
    progress: ProgressCallback
    timeout: float

    def held(self) -> int:
        return self.file.seek(0, os.SEEK_END)

    def drop(self, error: Exception) -> Exception:
        """Delete what is held, for it is of no use; gives back the error to raise."""
        self.file.truncate(0)
        return error


def _insist(transfer: _Transfer, tries: int, pause: float) -> None:
    failures, most = 0, transfer.held()
    while True:
        try:
            return _attempt(transfer)
        except _Lost as lost:
            held = transfer.held()
            failures, most = (1 if held > most else failures + 1), max(held, most)
            if failures >= tries:
                raise InputError(f"{transfer.url}: {lost}; run again to resume") from None
            time.sleep(pause * 2 ** (failures - 1))


def _attempt(transfer: _Transfer) -> None:
    """Fetch what is missing; _Lost when that may be tried again."""
    import httpx2

    held, mark = transfer.held(), _noted_mark(transfer)
    headers = {"User-Agent": "nhzoo", "Accept-Encoding": "identity"}
    if held and mark:
        headers |= {"Range": f"bytes={held}-", "If-Range": mark}
    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(httpx2.Client(timeout=transfer.timeout))
            request = client.build_request("GET", transfer.url, headers=headers)
            for _ in range(_MOST_REDIRECTS):  # by hand: the client reads and unpacks their bodies
                response = client.send(request, stream=True)
                stack.callback(response.close)
                if response.next_request is None:
                    break
                request = response.next_request
            else:
                raise InputError(f"{transfer.url}: leads from one address to another without end")
        except httpx2.UnsupportedProtocol as error:
            raise InputError(f"{transfer.url}: leads elsewhere ({_words(error)})") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ImportError, ValueError) as error:
            if cause := obstacle(error):
                raise InputError(f"{transfer.url}: {cause}") from None
            raise _Lost(f"no connection ({_words(error)})") from None
        if _goes_on(transfer, response, held, mark):
            try:
                _receive(transfer, response)
            except httpx2.HTTPError as error:
                reason = f"the connection was lost after {transfer.held():,} bytes"
                raise _Lost(f"{reason} ({_words(error)})") from None


def _goes_on(transfer: _Transfer, response: httpx2.Response, held: int, mark: str | None) -> bool:
    """Make the half file fit the answer; False when it is whole already."""
    status, found = response.status_code, response.headers.get("Content-Range", "")
    if status == 416 and held:  # nothing after what is held, or that is longer than all
        if found == f"bytes */{held}" and transfer.size in (None, held):
            return False
        raise transfer.drop(_Lost("the half file did not fit the server's"))
    if status not in (200, 206):
        reason = f"the server says {status} {response.reason_phrase}"
        if status in _AGAIN:
            raise _Lost(reason)
        raise InputError(
            f"{transfer.url}: {reason}; check the address, or fetch the file by other means"
        )
    if status == 200:
        transfer.file.truncate(0)
        noted = {"url": transfer.url, "mark": _mark_of(response)}
        files.atomic_write(transfer.note, files.dump_json(noted))
    elif not found.startswith(f"bytes {held}-"):
        raise transfer.drop(_Lost("the server sent another part than the one asked for"))
    elif _mark_of(response) not in (None, mark):  # a server that knows no If-Range
        raise transfer.drop(_Lost("the server's file has changed"))
    return True


def _receive(transfer: _Transfer, response: httpx2.Response) -> None:
    url, size, done = transfer.url, transfer.size, transfer.held()
    length = response.headers.get("Content-Length", "")
    announced = done + int(length) if length.isdecimal() else None
    if announced is not None and (announced > transfer.limit or size not in (None, announced)):
        wanted = f"{size:,}" if size is not None else f"at most {transfer.limit:,}"
        reason = f"the server's file has {announced:,} bytes, {wanted} are expected"
        raise transfer.drop(InputError(f"{url}: {reason}; check the address"))
    total = announced or size or 0
    _room(transfer.file, max(0, total - done))
    transfer.progress(done, total)
    for block in response.iter_raw():
        done += len(block)
        most = transfer.limit if size is None else size
        if done > most:
            reason = f"more than the {most:,} bytes expected came; they were deleted"
            raise transfer.drop(InputError(f"{url}: {reason}, check the address"))
        transfer.file.write(block)
        transfer.progress(done, total)
    transfer.file.flush()
    if size is not None and done != size:
        reason = f"{done:,} bytes came, {size:,} are expected; what came was deleted"
        raise transfer.drop(InputError(f"{url}: {reason}, check the address"))


def _noted_mark(transfer: _Transfer) -> str | None:
    """What If-Range takes; None when the half file cannot be continued."""
    try:
        noted = files.read_json(transfer.note)
    except InputError:
        return None
    mark = noted.get("mark")
    return mark if noted.get("url") == transfer.url and isinstance(mark, str) else None


def _mark_of(response: httpx2.Response) -> str | None:
    etag = response.headers.get("ETag", "")
    # A weak ETag does not promise the same bytes, and If-Range refuses it.
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _room(file: IO[bytes], needed: int) -> None:
    free = shutil.disk_usage(Path(file.name).parent).free
    if needed > free:
        raise InputError(
            f"{file.name}: {needed:,} more bytes are needed and {free:,} are free on the disk; "
            "free some space and run again to resume"
        )


def _hash_is(path: Path, sha256: str | None) -> bool:
    if sha256 is None:
        return True
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256.lower()


def _disk_error(error: OSError, path: Path) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{path}: the disk is full; free some space and run again to resume")
    return InputError(f"{error.filename or path}: cannot be written: {refusal(error)}")


def _words(error: object) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.splitlines() or [type(error).__name__])[0]


def unzip(
    archive: Path,
    folder: Path,
    max_files: int = 2_000_000,
    max_bytes: int = 1 << 36,
    progress: ProgressCallback = no_progress,
) -> list[Path]:
    """Unpack a zip archive into `folder`; returns the files, in the archive's order.

    Nothing is written unless every entry is a plain file or folder that stays inside `folder`, and
    all of them together are at most `max_files` and `max_bytes` unpacked. A file that is there
    already with the entry's size and CRC is kept: run again to resume.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            # Not by `is_dir`, which fails at an empty name: `_check` refuses that one.
            entries = [e for e in opened.infolist() if not e.filename.endswith("/")]
            total = _check(entries, archive, max_files, max_bytes)
            done = 0
            written = []
            for folder_of in {entry.filename.rpartition("/")[0] for entry in entries}:
                files.sweep(files.inside(folder, folder_of))
            for entry in entries:
                path = files.inside(folder, entry.filename)
                if not _is_unpacked(entry, path):
                    with opened.open(entry) as source, files.atomic_writer(path) as target:
                        shutil.copyfileobj(source, target, _BLOCK)
                written.append(path)
                done += entry.file_size
                progress(done, total)
            return written
    except _BAD_ZIP as error:
        raise InputError(
            f"{archive}: not a sound zip archive ({_words(error)}); delete it and fetch it again"
        ) from None
    except FileNotFoundError:
        raise InputError(f"{archive}: no such file") from None
    except OSError as error:
        raise _disk_error(error, folder) from None


def _check(entries: list[zipfile.ZipInfo], archive: Path, max_files: int, max_bytes: int) -> int:
    """Refuse an archive before anything of it is written; the bytes in all."""
    total = sum(entry.file_size for entry in entries)
    if len(entries) > max_files or total > max_bytes:
        raise InputError(
            f"{archive}: holds {len(entries):,} files of {total:,} bytes; at most {max_files:,} "
            f"files of {max_bytes:,} bytes are unpacked"
        )
    seen: set[str] = set()
    for entry in entries:
        name, mode = entry.filename, entry.external_attr >> 16
        parts = name.split("/")
        if any(part in ("", ".", "..") for part in parts) or not name.isprintable() or "\\" in name:
            raise InputError(f"{archive}: {name!r} is not a name inside a folder; do not trust it")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise InputError(f"{archive}: {name!r} is a link or device; do not trust it")
        if entry.flag_bits & 1:
            raise InputError(f"{archive}: {name!r} is encrypted; unpack it by other means")
        if name in seen:
            raise InputError(f"{archive}: {name!r} is in it twice; do not trust it")
        seen.add(name)
    for name in seen:
        parents = (name[:i] for i, char in enumerate(name) if char == "/")
        if clash := next((parent for parent in parents if parent in seen), None):
            raise InputError(f"{archive}: {clash!r} is a file and a folder; do not trust it")
    return total


def _is_unpacked(entry: zipfile.ZipInfo, path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != entry.file_size:
        return False
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc == entry.CRC
