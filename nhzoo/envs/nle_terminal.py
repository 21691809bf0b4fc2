"""NLE's terminal emulator, compiled again: the same screens from the same output, in less time.

NetHack draws by escape sequences, and NLE reads them back into `tty_chars`, `tty_colors` and
`tty_cursor`. Its emulator (libtmt) compares every character with some dozens of strings, which is
a quarter or more of a step. `write` here is what that library's `tmt_write` is: it reads and writes
the same structures in memory and leaves them as the original would. Whatever NetHack draws seldom
(scrolling, sequences that are not listed below, bytes beyond ASCII) it hands to the original, from
the place reached on. One thing it does not keep: which character set blank cells are in, which
nothing reads.

It is put in the original's place in the table through which NLE's library calls its own functions,
and only where the library's code is that of NLE 1.3.0, byte for byte.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Collection
from typing import Any

import numba.core.ccallback as _ccallback
from llvmlite import ir
from numba import types
from numba.extending import intrinsic as _intrinsic

from nhzoo.runtime import kernels

intrinsic: Any = _intrinsic
CFunc: Any = _ccallback.CFunc

_CODE = 0x50000, 0x22AD55, "b34a545f9c81bb6df5577bfe28d37266"
"""Where the library's executable segment is, its bytes, and the first half of its SHA-256: equal in
the wheels for Python 3.11 to 3.13 of NLE 1.3.0 (x86-64)."""
_SLOT = 0x301500
"""Where the library has the address of `tmt_write`, from its beginning."""
_WRITE_FROM_CALLBACK = 0x278750 - 0x175320
"""`tmt_write` lies so far behind `nle_vt_callback`, whose address every terminal has."""

# struct TMT, offsets in bytes. Sizes are 8 bytes, colours 4, flags 1.
_ROW, _COLUMN = 0, 8
_BOLD, _DIM, _UNDERLINE, _BLINK, _REVERSE, _INVISIBLE = 32, 33, 34, 35, 36, 37
_FOREGROUND, _BACKGROUND, _DEC = 40, 44, 48
_DIRTY, _WRAP = 72, 75
_ROWS, _COLUMNS, _LINES = 80, 88, 96
_CALLBACK, _CONTEXT = 112, 120
_PARAMETERS, _STATE = 256, 336
# A line is a flag, dirty, and from byte 4 on its cells: character, then the attributes as above.
_CELLS, _CELL = 4, 24
# NLE's context has its observation, and that the three arrays.
_OBSERVATION = 0x2050
_TTY_CHARS, _TTY_COLORS, _TTY_CURSOR = 0x78, 0x80, 0x88

_DEFAULT_COLOR, _DEFAULT_COLORS = 0xFFFFFFFF, -1  # of one, and of both
_GRAY, _BRIGHT, _REVERSED = 7, 8, 16
_MOST_PARAMETERS = 8
_LARGEST = 9999  # parameters above are the original's business

_BYTE, _INT, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)


def _load_of(width: ir.IntType) -> Any:
    def load(typing: Any, address: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            value = builder.load(builder.inttoptr(args[0], width.as_pointer()), align=1)
            return value if width is _LONG else builder.zext(value, _LONG)

        return types.int64(types.int64), codegen

    return intrinsic(load)


def _store_of(width: ir.IntType) -> Any:
    def store(typing: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            value = args[1] if width is _LONG else builder.trunc(args[1], width)
            builder.store(value, builder.inttoptr(args[0], width.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return intrinsic(store)


_load8, _load32, _load64 = _load_of(_BYTE), _load_of(_INT), _load_of(_LONG)
_store8, _store32, _store64 = _store_of(_BYTE), _store_of(_INT), _store_of(_LONG)


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def _call(typing: Any, function: Any, terminal: Any, text: Any, length: Any) -> Any:
    """Call the C function `void function(terminal, text, length)` at an address."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_LONG] * 3)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@kernels.njit(error_model="numpy")
def _clear(line: int, first: int, last: int) -> None:
    """Blank cells `first` to `last` - 1 of a line."""
    _store8(line, 1)
    for column in range(first, last):
        cell = line + _CELLS + column * _CELL
        _store32(cell, 32)
        _store64(cell + 4, 0)
        _store64(cell + 12, _DEFAULT_COLORS)
        _store32(cell + 20, 0)


@kernels.njit(error_model="numpy")
def _show(terminal: int) -> None:
    """What `nle_vt_callback` does: copy the lines that have changed into the observation."""
    context = _load64(terminal + _CONTEXT)
    seen = _load64(context + _OBSERVATION) if context else 0
    if not seen:
        return
    chars, colors = _load64(seen + _TTY_CHARS), _load64(seen + _TTY_COLORS)
    lines, columns = _load64(terminal + _LINES), _load64(terminal + _COLUMNS)
    for row in range(_load64(terminal + _ROWS)):
        line = _load64(lines + 8 * row)
        if not _load8(line):
            continue
        for column in range(columns):
            cell, at = line + _CELLS + column * _CELL, row * columns + column
            char = _load32(cell)
            if chars:
                _store8(chars + at, char)
            if colors:
                color = _load32(cell + 4 + _FOREGROUND - _BOLD)
                if color == _DEFAULT_COLOR:
                    color = 0 if char == 32 else _GRAY
                else:
                    color -= 1
                    if _load8(cell + 4):
                        color |= _BRIGHT
                if _load8(cell + 4 + _REVERSE - _BOLD):
                    color += _REVERSED
                _store8(colors + at, color)
        _store8(line, 0)
    _store8(terminal + _DIRTY, 0)


@kernels.njit(error_model="numpy")
def _color(terminal: int, count: int) -> bool:
    """Take `count` parameters as colours and attributes; False, and nothing done, at others.

    As there, whether an attribute is switched on or off is read from the first parameter.
    """
    first = _load64(terminal + _PARAMETERS)
    for k in range(count):
        value = _load64(terminal + _PARAMETERS + 8 * k)
        if value > 49 or value in (3, 6, 9, 10, 11, 38, 48) or 11 < value < 22 or value in (26, 29):
            return False
    on = first < 20
    for k in range(count):
        value = _load64(terminal + _PARAMETERS + 8 * k)
        if value == 0:
            _store64(terminal + _BOLD, 0)
            _store64(terminal + _FOREGROUND, _DEFAULT_COLORS)
            _store8(terminal + _DEC, 0)
        elif value in (1, 22):
            _store8(terminal + _BOLD, on)
        elif value in (2, 23):
            _store8(terminal + _DIM, on)
        elif value in (4, 24):
            _store8(terminal + _UNDERLINE, on)
        elif value in (5, 25):
            _store8(terminal + _BLINK, on)
        elif value in (7, 27):
            _store8(terminal + _REVERSE, on)
        elif value in (8, 28):
            _store8(terminal + _INVISIBLE, on)
        elif value == 39:
            _store32(terminal + _FOREGROUND, _DEFAULT_COLOR)
        elif value == 49:
            _store32(terminal + _BACKGROUND, _DEFAULT_COLOR)
        elif value < 40:
            _store32(terminal + _FOREGROUND, value - 29)
        else:
            _store32(terminal + _BACKGROUND, value - 39)
    return True


def write(terminal: int, text: int, length: int) -> None:
    """`tmt_write`: draw `length` bytes at the address `text` on the terminal at `terminal`."""
    rows, columns = _load64(terminal + _ROWS), _load64(terminal + _COLUMNS)
    lines = _load64(terminal + _LINES)
    first_row, first_column = _load64(terminal + _ROW), _load64(terminal + _COLUMN)
    row, column = first_row, first_column
    dirty = _load8(terminal + _DIRTY)
    at = text
    end = text + length
    ours = length > 0 and _load32(terminal + _STATE) == 0
    while ours and at < end:
        char = _load8(at)
        if 32 <= char < 127:
            if column + 1 == columns and row + 1 == rows:
                break  # it may scroll
            line = _load64(lines + 8 * row)
            cell = line + _CELLS + column * _CELL
            _store8(line, 1)
            _store32(cell, char)
            _store64(cell + 4, _load64(terminal + _BOLD))
            _store64(cell + 12, _load64(terminal + _FOREGROUND))
            _store32(cell + 20, _load32(terminal + _DEC))
            dirty = 1
            if column + 1 < columns:
                column += 1
            elif _load8(terminal + _WRAP):
                column = 0
                row += 1
            at += 1
        elif char == 27:
            if at + 2 >= end or _load8(at + 1) != 91:  # [
                break
            place, count, value = at + 2, 0, 0
            char = _load8(place)
            while 48 <= char <= 57 or char == 59:  # digits and ;
                if char == 59:
                    _store64(terminal + _PARAMETERS + 8 * count, value)
                    count += 1
                    value = 0
                else:
                    value = value * 10 + char - 48
                place += 1
                if count + 1 == _MOST_PARAMETERS or value > _LARGEST or place == end:
                    break
                char = _load8(place)
            known = False
            if place < end and (char < 48 or char > 59):
                _store64(terminal + _PARAMETERS + 8 * count, value)
                count += 1
                amount = _load64(terminal + _PARAMETERS)
                amount_or_1 = amount if amount else 1
                known = True
                if char == 109:  # m
                    known = _color(terminal, count)
                elif char == 72:  # H
                    to = _load64(terminal + _PARAMETERS + 8) if count > 1 else 0
                    row = min(amount_or_1, rows) - 1
                    column = min(to if to else 1, columns) - 1
                elif char == 65 and amount_or_1 <= row:  # A
                    row -= amount_or_1
                elif char == 66:  # B
                    row = min(row + amount_or_1, rows - 1)
                elif char == 67:  # C
                    column = min(column + amount_or_1, columns - 1)
                elif char == 68:  # D
                    column -= amount_or_1 if amount_or_1 <= column else 0
                elif char == 75 and amount == 0:  # K
                    _clear(_load64(lines + 8 * row), column, columns)
                    dirty = 1
                elif char == 74 and (amount == 0 or amount == 2):  # J
                    if amount == 0:
                        _clear(_load64(lines + 8 * row), column, columns)
                    for other in range(row + 1 if amount == 0 else 0, rows):
                        _clear(_load64(lines + 8 * other), 0, columns)
                    dirty = 1
                else:
                    known = False
            for k in range(_MOST_PARAMETERS):
                _store64(terminal + _PARAMETERS + 8 * k, 0)
            if not known:
                break
            at = place + 1
        elif char == 13:
            column = 0
            at += 1
        elif char == 10 and row + 1 < rows:
            row += 1
            at += 1
        elif char == 8:
            column -= 1 if column else 0
            at += 1
        elif char == 14 or char == 15:
            _store8(terminal + _DEC, char == 14)
            at += 1
        else:
            break
    _store64(terminal + _ROW, row)
    _store64(terminal + _COLUMN, column)
    _store8(terminal + _DIRTY, dirty)
    if not ours or at < end:
        original = _load64(terminal + _CALLBACK) + _WRITE_FROM_CALLBACK
        _call(original, terminal, at, end - at)  # which shows what has changed
        row, column = _load64(terminal + _ROW), _load64(terminal + _COLUMN)
    elif dirty:
        _show(terminal)
    if row != first_row or column != first_column:
        context = _load64(terminal + _CONTEXT)
        seen = _load64(context + _OBSERVATION) if context else 0
        cursor = _load64(seen + _TTY_CURSOR) if seen else 0
        if cursor:
            _store8(cursor, row)
            _store8(cursor + 1, column)


@functools.cache
def address() -> int:
    """The machine address of `write`, compiled: a C function of three 64-bit integers."""
    signature = types.void(*[types.int64] * 3)
    compiled = CFunc(write, (signature.args, signature.return_type), {}, {"error_model": "numpy"})
    kernels.keep(compiled, write)
    compiled.compile()
    _alive.append(compiled)
    return int(compiled.address)


_alive: list[Any] = []


def fits(base: int, segments: Collection[tuple[int, int]]) -> bool:
    """Whether the library that is loaded at `base` has the code that `write` was made for.

    `segments`: where it has executable segments, and their lengths in bytes.
    """
    start, length, digest = _CODE
    if (start, length) not in segments:  # a build of somebody's own: there may be nothing to read
        return False
    code = (ctypes.c_ubyte * length).from_address(base + start)
    return hashlib.sha256(code).hexdigest().startswith(digest)


def install(base: int) -> None:
    """Have the library that is loaded at `base` draw by `write` from now on."""
    ctypes.c_size_t.from_address(base + _SLOT).value = address()
