"""The policy whose size is one number: tables and two linear readers of the map, and an LSTM.

`PolicyConfig.for_params(n)` gives every width. The whole network scales, encoders too: a law in
which only the core is counted measures the encoders (Tuyls et al. leave theirs out of N).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

import torch
from torch import Tensor, nn

from nhzoo import features as seen
from nhzoo.errors import InputError
from nhzoo.features import Features
from nhzoo.tables import symbol_sum, table_sum

ARCHITECTURE = "nhzoo-lstm-1"
ACTIONS = 121
MAX_MESSAGE_ROWS = 65_536

State = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PolicyConfig:
    """Widths of every layer. `hidden` is the LSTM's; the rest follow from it in `for_params`."""

    hidden: int
    cell: int
    crop: int
    patch: int
    map: int
    message: int
    message_rows: int
    status: int
    status_rows: int
    where: int

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
        """All widths from the LSTM's; the large tables get at most an eighth of `params` each."""
        root = math.sqrt(hidden / 192)
        message, status = max(2, round(32 * root)), max(2, round(16 * root))
        share = params // 8
        return cls(
            hidden=hidden,
            cell=max(2, round(8 * root)),
            crop=max(4, round(hidden / 2)),
            patch=max(2, round(12 * root)),
            map=max(4, round(hidden / 2)),
            message=message,
            message_rows=max(1, min(MAX_MESSAGE_ROWS, share // message)),
            status=status,
            status_rows=max(1, min(seen.STATUS_CELLS * seen.STATUS_SYMBOLS, share // status)),
            where=max(2, round(16 * root)),
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
        return self.crop + self.map + self.message + self.status + self.where

    @property
    def params(self) -> int:
        """The exact number of parameters, tables, biases and head included."""
        tables = (
            (seen.CHARS + seen.COLORS) * self.cell
            + seen.PATCH_CELLS * seen.CHARS * self.patch
            + self.message_rows * self.message
            + self.status_rows * self.status
            + seen.WHERE_ROWS * self.where
        )
        linears = sum((inputs + 1) * outputs for inputs, outputs in self._linears())
        return tables + linears + 8 * self.hidden * (self.hidden + 1) + self.patch

    @property
    def forward_flops(self) -> int:
        """FLOPs of one frame forward: a multiply-add is 2, a table look-up its additions.

        Elementwise arithmetic is not counted (nor is Adam's, which is elementwise).
        """
        linears = sum(2 * inputs * outputs for inputs, outputs in self._linears())
        return linears + 16 * self.hidden**2 + self._lookups()

    @property
    def train_flops(self) -> int:
        """FLOPs of one frame of training: forward, and backward to weights and inputs.

        A linear layer's backward costs twice its forward; a table's costs its additions once.
        """
        return 3 * (self.forward_flops - self._lookups()) + 2 * self._lookups()

    def _lookups(self) -> int:
        return (
            2 * seen.CELLS * self.cell
            + seen.PATCHES * seen.PATCH_CELLS * self.patch
            + 2 * seen.WORDS * self.message
            + seen.STATUS_CELLS * self.status
            + 3 * self.where
        )

    def _linears(self) -> tuple[tuple[int, int], ...]:
        return (
            (seen.CELLS * self.cell, self.crop),
            (seen.PATCHES * self.patch, self.map),
            (self.joined, self.hidden),
            (self.hidden, ACTIONS),
        )

    def to_dict(self) -> dict[str, int]:
        """The widths as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> PolicyConfig:
        """The inverse of `to_dict`, for untrusted input."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != names:
            raise InputError(f"policy config: needs exactly the fields {sorted(names)}")
        return cls(**values)


class Policy(nn.Module):
    """Screens in, action logits out, an LSTM state carried in between."""

    def __init__(self, config: PolicyConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.dropout = 0.0  # of what the encoders give, in training mode only

        def table(rows: int, width: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, width, generator=generator) * scale)

        self.cells = table(seen.CHARS + seen.COLORS, config.cell, 0.5)
        self.patches = table(seen.PATCH_CELLS * seen.CHARS, config.patch, 0.3)
        self.patch_bias = nn.Parameter(torch.zeros(config.patch))
        self.message = table(config.message_rows, config.message, 0.3)
        self.status = table(config.status_rows, config.status, 0.1)
        self.where = table(seen.WHERE_ROWS, config.where, 0.5)
        for name, layout in (
            ("crop", seen.CROP_LAYOUT),
            ("map", seen.MAP_LAYOUT),
            ("status", seen.status_layout(config.status_rows)),
            ("where", seen.WHERE_LAYOUT),
        ):  # no parameters, and not in checkpoints: they follow from the preprocessing
            self.register_buffer(f"{name}_places", torch.from_numpy(layout.places), False)
            self.register_buffer(f"{name}_rows", torch.from_numpy(layout.rows), False)
        self.crop = _linear(seen.CELLS * config.cell, config.crop, generator)
        self.map = _linear(seen.PATCHES * config.patch, config.map, generator)
        self.join = _linear(config.joined, config.hidden, generator)
        self.core = nn.LSTM(config.hidden, config.hidden)
        for parameter in self.core.parameters():
            bound = config.hidden**-0.5
            parameter.data = torch.rand(parameter.shape, generator=generator) * (2 * bound) - bound
        with torch.no_grad():  # remember by default
            self.core.get_parameter("bias_ih_l0")[config.hidden : 2 * config.hidden] += 1.0
        self.head = _linear(config.hidden, ACTIONS, generator, scale=0.1)

    def initial_state(self, batch: int) -> State:
        """The state at the start of a game: zeros, (1, batch, hidden) twice."""
        zeros = self.head.weight.new_zeros(1, batch, self.config.hidden)
        return zeros, zeros.clone()

    def forward(self, features: Mapping[str, Tensor], state: State) -> tuple[Tensor, State]:
        """Logits [T, B, 121] and the state after T steps, of features [T, B, ...]."""
        x = self.encode(features)
        y, state = self.core(x, state)
        return self.head(y + x), state

    def encode(self, features: Mapping[str, Tensor]) -> Tensor:
        """What the LSTM gets: [T, B, hidden]."""
        message = features["message"]
        words = torch.where(message < 0, message, message % len(self.message))
        crop = self._sum(self.cells, features["crop"].flatten(-2), "crop")
        patches = self._sum(self.patches, features["map"].flatten(-2), "map") + self.patch_bias
        joined = torch.cat(
            [
                torch.relu(self.crop(crop.flatten(-2))),
                torch.relu(self.map(torch.relu(patches).flatten(-2))),
                torch.relu(table_sum(self.message, words)),
                torch.relu(self._sum(self.status, features["status"], "status").flatten(-2)),
                self._sum(self.where, features["where"], "where").flatten(-2),
            ],
            dim=-1,
        )
        joined = nn.functional.dropout(joined, self.dropout, self.training)
        return torch.relu(self.join(joined))

    def _sum(self, table: Tensor, symbols: Tensor, name: str) -> Tensor:
        places, rows = self.get_buffer(f"{name}_places"), self.get_buffer(f"{name}_rows")
        return symbol_sum(table, symbols, places, rows)


def to_tensors(features: Features, time: int, batch: int) -> dict[str, Tensor]:
    """Features of time x batch frames (time slow) as tensors [time, batch, ...]."""
    return {
        field.name: torch.from_numpy(array).view(time, batch, *array.shape[1:])
        for field in fields(features)
        for array in [getattr(features, field.name)]
    }


def _linear(
    inputs: int, outputs: int, generator: torch.Generator | None, scale: float = 1.0
) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    bound = scale * math.sqrt(3 / inputs)
    layer.weight.data = torch.rand(outputs, inputs, generator=generator) * (2 * bound) - bound
    nn.init.zeros_(layer.bias)
    return layer
