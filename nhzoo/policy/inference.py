"""Inference: one step of a policy for many games at once, in few calls, without gradients.

`Policy.forward` is a hundred operations for each step, most of them too small to be worth a call.
Here a step is a few loops over whole rows with one matrix product between them for each layer, in
buffers that stay. The same numbers to rounding, and the same bits for a screen and a state on every
machine, in every row, beside any others (`arithmetic`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nhzoo.policy import arithmetic
from nhzoo.policy.arithmetic import exp32, exp64, multiply
from nhzoo.policy.config import ACTIONS, CROP_CELLS, DIRECTIONS, GATES, LAYERS, LETTERS, PATCHES
from nhzoo.policy.features import Features
from nhzoo.policy.network import EPSILON, LETTER_ACTIONS, MOVE_ACTIONS, Policy
from nhzoo.policy.table_sums import sum_tables
from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]

_F = np.float32


class _Product:
    """The weights of one or more linear layers that read the same, packed, and their biases."""

    def __init__(self, *layers: Any) -> None:
        self._layers = layers
        outputs = sum(layer.out_features for layer in layers)
        shape = arithmetic.panels_of(outputs), layers[0].in_features, arithmetic.LANES
        self.panels = np.zeros(shape, np.float32)
        self.bias = np.empty(outputs, np.float32)
        self.refresh()

    def refresh(self) -> None:
        start = 0
        for layer in self._layers:
            arithmetic.pack(layer.weight.detach().numpy(), self.panels, start)
            end = start + layer.out_features
            self.bias[start:end] = layer.bias.detach().numpy()
            start = end


class Inference:
    """A policy's weights laid out for inference, and the buffers of a step of up to `batch` games.

    Not thread-safe. NhzooError where this machine's arithmetic gives other bits.
    """

    def __init__(self, policy: Policy, batch: int) -> None:
        arithmetic.check()
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
        self._crop, self._map, self._bearing, self._join = (_Product(layer) for layer in layers)
        self._gates = [
            _Product(*(getattr(policy, f"{gate}{layer}") for gate in GATES))
            for layer in range(LAYERS)
        ]
        self._ends = _Product(policy.head, policy.query, policy.offer)
        rows = arithmetic.padded(batch)
        self._buffers = [
            np.zeros((rows * each, width), np.float32) for each, width in self._shapes()
        ]

    def refresh(self) -> None:
        """Take in new weights, which were copied into the policy's own tensors."""
        self._tables[0][:-1] = self._policy.tables["crop"].detach().numpy()
        for product in (
            *(self._crop, self._map, self._bearing, self._join),
            *self._gates,
            self._ends,
        ):
            product.refresh()

    def step(self, features: Features, states: Sequence[Array]) -> tuple[Array, list[Array]]:
        """Logits, float32 [n, 121], and the next state of each layer of the core.

        Of one screen of each of n games, up to `batch`: `features` as `encode` gives them, `states`
        float32 [n, hidden] each. ValueError when n is 0 or above `batch`: the loops check nothing.
        """
        if not 0 < len(states[0]) <= self.batch:
            raise ValueError(f"{len(states[0])} games, of 1 to {self.batch}")
        n, f, ways = len(states[0]), features, DIRECTIONS
        (
            cells,
            patches,
            read,
            joined,
            cropped,
            mapped,
            direction_embedding,
            x,
            normed,
            gates,
            out,
        ) = self._buffers
        sum_tables(
            f.crop,
            f.map.reshape(n, -1).view(np.uint32),
            f.message,
            (f.status, f.cursor, f.choices, f.recent, f.here),
            f.compass.reshape(n * ways, -1),
            self._tables,
            self._table_biases,
            self._rows,
            self._chosen,
            cells,
            patches,
            read,
            joined,
            self.config.crop + self.config.map,
        )
        multiply(cells, self._crop.panels, cropped, n)
        multiply(patches, self._map.panels, mapped, n)
        multiply(read, self._bearing.panels, direction_embedding, n * ways)
        biases = self._crop.bias, self._map.bias, self._bearing.bias
        _join(cropped, mapped, direction_embedding, *biases, joined, n)
        multiply(joined, self._join.panels, x, n)
        _rectify(x, self._join.bias, n)
        reached = [np.empty_like(state) for state in states]
        for layer, before, after in zip(self._gates, states, reached, strict=True):
            _normalize(x, normed, n)
            multiply(normed, layer.panels, gates, n)
            _remember(gates, layer.bias, before, after, x)
        multiply(x, self._ends.panels, out, n)
        logits = np.empty((n, ACTIONS), np.float32)
        _finish(out, self._ends.bias, direction_embedding, f.choices, logits)
        return logits, reached

    def _shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows for each game and width of every buffer, in the order in which `step` has them."""
        config, ways = self.config, DIRECTIONS
        return (
            (1, CROP_CELLS * config.cell),
            (1, PATCHES * config.patch),
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


def choose(logits: Array, uniform: Array, temperature: float, min_p: float = 0.0) -> Array:
    """Per row the first action whose cumulative probability exceeds `uniform`; int64 [B].

    Softmax and cumulative sum are float64, in action order; temperature 0 takes the largest logit.
    Actions less than `min_p` times as probable as the most probable one are left out. ValueError
    when a logit is not finite.
    """
    if temperature == 0:
        if not np.isfinite(logits).all():
            raise ValueError("the agent's logits are not finite")
        return np.asarray(logits.argmax(-1))
    weights = np.empty(logits.shape)
    if not _weigh(logits, temperature, min_p, weights):
        raise ValueError("the agent's logits are not finite")
    chosen = np.empty(len(logits), np.int64)
    _draw(weights, uniform, chosen)
    return chosen


# Unsigned indices cannot mean "from the end": without that check the loops are plain additions.


@kernels.njit()
def _relu(value: Any) -> Any:
    return _F(0) if value < 0 else value  # and what is no number stays none


@kernels.njit()
def _join(
    cropped: Array,
    mapped: Array,
    direction_embedding: Array,
    crop_bias: Array,
    map_bias: Array,
    bearing_bias: Array,
    joined: Array,
    n: int,
) -> None:
    """What the layers gave of n screens, finished, into `joined`; bearings in place as well."""
    crop, width = len(crop_bias), len(bearing_bias)
    last = joined.shape[1] - DIRECTIONS * width
    for i in range(np.uint64(n)):
        for d in range(np.uint64(crop)):
            joined[i, d] = _relu(cropped[i, d] + crop_bias[d])
        for d in range(np.uint64(len(map_bias))):
            joined[i, np.uint64(crop) + d] = _relu(mapped[i, d] + map_bias[d])
        for way in range(np.uint64(DIRECTIONS)):
            line = i * np.uint64(DIRECTIONS) + way
            at = np.uint64(last) + way * np.uint64(width)
            for d in range(np.uint64(width)):
                value = _relu(direction_embedding[line, d] + bearing_bias[d])
                direction_embedding[line, d] = value
                joined[i, at + d] = value


@kernels.njit()
def _rectify(x: Array, bias: Array, n: int) -> None:
    """Finish the first n rows of a layer, in place."""
    for i in range(np.uint64(n)):
        for d in range(np.uint64(len(bias))):
            x[i, d] = _relu(x[i, d] + bias[d])


@kernels.njit(error_model="numpy")
def _normalize(x: Array, normed: Array, n: int) -> None:
    """The first n rows by their root mean squares."""
    width = np.uint64(x.shape[1])
    for i in range(np.uint64(n)):
        # Eight sums side by side, for speed, in an order that no compiler may change.
        a = b = c = d = e = f = g = h = _F(0)
        whole = width // np.uint64(8) * np.uint64(8)
        for k in range(np.uint64(0), whole, np.uint64(8)):
            a += x[i, k] * x[i, k]
            b += x[i, k + np.uint64(1)] * x[i, k + np.uint64(1)]
            c += x[i, k + np.uint64(2)] * x[i, k + np.uint64(2)]
            d += x[i, k + np.uint64(3)] * x[i, k + np.uint64(3)]
            e += x[i, k + np.uint64(4)] * x[i, k + np.uint64(4)]
            f += x[i, k + np.uint64(5)] * x[i, k + np.uint64(5)]
            g += x[i, k + np.uint64(6)] * x[i, k + np.uint64(6)]
            h += x[i, k + np.uint64(7)] * x[i, k + np.uint64(7)]
        for k in range(whole, width):
            a += x[i, k] * x[i, k]
        total = ((a + e) + (c + g)) + ((b + f) + (d + h))
        scale = _F(1) / np.sqrt(total / _F(width) + _F(EPSILON))
        for k in range(width):
            normed[i, k] = x[i, k] * scale


@kernels.njit(error_model="numpy")
def _remember(gates: Array, bias: Array, before: Array, after: Array, x: Array) -> None:
    """One layer's next state, added to what it read; see `recurrence`, with odds for sigmoids.

    `gates` are what the layer's product gave: of the forget and input gates, and the candidates.
    """
    width = np.uint64(before.shape[1])
    for i in range(np.uint64(len(before))):
        for d in range(width):  # the share that is written, i / (f + i)
            forget = _F(1) + exp32(-(gates[i, d] + bias[d]))
            against = _F(1) + exp32(-(gates[i, width + d] + bias[width + d]))
            gates[i, d] = forget / (forget + against)
        for d in range(width):
            share, last = gates[i, d], width + width + d
            after[i, d] = (_F(1) - share) * before[i, d] + share * (gates[i, last] + bias[last])
        for d in range(width):
            x[i, d] += after[i, d]


@kernels.njit()
def _finish(
    out: Array, bias: Array, direction_embedding: Array, choices: Array, logits: Array
) -> None:
    """Logits of the actions, of the moves with what lies that way, of letters that are offered."""
    width = np.uint64(direction_embedding.shape[1])
    first = np.uint64(ACTIONS)
    toward = np.empty(DIRECTIONS, np.float32)
    for i in range(np.uint64(len(logits))):
        for d in range(np.uint64(out.shape[1])):
            out[i, d] += bias[d]
        for d in range(first):
            logits[i, d] = out[i, d]
        toward[:] = _F(0)
        line = i * np.uint64(DIRECTIONS)
        for d in range(width):
            for way in range(np.uint64(DIRECTIONS)):
                toward[way] += direction_embedding[line + way, d] * out[i, first + d]
        for way in range(np.uint64(DIRECTIONS)):
            logits[i, MOVE_ACTIONS[way]] += toward[way]
        for letter in range(LETTERS):
            logits[i, LETTER_ACTIONS[letter]] += choices[i, letter] * out[i, first + width]


@kernels.njit()
def _weigh(logits: Array, temperature: float, min_p: float, weights: Array) -> bool:
    """Softmax without its sum, the largest weight 1, float64; False when a logit is not finite."""
    for i in range(np.uint64(len(logits))):
        largest = -np.inf
        for d in range(np.uint64(logits.shape[1])):
            value = np.float64(logits[i, d]) / temperature
            if not np.isfinite(value):
                return False
            weights[i, d] = value
            largest = max(largest, value)
        for d in range(np.uint64(logits.shape[1])):
            weight = exp64(weights[i, d] - largest)
            weights[i, d] = weight if weight >= min_p else 0.0
    return True


@kernels.njit(error_model="numpy")
def _draw(weights: Array, uniform: Array, chosen: Array) -> None:
    """The first action whose cumulative probability exceeds the uniform, or the last."""
    last = weights.shape[1] - 1
    for i in range(len(weights)):
        total = 0.0
        for d in range(last + 1):
            total += weights[i, d]
        reached, action = weights[i, 0] / total, 0
        while reached <= uniform[i] and action < last:
            action += 1
            reached += weights[i, action] / total
        chosen[i] = action
