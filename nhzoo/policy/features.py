"""Features of a screen: small integer symbols that select rows of tables. Preprocessing v4.

Only what a terminal shows goes in (characters, colours, cursor) and the keys that were pressed, so
recorded ttyrecs, replays and live games are one input. What earlier screens showed comes in through
a recall, see `memory`. Symbol 0 means "nothing". Which table row a symbol selects depends on its
place: `Layout` says how.

Of the two status lines only the lower is read, and not its turn counter: name, attributes and turn
tell one game and one moment from all others, and a network that reads them learns games by heart
(held-out loss at 5e12 FLOPs 0.836 with them, 0.824 without; `training/LOG.md`).
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np

from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.policy import map_search, memory, peaceful
from nhzoo.policy.config import (
    CHARS,
    COLORS,
    COLS,
    COMPASS,
    COMPASS_SYMBOLS,
    CROP,
    CROP_CELLS,
    DIRECTIONS,
    FOOTPRINTS,
    GRID_COLS,
    GRID_ROWS,
    HERE,
    HERE_OF_MAP,
    HERE_SYMBOLS,
    HISTORY,
    KEY_SYMBOLS,
    LETTERS,
    PATCH_CELLS,
    PATCH_COLS,
    PATCH_ROWS,
    PATCHES,
    PREPROCESSING,
    ROWS,
    STATUS_CELLS,
    STATUS_SYMBOLS,
    WINDOW_COLS,
    WINDOW_ROWS,
    WORDS,
)
from nhzoo.policy.screen_text import bottom_line
from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Features:
    """The features of frames [...], which a policy reads; a batch of demonstrations has [T, B].

    `crop` uint8 [..., 3, 121]: characters, colours and footprints round the cursor. `map` uint8
    [..., 21, 76]: characters of the map, the cursor in the middle. `status` uint8 [..., 80]: the
    bottom line. `message` int32 [..., 48]: hashes (not yet reduced to a table's size, -1 for
    nothing) of words and neighbouring words of the top line. `cursor` uint8 [..., 2]: its row and
    column. `choices` uint8 [..., 52]: 1 for the letters that a question offers ("[a-cf or ?*]").
    `recent` uint8 [..., 8]: the keys pressed last, latest first, 0 for none. `compass`
    uint8 [..., 8, 43] and the first five of `here` uint8 [..., 9]: see
    `map_search.direction_features`; 0 while the cursor is not on the hero. The last four: see
    `memory.vitals`.
    """

    crop: Array
    map: Array
    status: Array
    message: Array
    cursor: Array
    choices: Array
    recent: Array
    compass: Array
    here: Array

    @classmethod
    def empty(cls, *shape: int) -> Features:
        """Arrays for frames of that shape, to be filled."""
        return cls(
            crop=np.empty((*shape, 3, CROP_CELLS), np.uint8),
            map=np.empty((*shape, WINDOW_ROWS, WINDOW_COLS), np.uint8),
            status=np.empty((*shape, STATUS_CELLS), np.uint8),
            message=np.empty((*shape, 2 * WORDS), np.int32),
            cursor=np.empty((*shape, 2), np.uint8),
            choices=np.empty((*shape, LETTERS), np.uint8),
            recent=np.empty((*shape, HISTORY), np.uint8),
            compass=np.empty((*shape, DIRECTIONS, COMPASS), np.uint8),
            here=np.empty((*shape, HERE), np.uint8),
        )

    def clear(self, row: int, start: int) -> None:
        """Set row `row` of [T, B] from time `start` on to nothing."""
        for name, array in vars(self).items():
            array[start:, row] = -1 if name == "message" else 0


Frames = namedtuple("Frames", "crop map status message cursor choices recent compass here")
"""The arrays of `Features`, as compiled functions take them."""


@dataclass(frozen=True)
class Layout:
    """Which table rows a feature's symbols select.

    `places` [groups, k]: the k places whose rows are summed for each group. `rows` [k, 256]: the
    table row for a symbol at the k-th place of its group, -1 for nothing. Both int32.
    """

    places: Array
    rows: Array


def _offsets(ranges: list[tuple[int, int, int]]) -> Array:
    """int32 [k, 256]: the symbols first..last of each place select rows from `row` on."""
    rows = np.full((len(ranges), 256), -1, np.int32)
    for place, (first, last, row) in enumerate(ranges):
        rows[place, first : last + 1] = np.arange(row, row + last + 1 - first)
    return rows


def _crop_layout() -> Layout:
    cells = np.arange(CROP_CELLS, dtype=np.int32)
    prints = (1, FOOTPRINTS, CHARS + COLORS)
    rows = _offsets([(1, CHARS, 0), (1, COLORS, CHARS), prints])
    return Layout(np.stack([cells, CROP_CELLS + cells, 2 * CROP_CELLS + cells], 1), rows)


def _map_layout() -> Layout:
    window = np.arange(WINDOW_ROWS * WINDOW_COLS, dtype=np.int32)
    patches = window.reshape(GRID_ROWS, PATCH_ROWS, GRID_COLS, PATCH_COLS).transpose(0, 2, 1, 3)
    rows = _offsets([(1, CHARS - 1, k * CHARS + 1) for k in range(PATCH_CELLS)])
    return Layout(np.ascontiguousarray(patches.reshape(PATCHES, PATCH_CELLS)), rows)


def _cursor_layout() -> Layout:
    rows = _offsets([(0, ROWS - 1, 0), (0, COLS - 1, ROWS)])
    rows[0, ROWS:], rows[1, COLS:] = ROWS - 1, ROWS + COLS - 1
    return Layout(np.arange(2, dtype=np.int32)[None], rows)


def _recent_layout() -> Layout:
    symbol = np.full(256, len(ACTION_KEYS), np.int32)
    symbol[ACTION_KEYS[::-1]] = np.arange(len(ACTION_KEYS))[::-1]  # a key's first action
    rows = np.arange(HISTORY, dtype=np.int32)[:, None] * KEY_SYMBOLS + symbol
    rows[:, 0] = -1
    return Layout(np.arange(HISTORY, dtype=np.int32)[None], rows)


def _compass_layout() -> Layout:
    """The same rows for all eight directions: what is learned of one is known of all."""
    first = np.cumsum([0, *COMPASS_SYMBOLS])
    rows = _offsets([(1, n, int(row)) for n, row in zip(COMPASS_SYMBOLS, first, strict=False)])
    shape = DIRECTIONS, COMPASS
    return Layout(np.arange(rows.shape[0] * shape[0], dtype=np.int32).reshape(shape), rows)


def _here_layout() -> Layout:
    n = HERE_SYMBOLS
    rows = _offsets([(1, n, k * n) for k in range(HERE)])
    return Layout(np.arange(HERE, dtype=np.int32)[None], rows)


def status_layout(table_rows: int) -> Layout:
    """The bottom line's: position x symbol, wrapped to a table of `table_rows`."""
    symbols = STATUS_SYMBOLS
    rows = _offsets([(1, symbols - 1, k * symbols + 1) for k in range(STATUS_CELLS)])
    return Layout(
        np.arange(STATUS_CELLS, dtype=np.int32)[None], np.where(rows < 0, -1, rows % table_rows)
    )


def _choices_layout() -> Layout:
    rows = _offsets([(1, 1, k) for k in range(LETTERS)])
    return Layout(np.arange(LETTERS, dtype=np.int32)[None], rows)


CROP_LAYOUT, MAP_LAYOUT, CURSOR_LAYOUT = _crop_layout(), _map_layout(), _cursor_layout()
RECENT_LAYOUT, COMPASS_LAYOUT, HERE_LAYOUT = _recent_layout(), _compass_layout(), _here_layout()
CHOICES_LAYOUT = _choices_layout()


def no_recall(n: int, version: int = PREPROCESSING) -> Array:
    """The memory of n games before their first screen: uint16 [n, 1945].

    `version` is that of the features that are to be made, 3 or 4.
    """
    recall = np.zeros((n, memory.RECALL), np.uint16)
    recall[:, memory.VERSION] = version
    return recall


def encode(
    chars: Array, colors: Array, cursor: Array, recall: Array, out: Features | None = None
) -> Features:
    """Encode n screens of n games: characters and colours [n, 24, 80], cursors [n, 2].

    `recall` uint16 [n, 1945] is brought up to these screens in place; what is pressed next is for
    `memory.push_key` to tell it. `out`: contiguous arrays of n frames to write into.
    """
    n = len(chars)
    if chars.shape != (n, ROWS, COLS) or colors.shape != chars.shape or cursor.shape != (n, 2):
        raise ValueError(
            f"screens of {chars.shape}, {colors.shape}, {cursor.shape} are not n x 24 x 80"
        )
    if recall.shape != (n, memory.RECALL) or recall.dtype != np.uint16:
        raise ValueError(f"a recall of {recall.shape}, {recall.dtype} is none of {n} games")
    features = Features.empty(n) if out is None else out
    _encode(
        np.ascontiguousarray(chars, np.uint8).reshape(n, -1),
        np.ascontiguousarray(colors).view(np.uint8).reshape(n, -1),
        np.ascontiguousarray(cursor, np.uint8),
        recall,
        np.zeros((4, memory.CELLS), np.int32),
        Frames(**vars(features)),
    )
    return features


def encode_games(
    chars: Array,
    colors: Array,
    cursor: Array,
    previous_keys: Array,
    version: int = PREPROCESSING,
) -> Features:
    """Encode T screens of B games from their start, [T, B, ...]; features are [T, B, ...] too.

    `previous_keys` uint8 [T, B]: what was pressed before each screen, 0 for nothing.
    """
    recall = no_recall(chars.shape[1], version)
    steps = []
    for t in range(len(chars)):
        for game, key in enumerate(previous_keys[t]):
            memory.push_key(recall[game], key)
        steps.append(vars(encode(chars[t], colors[t], cursor[t], recall)))
    return Features(**{name: np.stack([step[name] for step in steps]) for name in steps[0]})


def _status_symbols() -> Array:
    """uint8 [256]: what a status line's character is read as."""
    table = np.full(256, 39, np.uint8)
    table[ord(" ")] = 0
    for i in range(10):
        table[ord("0") + i] = 1 + i
    for i in range(26):
        table[ord("A") + i] = table[ord("a") + i] = 11 + i
    table[ord(":")] = 37
    table[ord("(")] = 38
    return table


_STATUS = _status_symbols()


@kernels.njit(forceinline=True)
def frame_at(frames: Frames, at: Any) -> Frames:
    """The frame `at`, an index or a tuple of some, of `Frames`."""
    return Frames(
        frames.crop[at],
        frames.map[at],
        frames.status[at],
        frames.message[at],
        frames.cursor[at],
        frames.choices[at],
        frames.recent[at],
        frames.compass[at],
        frames.here[at],
    )


@kernels.njit()
def _encode(
    chars: Array, colors: Array, cursor: Array, recall: Array, scratch: Array, out: Frames
) -> None:
    for i in range(len(chars)):
        frame = frame_at(out, i)
        row, col = int(cursor[i, 0]), int(cursor[i, 1])
        encode_status(chars[i], frame.status)
        encode_message(chars[i], frame.message)
        encode_place(chars[i], colors[i], row, col, recall[i], scratch, frame)


@kernels.njit()
def encode_place(
    chars: Array, colors: Array, row: int, col: int, recall: Array, scratch: Array, frame: Frames
) -> None:
    """All features of one screen but those of its top and bottom line; updates `recall`."""
    compass, here = frame.compass, frame.here
    for k in range(HISTORY):
        frame.recent[k] = recall[memory.KEYS + k]
    frame.cursor[0], frame.cursor[1] = row, col
    encode_choices(chars, row, frame.choices)
    level, turn, health, most, hunger = bottom_line(chars)
    memory.note(chars, turn, recall)
    on_hero = memory.remember(chars, row, col, level, turn, recall)
    encode_crop(chars, colors, row, col, frame.crop)
    if recall[memory.VERSION] >= memory.NAMED:
        memory.look(chars, on_hero, recall)
        peaceful.note_list(chars, recall)
        if on_hero:
            peaceful.follow(chars, recall)
        peaceful.note_others_kill(chars, turn, recall)
        if on_hero:
            _mark(chars, row, col, recall, frame.crop[1])
    memory.footprints(recall, row, col, CROP, frame.crop[2])
    encode_map(chars, row, col, frame.map)
    if on_hero:
        flat = compass.reshape(-1)
        map_search.direction_features(chars, colors, row, col, recall, scratch, flat, here)
        map_search.corpse_features(chars, turn, recall, scratch, flat)
    else:
        compass[:] = 0
        here[:HERE_OF_MAP] = 0
    memory.vitals(turn, health, most, hunger, recall, here[HERE_OF_MAP:])


@kernels.njit()
def _mark(chars: Array, row: int, col: int, recall: Array, colors: Array) -> None:
    """Give peaceful and tame creatures the colour of nothing in the crop, where none has it."""
    for k in range(memory.MOST_FRIENDS):
        cell = int(recall[memory.FRIENDS + 3 * k])
        if not cell:
            continue
        y, x = memory.position(cell)
        if chars[y * COLS + x] != recall[memory.FRIENDS + 3 * k + 1] & 0xFF:
            continue
        down, right = y - row + CROP // 2, x - col + CROP // 2
        if 0 <= down < CROP and 0 <= right < CROP:
            colors[down * CROP + right] = 1


@kernels.njit()
def recall_screen(chars: Array, row: int, col: int, recall: Array) -> None:
    """Bring `recall` up to one screen, uint8 [1920], as `encode_place` does."""
    level, turn, _, _, _ = bottom_line(chars)
    memory.note(chars, turn, recall)
    on_hero = memory.remember(chars, row, col, level, turn, recall)
    if recall[memory.VERSION] >= memory.NAMED:
        memory.look(chars, on_hero, recall)
        peaceful.note_list(chars, recall)
        if on_hero:
            peaceful.follow(chars, recall)
        peaceful.note_others_kill(chars, turn, recall)


@kernels.njit()
def encode_crop(chars: Array, colors: Array, row: int, col: int, crop: Array) -> None:
    """Cells round the cursor of one screen, uint8 [1920] twice, into `crop` [:2, 121]."""
    # Unsigned indices cannot mean "from the end": numba then makes plain loops of all this.
    left = col - CROP // 2
    first, last = np.uint64(max(0, -left)), np.uint64(max(0, min(CROP, COLS - left)))
    for k in range(CROP):
        y = row - CROP // 2 + k
        cell = np.uint64(k * CROP)
        if not 0 <= y < ROWS or last - first < CROP:
            for x in range(np.uint64(CROP)):
                crop[0, cell + x] = 0
                crop[1, cell + x] = 0
        if 0 <= y < ROWS:
            start = np.uint64(y * COLS + left)
            for x in range(first, last):
                char = np.uint8(chars[start + x] - 32)
                crop[0, cell + x] = char + 1 if char < CHARS else 1
                crop[1, cell + x] = (colors[start + x] & 15) + 1


@kernels.njit()
def encode_map(chars: Array, row: int, col: int, window: Array) -> None:
    """Characters of the map of one screen, uint8 [1920], into `window` [21, 76]."""
    left = col - WINDOW_COLS // 2
    first = np.uint64(max(0, -left))
    last = np.uint64(max(0, min(WINDOW_COLS, COLS - left)))
    for k in range(np.uint64(WINDOW_ROWS)):
        y = row - WINDOW_ROWS // 2 + k
        if not 1 <= y < ROWS - 2:
            for x in range(np.uint64(WINDOW_COLS)):
                window[k, x] = 0
            continue
        for x in range(first):
            window[k, x] = 0
        start = np.uint64(y * COLS + left)
        for x in range(first, last):
            char = np.uint8(chars[start + x] - 32)
            window[k, x] = char if char < CHARS else 0
        for x in range(last, np.uint64(WINDOW_COLS)):
            window[k, x] = 0


@kernels.njit()
def encode_status(chars: Array, status: Array) -> None:
    """The bottom line of one screen, uint8 [1920], without its turn counter, into [80]."""
    turn = False
    for k in range(STATUS_CELLS):
        at = (ROWS - 1) * COLS + k
        if k >= 2 and chars[at - 1] == 58 and chars[at - 2] == 84:
            turn = True  # after "T:"
        turn = turn and chars[at] != 32
        status[k] = 0 if turn else _STATUS[chars[at]]


@kernels.njit()
def encode_choices(chars: Array, row: int, choices: Array) -> None:
    """The letters that a question on the top line offers, uint8 [52]; ranges are spelt out."""
    choices[:] = 0
    if row:
        return
    x = 0
    while x < COLS and chars[x] != 91:  # "["
        x += 1
    last = -1
    for at in range(x + 1, COLS):
        char = int(chars[at])
        if char in (32, 93):  # the end, or " or ?*]"
            return
        letter = _letter(char)
        if last >= 0 and letter > last and chars[at - 1] == 45:  # "-"
            choices[last + 1 : letter] = 1
        if letter >= 0:
            choices[letter] = 1
        last = letter if char != 45 else last


@kernels.njit()
def _letter(char: int) -> int:
    if 97 <= char <= 122:
        return char - 97
    return char - 65 + 26 if 65 <= char <= 90 else -1


@kernels.njit()
def encode_message(chars: Array, message: Array) -> None:
    """Hashes of the words of the top line of one screen, uint8 [1920], and of pairs: [48]."""
    message[:] = -1
    words = length = 0
    last = np.uint32(0)
    word = np.uint32(2166136261)
    for x in range(COLS + 1):
        char = chars[x] if x < COLS else np.uint8(32)
        if char != 32:
            word = np.uint32((word ^ char) * np.uint32(16777619))
            length += 1
        elif length:
            if words < WORDS:
                message[words] = word >> 1
                pair = np.uint32((last * np.uint32(31)) ^ word)
                message[WORDS + words] = np.uint32(pair * np.uint32(2654435761)) >> 1
                words += 1
            last = word
            word = np.uint32(2166136261)
            length = 0
