"""NLE's C library in memory: fix its clock, read its flags, share its code, draw faster.

NLE loads a copy of libnethack.so for every game, and loads it anew at every reset.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import mmap
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nle.nethack.nethack import DLPATH

from nhzoo.envs.code_sharing import one_place_free

_RTLD_NOLOAD = 0x4
_RTLD_DI_LINKMAP = 2
_MAP_FIXED = 0x10
_ELF64 = b"\x7fELF\x02\x01"  # of 64 bits, little-endian
_PT_LOAD = 1
_PF_X, _PF_W, _PF_R = 1, 2, 4
_FLAGS_AT_START = {0: 1, 1: 0, 2: 0, 3: 1, 5: 0, 6: 0, 7: 1, 8: 1}
"""NetHack's `flags` begins: acoustics, autodig, autoquiver, autoopen, beginner, biff, bones,
confirm, dark_room, debug, end_own, explore; a byte each. These are as NLE's options have them."""
_MODES_AT = 8  # dark_room, debug, end_own, explore
WIZARD = int.from_bytes(bytes((0, 255, 0, 0)), sys.byteorder)
"""The bits of `Flags.modes` that say that the game is in wizard mode (`flags.debug`)."""
EXPLORE = int.from_bytes(bytes((0, 0, 0, 255)), sys.byteorder)
"""Those that say that it is in explore mode (`flags.explore`)."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.dlopen.restype = _libc.dlsym.restype = _libc.mmap.restype = ctypes.c_void_p
_libc.dlopen.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.dlsym.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
_libc.dlclose.argtypes = [ctypes.c_void_p]


@dataclass(frozen=True)
class Flags:
    """NetHack's own flags, read from its memory; invalid after a reset.

    `modes` is uint32 [1], see WIZARD and EXPLORE. `program` is int32 [5], the first of NetHack's
    program_state: gameover, stopprint, done_hup, preserve_locks, something_worth_saving.
    """

    modes: memoryview[int]
    program: memoryview[int]

    @property
    def saved(self) -> bool:
        """Whether NetHack left the game by saving it, not by ending it."""
        return not self.program[0] and not self.program[4]


class Library:
    """The library image of one game, loaded from `path`. A reset undoes all changes to it.

    With `share`, games run the same code; with `faster`, they draw by `nle_terminal` where it pays.
    """

    def __init__(self, path: str, share: bool = False, faster: bool = False) -> None:
        self._path = path
        self._code = _shared_code(path) if share else None
        self._at = 0
        self._fits = None if faster else False  # our terminal; None: not asked yet

    def loading(self) -> contextlib.AbstractContextManager[None]:
        """For a reset, which loads the library: with `share`, where predictions are shared too."""
        return (
            one_place_free(self._code.length, self._at) if self._code else contextlib.nullcontext()
        )

    def prepare(self, ubirthday: int, played: int = 0) -> Flags:
        """Pin the clock, find the flags; with `share`, run the code that all such games run.

        The clock is the C variable `ubirthday`, which every reset sets to the time of day. It
        decides shopkeepers' names, prices of glass, kinds of ants (NetHack-LE/nle issue 129).

        Code is the same bytes in every copy, but caches hold it once for each: with 16 games in
        turns most of a step is waiting for code. RuntimeError when the library is not NLE 1.3's.
        `played` is how many steps this process has played, see `nle_terminal`.
        """
        handle = _libc.dlopen(self._path.encode(), os.RTLD_LAZY | _RTLD_NOLOAD)
        try:
            ctypes.c_long.from_address(_symbol(handle, "ubirthday")).value = ubirthday
            found = _flags(handle)
            if self._code:
                self._at = _base(handle)
                self._code.remap(self._at)
            self._draw_faster(handle, played)
        finally:  # or NLE's next reset would find the library still loaded, and exit
            if handle:
                _libc.dlclose(handle)
        return found

    def _draw_faster(self, handle: int, played: int) -> None:
        """Replace NLE's terminal emulator where that pays: see `nle_terminal`."""
        worth = "numba" in sys.modules or played >= _WORTH_AN_IMPORT
        if not worth or self._fits is False:
            return
        terminal = importlib.import_module("nhzoo.envs.nle_terminal")  # with numba
        base = _base(handle)
        if self._fits is None:
            with open(self._path, "rb") as file:
                parts = _loaded(file.read(mmap.PAGESIZE))
            self._fits = terminal.fits(base, [(p[3], p[5]) for p in parts if p[1] & _PF_X])
        if self._fits:
            terminal.install(base)


_WORTH_AN_IMPORT = 100_000
"""Steps after which a process imports numba to draw faster: it takes as long as they would save."""


def _flags(handle: int) -> Flags:
    flags = _symbol(handle, "flags")
    begins = ctypes.string_at(flags, 9)
    if any(begins[at] != value for at, value in _FLAGS_AT_START.items()):
        raise RuntimeError("this NLE build keeps its flags in another order: install nle 1.3")
    return Flags(_live(flags + _MODES_AT, "I", 1), _live(_symbol(handle, "program_state"), "i", 5))


def _symbol(handle: int | None, name: str) -> int:
    """The address of a variable of the loaded library."""
    address = _libc.dlsym(handle, name.encode()) if handle else None
    if not address:
        raise RuntimeError(f"this NLE build does not export {name}: install nle 1.3")
    return int(address)


def _live(address: int, kind: Literal["I", "i"], count: int) -> memoryview[int]:
    """Integers of four bytes in memory; a memoryview is read several times as fast as ctypes."""
    raw = memoryview((ctypes.c_ubyte * (4 * count)).from_address(address)).cast("B")
    return raw.cast(kind)


@dataclass(frozen=True)
class _Segment:
    address: int
    length: int
    protection: int
    offset: int


@dataclass(frozen=True)
class _Code:
    """An open file of the library, and the segments that nobody writes to."""

    file: int
    segments: tuple[_Segment, ...]
    length: int  # of the whole library in memory

    def remap(self, base: int) -> None:
        """Map them in place of those of the copy that is loaded at `base`."""
        flags = mmap.MAP_PRIVATE | _MAP_FIXED
        for part in self.segments:
            at = ctypes.c_void_p(base + part.address)
            length, offset = ctypes.c_size_t(part.length), ctypes.c_long(part.offset)
            if _libc.mmap(at, length, part.protection, flags, self.file, offset) != at.value:
                raise OSError(ctypes.get_errno(), "NLE's code cannot be mapped again")


def _base(handle: int) -> int:
    """Where a loaded library begins."""
    link_map = ctypes.c_void_p()
    where = ctypes.byref(link_map)
    if _libc.dlinfo(ctypes.c_void_p(handle), _RTLD_DI_LINKMAP, where) or not link_map.value:
        raise RuntimeError("the C library does not say where NLE is loaded")
    return ctypes.c_size_t.from_address(link_map.value).value  # its first field


def _shared_code(path: str) -> _Code | None:
    """The code to share, if the copy at `path` is of the very library that NLE has now."""
    code = _code()
    with open(path, "rb") as file:
        copy = file.read()
    same = code is not None and os.pread(code.file, len(copy) + 1, 0) == copy
    return code if same else None


@functools.cache
def _code() -> _Code | None:
    """NLE's library as installed; None where its pages cannot be mapped like this."""
    file = os.open(DLPATH, os.O_RDONLY)
    try:
        header = os.pread(file, mmap.PAGESIZE, 0)
        segments = _segments(header)
        for part in segments:  # a trial: a file system may forbid it
            mmap.mmap(file, part.length, mmap.MAP_PRIVATE, part.protection, offset=part.offset)
    except (OSError, ValueError, struct.error):
        os.close(file)
        return None
    return _Code(file, segments, _length(header))


def _loaded(header: bytes) -> Iterator[tuple[int, ...]]:
    """The program headers of what is loaded of a 64-bit ELF file: its fields, in their order."""
    if not header.startswith(_ELF64):
        return
    (table,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    for entry in range(count):
        fields = struct.unpack_from("<II6Q", header, table + entry * size)
        if fields[0] == _PT_LOAD:
            yield fields


def _length(header: bytes) -> int:
    """How much address space the file takes, in whole pages."""
    end = max((fields[3] + fields[6] for fields in _loaded(header)), default=0)
    return int(-(-end // mmap.PAGESIZE) * mmap.PAGESIZE)


def _segments(header: bytes) -> tuple[_Segment, ...]:
    """The segments of a 64-bit ELF file that are loaded and never written to."""
    found = []
    for _, flags, offset, address, _, length, _, _ in _loaded(header):
        if flags & _PF_W:
            continue
        before = address % mmap.PAGESIZE
        length = -(-(length + before) // mmap.PAGESIZE) * mmap.PAGESIZE
        protection = (mmap.PROT_READ if flags & _PF_R else 0) | (
            mmap.PROT_EXEC if flags & _PF_X else 0
        )
        found.append(_Segment(address - before, length, protection, offset - before))
    return tuple(found)
