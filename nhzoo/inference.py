"""One step of a policy for many games at once, in few calls: what plays, when nothing is learned.

`Policy.forward` is a hundred operations for each step, most of them too small to be worth a call.
Here a step is a few loops over whole rows with one matrix product between them for each layer, in
buffers that stay. The same numbers to rounding, and a row's do not depend on the other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nhzoo import features as seen
from nhzoo import kernels, row_sums, walking
from nhzoo.features import Features
from nhzoo.policy import ACTIONS, EPSILON, GATES, LAYERS, LETTER_ACTIONS, MOVE_ACTIONS, Policy

Array = np.ndarray[Any, Any]

_TILE = 16  # rows: products of one or several tiles treat all rows alike
_F = np.float32
_MOST = _F(80)  # of what `exp` takes: sums of two are still numbers
_REASSOCIATE = {"reassoc", "contract", "nsz"}  # of sums: several at once, in an order that is fixed


class _Buffer:
    """Zeros, float32 [rows, width], for torch and for the loops."""

    def __init__(self, rows: int, width: int) -> None:
        self.tensor = torch.zeros(rows, width)
        self.array = self.tensor.numpy()

    def upto(self, rows: int) -> _Buffer:
        """Its first rows."""
        part = _Buffer.__new__(_Buffer)
        part.tensor, part.array = self.tensor[:rows], self.array[:rows]
        return part


class Inference:
    """A policy's weights laid out for playing, and the buffers of a step of up to `batch` games.

    The policy shares the matrices that are laid out anew, and stays usable. Not thread-safe.
    """

    def __init__(self, policy: Policy, batch: int) -> None:
        self.config, self.batch = policy.config, batch
        self._policy = policy
        names = [*(name for name in policy.tables if name != "compass"), "compass"]
        tables = [policy.tables[name].detach().numpy() for name in names]
        lines = [policy.get_buffer(f"{name}_rows").numpy() for name in names if name != "message"]
        # Cells have three symbols each: a row of zeros for what is nothing is faster than a list.
        lines[0] = np.where(lines[0] < 0, np.int32(len(tables[0])), lines[0])
        tables[0] = np.concatenate([tables[0], np.zeros_like(tables[0][:1])])
        biases = [np.zeros(table.shape[1], np.float32) for table in tables]
        biases[1] = policy.patch_bias.detach().numpy()
        biases[8] = policy.compass_bias.detach().numpy()
        self._tables, self._rows, self._table_biases = tuple(tables), tuple(lines), tuple(biases)
        self._chosen = np.zeros(1 + max(rows.shape[0] for rows in lines), np.int32)
        layers = policy.crop, policy.map, policy.bearing, policy.join
        self._crop, self._map, self._bearing, self._join = (
            _share([layer.weight], 0) for layer in layers
        )
        self._crop_bias, self._map_bias, self._bearing_bias, self._join_bias = (
            layer.bias.detach().numpy() for layer in layers
        )
        ends = policy.head, policy.query, policy.offer
        core = [[getattr(policy, f"{gate}{layer}") for gate in GATES] for layer in range(LAYERS)]
        self._gates = [_share([gate.weight for gate in gates], 1) for gates in core]
        self._gate_biases = [
            torch.cat([gate.bias for gate in gates]).detach().numpy() for gates in core
        ]
        self._ends = _share([layer.weight for layer in ends], 1)
        self._end_bias = torch.cat([layer.bias for layer in ends]).detach().numpy()
        most = -(-batch // _TILE) * _TILE
        buffers = [_Buffer(most * rows, width) for rows, width in self._shapes()]
        self._buffers = {most: buffers}
        rows = _TILE
        while rows < most:
            shapes = zip(buffers, self._shapes(), strict=True)
            self._buffers[rows] = [buffer.upto(rows * each) for buffer, (each, _) in shapes]
            rows *= 2
        if not self._sizes_agree():
            self._buffers = {most: buffers}

    def refresh(self) -> None:
        """Take in new weights, which were copied into the policy's own tensors."""
        policy = self._policy
        with torch.no_grad():
            self._tables[0][:-1] = policy.tables["crop"].detach().numpy()
            for layer, biases in enumerate(self._gate_biases):
                gates = [getattr(policy, f"{gate}{layer}").bias for gate in GATES]
                biases[:] = torch.cat(gates).numpy()
            ends = policy.head.bias, policy.query.bias, policy.offer.bias
            self._end_bias[:] = torch.cat(ends).numpy()

    def step(self, features: Features, states: Sequence[Array]) -> tuple[Array, list[Array]]:
        """Logits, float32 [n, 121], and the next state of each layer of the core.

        Of one screen of each of n games, up to `batch`: `features` as `encode` gives them, `states`
        float32 [n, hidden] each.
        """
        n, f, ways = len(states[0]), features, walking.DIRECTIONS
        rows = min(rows for rows in self._buffers if rows >= n)
        cells, patches, read, joined = self._buffers[rows][:4]
        cropped, mapped, bearings, x, normed, gates, out = self._buffers[rows][4:]
        row_sums.sum_tables(
            f.crop,
            f.map.reshape(n, -1).view(np.uint32),
            f.message,
            (f.status, f.cursor, f.choices, f.recent, f.here),
            f.compass.reshape(n * ways, -1),
            self._tables,
            self._table_biases,
            self._rows,
            self._chosen,
            cells.array,
            patches.array,
            read.array,
            joined.array,
            self.config.crop + self.config.map,
        )
        with torch.inference_mode():
            torch.mm(cells.tensor, self._crop, out=cropped.tensor)
            torch.mm(patches.tensor, self._map, out=mapped.tensor)
            torch.mm(read.tensor, self._bearing, out=bearings.tensor)
            _join(
                cropped.array,
                mapped.array,
                bearings.array,
                self._crop_bias,
                self._map_bias,
                self._bearing_bias,
                joined.array,
                n,
            )
            torch.mm(joined.tensor, self._join, out=x.tensor)
            _rectify(x.array, self._join_bias, n)
            reached = [np.empty_like(state) for state in states]
            layers = zip(self._gates, self._gate_biases, states, reached, strict=True)
            for matrix, biases, before, after in layers:
                _normalize(x.array, normed.array, n)
                torch.mm(normed.tensor, matrix, out=gates.tensor)
                _open_gates(gates.array, biases, n)
                odds = gates.array[:n, : 2 * self.config.hidden]
                np.exp(odds, out=odds)
                _remember(gates.array, before, after, x.array)
            torch.mm(x.tensor, self._ends, out=out.tensor)
        logits = np.empty((n, ACTIONS), np.float32)
        _finish(out.array, self._end_bias, bearings.array, f.choices, logits)
        return logits, reached

    def _shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows for each game and width of every buffer, in the order in which `step` has them."""
        config, ways = self.config, walking.DIRECTIONS
        return (
            (1, seen.CELLS * config.cell),
            (1, seen.PATCHES * config.patch),
            (ways, config.compass),
            (1, config.joined),
            (1, config.crop),
            (1, config.map),
            (ways, config.compass),
            (1, config.hidden),
            (1, config.hidden),
            (1, 3 * config.hidden),
            (1, ACTIONS + config.compass + 1),
        )

    def _sizes_agree(self) -> bool:
        """Whether products of few rows and of many give a row the same bits, on this machine.

        When they do not, every step is one of all rows: the games that are played beside one must
        not change it.
        """
        random = np.random.default_rng(0)
        products = (
            (0, 4, self._crop),
            (1, 5, self._map),
            (2, 6, self._bearing),
            (3, 7, self._join),
            *((8, 9, matrix) for matrix in self._gates),
            (7, 10, self._ends),
        )
        agree, most = True, max(self._buffers)
        for source, target, matrix in products:
            given = self._buffers[most][source].array
            given[:] = random.standard_normal(given.shape, np.float32)
            wanted = torch.mm(torch.from_numpy(given), matrix).numpy()
            for buffers in self._buffers.values():
                part = buffers[target]
                torch.mm(buffers[source].tensor, matrix, out=part.tensor)
                agree = agree and part.array.tobytes() == wanted[: len(part.array)].tobytes()
            given[:] = 0
        return agree


def choose(logits: Array, uniform: Array, temperature: float) -> Array:
    """What `agents.sample` gives, to the bit, three times as fast."""
    if temperature == 0:
        if not np.isfinite(logits).all():
            raise ValueError("the agent's logits are not finite")
        return np.asarray(logits.argmax(-1))
    weights = np.empty(logits.shape)
    if not _scale(logits, temperature, weights):
        raise ValueError("the agent's logits are not finite")
    np.exp(weights, out=weights)
    chosen = np.empty(len(logits), np.int64)
    _draw(weights, weights.sum(-1), uniform, chosen)
    return chosen


def _share(weights: Sequence[torch.Tensor], along: int) -> torch.Tensor:
    """Weights [outputs, inputs] transposed and joined into one matrix, which they now lie in.

    Those of an input are side by side: fastest for few rows.
    """
    joined = torch.cat([weight.data.t() for weight in weights], along).contiguous()
    parts = torch.split(joined, [weight.shape[1 - along] for weight in weights], along)
    for weight, part in zip(weights, parts, strict=True):
        weight.data = part.t()
    return joined


# Unsigned indices cannot mean "from the end": without that check the loops are plain additions.


@kernels.njit()
def _relu(value: Any) -> Any:
    return _F(0) if value < 0 else value  # and what is no number stays none


@kernels.njit()
def _join(
    cropped: Array,
    mapped: Array,
    bearings: Array,
    crop_bias: Array,
    map_bias: Array,
    bearing_bias: Array,
    joined: Array,
    n: int,
) -> None:
    """What the layers gave of n screens, finished, into `joined`; bearings in place as well."""
    crop, width = len(crop_bias), len(bearing_bias)
    last = joined.shape[1] - walking.DIRECTIONS * width
    for i in range(np.uint64(n)):
        for d in range(np.uint64(crop)):
            joined[i, d] = _relu(cropped[i, d] + crop_bias[d])
        for d in range(np.uint64(len(map_bias))):
            joined[i, np.uint64(crop) + d] = _relu(mapped[i, d] + map_bias[d])
        for way in range(np.uint64(walking.DIRECTIONS)):
            line = i * np.uint64(walking.DIRECTIONS) + way
            at = np.uint64(last) + way * np.uint64(width)
            for d in range(np.uint64(width)):
                value = _relu(bearings[line, d] + bearing_bias[d])
                bearings[line, d] = value
                joined[i, at + d] = value


@kernels.njit()
def _rectify(x: Array, bias: Array, n: int) -> None:
    """Finish the first n rows of a layer, in place."""
    for i in range(np.uint64(n)):
        for d in range(np.uint64(len(bias))):
            x[i, d] = _relu(x[i, d] + bias[d])


@kernels.njit(error_model="numpy", fastmath=_REASSOCIATE)
def _normalize(x: Array, normed: Array, n: int) -> None:
    """The first n rows by their root mean squares."""
    width = np.uint64(x.shape[1])
    for i in range(np.uint64(n)):
        total = _F(0)
        for d in range(width):
            total += x[i, d] * x[i, d]
        scale = _F(1) / np.sqrt(total / _F(width) + _F(EPSILON))
        for d in range(width):
            normed[i, d] = x[i, d] * scale


@kernels.njit()
def _open_gates(gates: Array, bias: Array, n: int) -> None:
    """Finish forget and input gates and candidates; of the gates what `exp` makes odds against."""
    width = np.uint64(len(bias) // 3 * 2)
    for i in range(np.uint64(n)):
        for d in range(width):
            value = -(gates[i, d] + bias[d])
            gates[i, d] = _MOST if value > _MOST else value
        for d in range(width, np.uint64(len(bias))):
            gates[i, d] += bias[d]


@kernels.njit(error_model="numpy")
def _remember(gates: Array, before: Array, after: Array, x: Array) -> None:
    """One layer's next state, added to what it read; see `recurrence`, with odds for sigmoids."""
    width = np.uint64(before.shape[1])
    for i in range(np.uint64(len(before))):
        for d in range(width):  # the share that is written, i / (f + i)
            against = _F(1) + gates[i, d]
            gates[i, d] = against / (against + _F(1) + gates[i, width + d])
        for d in range(width):
            share = gates[i, d]
            after[i, d] = (_F(1) - share) * before[i, d] + share * gates[i, width + width + d]
        for d in range(width):
            x[i, d] += after[i, d]


@kernels.njit(fastmath=_REASSOCIATE)
def _finish(out: Array, bias: Array, bearings: Array, choices: Array, logits: Array) -> None:
    """Logits of the actions, of the moves with what lies that way, of letters that are offered."""
    width = np.uint64(bearings.shape[1])
    first = np.uint64(ACTIONS)
    for i in range(np.uint64(len(logits))):
        for d in range(np.uint64(out.shape[1])):
            out[i, d] += bias[d]
        for d in range(first):
            logits[i, d] = out[i, d]
        for way in range(np.uint64(walking.DIRECTIONS)):
            line = i * np.uint64(walking.DIRECTIONS) + way
            toward = _F(0)
            for d in range(width):
                toward += bearings[line, d] * out[i, first + d]
            logits[i, MOVE_ACTIONS[way]] += toward
        for letter in range(seen.LETTERS):
            logits[i, LETTER_ACTIONS[letter]] += choices[i, letter] * out[i, first + width]


@kernels.njit()
def _scale(logits: Array, temperature: float, scaled: Array) -> bool:
    """Logits by temperature, the largest 0, float64; False when one is not finite."""
    for i in range(np.uint64(len(logits))):
        largest = -np.inf
        for d in range(np.uint64(logits.shape[1])):
            value = np.float64(logits[i, d]) / temperature
            if not np.isfinite(value):
                return False
            scaled[i, d] = value
            largest = max(largest, value)
        for d in range(np.uint64(logits.shape[1])):
            scaled[i, d] -= largest
    return True


@kernels.njit()
def _draw(weights: Array, totals: Array, uniform: Array, chosen: Array) -> None:
    """The first action whose cumulative probability exceeds the uniform, or the last."""
    last = weights.shape[1] - 1
    for i in range(len(weights)):
        reached, action = weights[i, 0] / totals[i], 0
        while reached <= uniform[i] and action < last:
            action += 1
            reached += weights[i, action] / totals[i]
        chosen[i] = action
