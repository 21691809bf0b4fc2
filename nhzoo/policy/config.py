"""The size of a policy as one number: every width, table size and FLOP as plain integers.

Nothing here needs torch, numba or NLE. `PolicyConfig.for_params(n)` gives every width from the
number of parameters. The whole network scales, encoders too: a law in which only the core is
counted measures the encoders (Tuyls et al. leave theirs out of N).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from nhzoo.errors import InputError

ARCHITECTURE = "nhzoo-lstm-3"
ACTIONS = 121
MAX_MESSAGE_ROWS = 65_536
LAYERS = 3
"""Of the core."""

FLOP_VERSION = 2
"""Of the rules by which FLOPs are counted, see `PolicyConfig.train_flops`."""

UPDATE_FLOPS = 16
"""Arithmetic of one update for each parameter: clipping (3) and AdamW (13)."""

ROWS, COLS = 24, 80
CHARS = 96  # printable ASCII, from the space on; anything else reads as a space
COLORS = 16

HISTORY = 8  # keys
DIRECTIONS = 8
TARGETS = 11  # kinds of things that are looked for, see `map_search`
DISTANCES = 9
FOOTPRINTS = 7
RAY = 4  # cells in a direction whose characters are read
RING = 8  # cells round the next cell

COMPASS_SYMBOLS = (
    *[DISTANCES] * TARGETS,  # to each kind of target
    *(CHARS, COLORS, FOOTPRINTS),  # of the next cell
    *[CHARS] * RING,
    *[FOOTPRINTS] * RING,
    *[CHARS] * (RAY - 1),
    *[DIRECTIONS] * 4,  # how it turns from the last three moves and from the last key
    *(2, DIRECTIONS),  # whether it is diagonal; which it is
    DISTANCES,  # to a fresh corpse, see `map_search.corpse_features`
)
"""How many symbols there are of each thing that is read of a direction."""
COMPASS = len(COMPASS_SYMBOLS)
COMPASS_ROWS = sum(COMPASS_SYMBOLS)

HERE_OF_MAP = 5
"""Symbols of the hero's own cell: rock, walls and open cells beside it, footprint, frontier."""
HERE_OF_MEMORY = 4
"""Symbols: age of what was killed on the hero's cell; hunger; time since a prayer; health."""

PREPROCESSING = 4
"""Version of what is read of a screen; a checkpoint names the one it was trained with.

From 4 on a corpse has the age of the kill of its name, and peaceful creatures are told apart.
"""
READABLE = (3, 4)
"""Versions with which checkpoints still play."""

CROP = 11  # cells on a side, the cursor in the middle
PATCH_ROWS, PATCH_COLS = 3, 4  # cells of one patch of the map
GRID_ROWS, GRID_COLS = 7, 19  # patches, the cursor in the middle one
STATUS_CELLS = COLS
STATUS_SYMBOLS = 40  # digits, letters without case, space, three kinds of punctuation
WORDS = 24  # words of the message line that are read, and as many pairs of neighbours

CROP_CELLS = CROP * CROP
PATCHES = GRID_ROWS * GRID_COLS
PATCH_CELLS = PATCH_ROWS * PATCH_COLS
WINDOW_ROWS, WINDOW_COLS = GRID_ROWS * PATCH_ROWS, GRID_COLS * PATCH_COLS
CURSOR_ROWS = ROWS + COLS
CROP_ROWS = CHARS + COLORS + FOOTPRINTS
KEY_SYMBOLS = 1 + ACTIONS  # a key that no action presses is the last
RECENT_ROWS = HISTORY * KEY_SYMBOLS
LETTERS = 52  # a to z, A to Z: what questions offer
HERE = HERE_OF_MAP + HERE_OF_MEMORY
HERE_SYMBOLS = 9
HERE_ROWS = HERE * HERE_SYMBOLS

TABLES = ("crop", "map", "message", "status", "cursor", "choices", "recent", "compass", "here")

GATES = ("forget", "input", "candidate")
_ENCODER = ("crop", "map", "join")


@dataclass(frozen=True)
class PolicyConfig:
    """Widths of every layer. `hidden` is the core's; the rest follow from it in `for_params`.

    `preprocessing` is no width: the version of the features that are read. `to_dict` leaves it out.
    """

    hidden: int
    cell: int
    crop: int
    patch: int
    map: int
    message: int
    message_rows: int
    status: int
    status_rows: int
    cursor: int
    choices: int
    recent: int
    compass: int
    here: int
    preprocessing: int = PREPROCESSING

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            limit = 1 << 20 if field.name.endswith("_rows") else 1 << 14
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
                raise InputError(
                    f"policy config: {field.name} must be an integer, 1 to {limit}, is {value!r}"
                )

    @classmethod
    def of_width(cls, hidden: int, params: int) -> PolicyConfig:
        """All widths from the core's; the large tables get at most an eighth of `params` each."""
        root = (hidden / 192) ** 0.65
        message, status = max(1, round(32 * root)), max(1, round(16 * root))
        share = params // 8
        return cls(
            hidden=hidden,
            cell=max(1, round(8 * root)),
            crop=max(4, round(hidden / 2)),
            patch=max(1, round(12 * root)),
            map=max(4, round(hidden / 2)),
            message=message,
            message_rows=max(1, min(MAX_MESSAGE_ROWS, share // message)),
            status=status,
            status_rows=max(1, min(STATUS_CELLS * STATUS_SYMBOLS, share // status)),
            cursor=max(1, round(16 * root)),
            choices=max(1, round(16 * root)),
            recent=max(1, round(24 * root)),
            compass=max(1, round(46 * root)),
            here=max(1, round(16 * root)),
        )

    @classmethod
    def for_params(cls, params: int) -> PolicyConfig:
        """The network of `params` parameters in all (within 2 %), from 10,000 to 500,000,000.

        The number of rows of the message table takes up the rounding of the widths.
        """
        if not 10_000 <= params <= 500_000_000:
            raise InputError(f"{params:,} parameters: sizes from 10,000 to 500,000,000 are built")
        low, high = 1, 16_384
        while low < high:
            middle = (low + high + 1) // 2
            if cls.of_width(middle, params).params <= params:
                low = middle
            else:
                high = middle - 1
        config = cls.of_width(low, params)
        spare = (params - config.params) // config.message
        return replace(config, message_rows=max(1, config.message_rows + spare))

    @property
    def joined(self) -> int:
        """Width of what the encoders give together."""
        return (
            self.crop
            + self.map
            + self.message
            + self.status
            + self.cursor
            + self.choices
            + self.recent
            + self.here
            + DIRECTIONS * self.compass
        )

    @property
    def params(self) -> int:
        """The exact number of parameters, tables, biases and head included."""
        tables = sum(rows * width for rows, width, _ in self._tables())
        biases = self.patch + 2 * self.compass
        linears = sum((inputs + 1) * outputs for inputs, outputs, _ in self._linears())
        shared = self.compass**2
        return tables + linears + shared + biases

    @property
    def forward_flops(self) -> int:
        """FLOPs of one frame forward: a multiply-add is 2, a table look-up its additions.

        Look-ups count in full, whether or not there is something at every place. Activations, gates
        and the softmax are not counted, as usual.
        """
        return self._products() + self._lookups()

    @property
    def train_flops(self) -> int:
        """FLOPs of one frame of training: forward, and backward to weights and inputs.

        A matrix product's backward costs twice its forward; a table's costs its additions once.
        An update costs `update_flops` on top, however many frames it is of.
        """
        return 3 * self._products() + 2 * self._lookups()

    @property
    def encoder_params(self) -> int:
        """Parameters of what gives the core its input: tables, crop, map, compass, join."""
        tables = sum(rows * width for rows, width, _ in self._tables())
        linears = sum((i + 1) * o for i, o, name in self._linears() if name in _ENCODER)
        return tables + linears + self.compass**2 + self.patch + 2 * self.compass

    @property
    def core_train_flops(self) -> int:
        """`train_flops` where the encoder is not trained.

        Then nothing goes back into it: not from the gates of the first layer, nor from the product
        of the compass with its query.
        """
        layers = self._linears()
        products = sum(2 * i * o for i, o, name in layers if name not in _ENCODER)
        first = sum(2 * i * o for i, o, name in layers if name in [f"{g}0" for g in GATES])
        chosen = 2 * DIRECTIONS * self.compass
        return self.forward_flops + 2 * products - first + chosen

    @property
    def update_flops(self) -> int:
        """FLOPs of one update of all parameters: clipping and the optimizer."""
        return UPDATE_FLOPS * self.params

    def _products(self) -> int:
        linears = sum(2 * inputs * outputs for inputs, outputs, _ in self._linears())
        shared = 2 * DIRECTIONS * self.compass**2
        chosen = 2 * DIRECTIONS * self.compass  # query times compass
        return linears + shared + chosen

    def _lookups(self) -> int:
        return sum(width * places for _, width, places in self._tables())

    def _tables(self) -> tuple[tuple[int, int, int], ...]:
        """Rows, width, and look-ups a frame of each table, in the order of `TABLES`."""
        return (
            (CROP_ROWS, self.cell, 3 * CROP_CELLS),
            (PATCH_CELLS * CHARS, self.patch, PATCHES * PATCH_CELLS),
            (self.message_rows, self.message, 2 * WORDS),
            (self.status_rows, self.status, STATUS_CELLS),
            (CURSOR_ROWS, self.cursor, 2),
            (LETTERS, self.choices, LETTERS),
            (RECENT_ROWS, self.recent, HISTORY),
            (COMPASS_ROWS, self.compass, DIRECTIONS * COMPASS),
            (HERE_ROWS, self.here, HERE),
        )

    def _linears(self) -> tuple[tuple[int, int, str], ...]:
        """Inputs and outputs of each linear layer that reads a frame once, and its name."""
        core = [
            (self.hidden, self.hidden, f"{gate}{layer}")
            for layer in range(LAYERS)
            for gate in GATES
        ]
        return (
            (CROP_CELLS * self.cell, self.crop, "crop"),
            (PATCHES * self.patch, self.map, "map"),
            (self.joined, self.hidden, "join"),
            *core,
            (self.hidden, ACTIONS, "head"),
            (self.hidden, self.compass, "query"),
            (self.hidden, 1, "offer"),
        )

    def to_dict(self) -> dict[str, int]:
        """The widths as plain JSON."""
        widths = asdict(self)
        del widths["preprocessing"]
        return widths

    @classmethod
    def from_dict(cls, values: object, preprocessing: int = PREPROCESSING) -> PolicyConfig:
        """The inverse of `to_dict`, for untrusted input."""
        names = {field.name for field in fields(cls)} - {"preprocessing"}
        if not isinstance(values, Mapping) or set(values) != names:
            raise InputError(f"policy config: needs exactly the fields {sorted(names)}")
        return cls(**values, preprocessing=preprocessing)


def flop_model() -> str:
    """The hash that names how FLOPs are counted now."""
    shapes = {n: PolicyConfig.for_params(n) for n in (20_000, 10**6, 10**8)}
    sizes = {
        f"{n} {kind}": getattr(shape, f"{kind}_flops")
        for n, shape in shapes.items()
        for kind in ("train", "update")
    }
    return flop_model_hash(f"{ARCHITECTURE}, features {PREPROCESSING}", FLOP_VERSION, sizes)


def flop_model_hash(architecture: str, version: int, sizes: Mapping[str, int]) -> str:
    """16 hex digits that name how FLOPs are counted, the same for every size of network.

    `sizes`: FLOPs a frame of reference networks, so that a changed formula or rule for the widths
    shows even where nobody thought of its `version`.
    """
    named = {"architecture": architecture, "version": version, "sizes": dict(sizes)}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]
