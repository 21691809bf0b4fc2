"""Screens as text with ANSI colours: whole, or what changed since the last one."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]

ROWS, COLUMNS = 24, 80
RESET: Final = "\x1b[0m"
_SPACE: Final = 32
_REVERSE: Final = 16  # bit of a colour
_MERGE: Final = 4  # unchanged cells that cost less to draw again than to jump over


def render(chars: Array, colors: Array, cursor: Array) -> str:
    """A screen [24, 80] as text with ANSI colours, runs of one colour merged, cursor inverted."""
    lines = []
    for row in range(len(chars)):
        parts, last = [], -1
        for col in range(len(chars[row])):
            color = int(colors[row, col]) & 15
            here = (row, col) == (int(cursor[0]), int(cursor[1]))
            if color != last or here:
                parts.append(f"\x1b[0;{'1;' if color & 8 else ''}3{color & 7}m")
                last = color
            char = chr(chars[row, col]) if 32 <= chars[row, col] < 127 else " "
            parts.append(f"\x1b[7m{char}" if here else char)
            if here:
                last = -1
        lines.append("".join(parts) + RESET)
    return "\n".join(lines)


class Painter:
    """Turns screens into the escape sequences that lead from the last one to the next."""

    def __init__(self) -> None:
        self._chars = np.full((ROWS, COLUMNS), _SPACE, np.uint8)
        self._colors = np.zeros((ROWS, COLUMNS), np.uint8)
        self._pen = -1
        self._cursor = (-1, -1)

    def draw(self, chars: Array, colors: Array, cursor: Array) -> str:
        """The changes to show a screen; "" when there are none."""
        plain = np.where((chars >= _SPACE) & (chars < 127), chars, _SPACE).astype(np.uint8)
        shade = (colors & 31).astype(np.uint8)
        # What colour a space has cannot be seen, unless it is reversed.
        shade = np.where(plain == _SPACE, shade & _REVERSE, shade)
        changed = np.flatnonzero((plain != self._chars) | (shade != self._colors))
        parts: list[str] = []
        position = -1  # the cell after the last drawn, as row * 80 + column
        cells, inks = plain.ravel(), shade.ravel()
        for cell in changed.tolist():
            same_row = position > 0 and cell // COLUMNS == (position - 1) // COLUMNS
            if not same_row or cell - position > _MERGE:
                parts.append(f"\x1b[{cell // COLUMNS + 1};{cell % COLUMNS + 1}H")
                position = cell
            for at in range(position, cell + 1):
                self._ink(parts, int(cells[at]), int(inks[at]))
            position = cell + 1
        self._chars, self._colors = plain, shade
        where = (int(cursor[0]), int(cursor[1]))
        if parts or where != self._cursor:
            parts.append(f"\x1b[{where[0] + 1};{where[1] + 1}H")
            self._cursor = where
        return "".join(parts)

    def _ink(self, parts: list[str], char: int, color: int) -> None:
        unseen = char == _SPACE and not (color ^ max(self._pen, 0)) & _REVERSE
        if color != self._pen and not unseen:
            parts.append(_sgr(color))
            self._pen = color
        parts.append(chr(char))


def _sgr(color: int) -> str:
    """The escape that selects a colour (0 to 15, 16 more is reversed).

    Black is drawn as dark grey: NetHack's black things are to be seen on a black terminal.
    """
    shade = color & 15
    code = 90 if shade == 0 else 30 + shade if shade < 8 else 82 + shade
    return f"\x1b[0;{'7;' if color & _REVERSE else ''}{code}m"
