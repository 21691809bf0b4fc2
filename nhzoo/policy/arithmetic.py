"""Matrix products and exponentials with the same bits on every processor.

A BLAS chooses its kernels, and with them the order of its additions, by the make of the processor,
by the shape, and by a row's place in it. Here an element of a matrix product is one chain of fused
multiply-adds over the inner dimension, first to last, whatever the batch and the width of the
vectors. The exponentials are polynomials of operations that IEEE 754 rounds in one way. So two
machines can only differ where one computes wrongly, and `check` finds that out.

The fused multiply-add is LLVM's: one instruction on every x86-64 processor with AVX2 (FMA3), a slow
and exact function of the C library elsewhere.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.core import config as _config
from numba.extending import intrinsic as _intrinsic

from nhzoo.errors import NhzooError
from nhzoo.policy.vectors import store
from nhzoo.runtime import kernels

cgutils: Any = _cgutils
config: Any = _config
intrinsic: Any = _intrinsic
Array = np.ndarray[Any, Any]

NUMERICS = "fma-chain-1"
"""Name of these rules. Results carry it: two results of one name agree to the last bit."""

LANES = 16
"""Columns of a panel: one vector with AVX-512, two with AVX2."""


def _has_avx512() -> bool:
    """Of the processor that numba compiles for: this one, unless NUMBA_CPU_FEATURES says else."""
    named: str | None = config.CPU_FEATURES
    return "+avx512f" in (llvm.get_host_cpu_features().flatten() if named is None else named)


ROWS = 8 if _has_avx512() else 4
"""Rows of a tile: as many sums as the registers hold. The bits do not depend on it."""

PADDING = 8
"""Operands have a multiple of this many rows, so that every tile is whole on every machine."""

DIGEST = "34b670a4ff2943c0400cc16625d5502202cb4c1bd182d149ee1c073b7a395f13"
"""What `probe` gives on every machine."""

_FLOAT, _INDEX, _INT = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(_INT, LANES)

# exp(x) = 2^n exp(r), n the integer nearest x / ln 2, |r| <= ln 2 / 2; exp(r) by its Taylor series,
# as many terms as the type can tell. Adding and subtracting 1.5 x 2^mantissa rounds to an integer,
# whose low bits are then those of the sum. ln 2 is taken off in two parts: n times the first, of
# few bits, is exact (Cody and Waite 1980).
_F = np.float32
_SCALE32, _ROUND32 = _F(1 / np.log(2)), _F(1.5 * 2**23)
_HIGH32, _LOW32 = _F(0.693359375), _F(np.log(2) - 0.693359375)
_TAYLOR32 = tuple(_F(1 / c) for c in (5040, 720, 120, 24, 6, 2, 1, 1))
_SCALE64, _ROUND64 = 1 / np.log(2), 1.5 * 2**52
_HIGH64, _LOW64 = 0.693147180369123816490, 1.90821492927058770002e-10
_LOWEST32, _HIGHEST32, _LOWEST64 = _F(-87), _F(80), -700.0


def panels_of(outputs: int) -> int:
    """How many panels hold that many columns."""
    return -(-outputs // LANES)


def padded(rows: int) -> int:
    """`rows`, rounded up so that every tile is whole."""
    return -(-rows // PADDING) * PADDING


@kernels.njit()
def pack(weight: Array, panels: Array, start: int) -> None:
    """Lay a layer's float32 [outputs, inputs] into the columns of `panels` from `start` on.

    `panels`: float32 [panels_of(all outputs), inputs, 16].
    """
    for column in range(len(weight)):
        panel, lane = divmod(start + column, LANES)
        for k in range(weight.shape[1]):
            panels[panel, k, lane] = weight[column, k]


@intrinsic
def _tile(typing: Any, a: Any, row: Any, panels: Any, panel: Any, out: Any) -> Any:
    """`ROWS` rows of `a` times one panel, into the same rows of `out`."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        left, right, into = (
            context.make_array(signature.args[k])(context, builder, args[k]) for k in (0, 2, 4)
        )
        zero, one = ir.Constant(_INDEX, 0), ir.Constant(_INDEX, 1)
        lanes = ir.Constant(_INDEX, LANES)
        inner = cgutils.unpack_tuple(builder, left.shape)[1]
        width = cgutils.unpack_tuple(builder, into.shape)[1]
        rows = [builder.add(args[1], ir.Constant(_INDEX, k)) for k in range(ROWS)]
        lines = [builder.gep(left.data, [builder.mul(row, inner)]) for row in rows]
        start = builder.mul(builder.mul(args[3], inner), lanes)
        base = builder.gep(right.data, [start])
        sums = [
            cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * LANES)) for _ in rows
        ]
        for each in sums:  # `alloca_once_value` sets it once a function, not once a tile
            builder.store(ir.Constant(_VECTOR, [0.0] * LANES), each)
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
        with cgutils.for_range_slice(builder, zero, inner, one) as (k, _):
            weights = _load(builder, base, builder.mul(k, lanes))
            for line, total in zip(lines, sums, strict=True):
                value = _spread(builder, builder.load(builder.gep(line, [k])), _VECTOR)
                builder.store(builder.call(fma, [value, weights, builder.load(total)]), total)
        first = builder.mul(args[3], lanes)
        left_over = builder.sub(width, first)
        whole = builder.icmp_signed(">=", left_over, lanes)
        places = [builder.add(builder.mul(row, width), first) for row in rows]
        with builder.if_else(whole) as (then, otherwise):
            with then:
                for place, total in zip(places, sums, strict=True):
                    pointer = builder.gep(into.data, [place])
                    pointer = builder.bitcast(pointer, _VECTOR.as_pointer())
                    builder.store(builder.load(total), pointer, align=4)
            with otherwise:
                count = _spread(builder, builder.trunc(left_over, _INT), _INTS)
                mask = builder.icmp_signed(">", count, ir.Constant(_INTS, list(range(LANES))))
                for place, total in zip(places, sums, strict=True):
                    store(builder, builder.load(total), into.data, place, mask)
        return context.get_dummy_value()

    at = types.int64
    return types.void(a, at, panels, at, out), codegen


def _spread(builder: ir.IRBuilder, value: Any, kind: Any) -> Any:
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, first, ir.Constant(_INTS, [0] * LANES))


def _load(builder: ir.IRBuilder, data: Any, place: Any) -> Any:
    pointer = builder.bitcast(builder.gep(data, [place]), _VECTOR.as_pointer())
    return builder.load(pointer, align=4)


@kernels.njit()
def multiply(a: Array, panels: Array, out: Array, n: int) -> None:
    """`out` = `a` times packed panels: its first n rows, and those that make the last tile whole.

    `a` float32 [rows, inputs], `out` float32 [rows, outputs], contiguous, rows a multiple of
    `PADDING`; every row's bits are its own, whatever the others hold.
    """
    for panel in range(len(panels)):
        for row in range(0, n, ROWS):
            _tile(a, row, panels, panel, out)


@kernels.njit(forceinline=True)
def exp32(x: Any) -> Any:
    """The exponential of a float32 within 2 ulp; arguments are clipped to [-87, 80]."""
    x = _LOWEST32 if x < _LOWEST32 else x  # and what is no number stays none
    x = _HIGHEST32 if x > _HIGHEST32 else x
    shifted = x * _SCALE32 + _ROUND32
    n = shifted - _ROUND32
    r = (x - n * _HIGH32) - n * _LOW32
    total = _TAYLOR32[0]
    for c in _TAYLOR32[1:]:
        total = total * r + c
    power = (np.float32(shifted).view(np.int32) << np.int32(23)) + np.int32(0x3F800000)
    return total * np.int32(power).view(np.float32)


@kernels.njit(forceinline=True)
def exp64(x: Any) -> Any:
    """The exponential of a float64 <= 0 within 2 ulp; arguments are clipped to -700."""
    x = _LOWEST64 if x < _LOWEST64 else x
    shifted = x * _SCALE64 + _ROUND64
    n = shifted - _ROUND64
    r = (x - n * _HIGH64) - n * _LOW64
    total = 1 / 6227020800.0
    total = total * r + 1 / 479001600.0
    total = total * r + 1 / 39916800.0
    total = total * r + 1 / 3628800.0
    total = total * r + 1 / 362880.0
    total = total * r + 1 / 40320.0
    total = total * r + 1 / 5040.0
    total = total * r + 1 / 720.0
    total = total * r + 1 / 120.0
    total = total * r + 1 / 24.0
    total = total * r + 1 / 6.0
    total = total * r + 0.5
    total = total * r + 1.0
    total = total * r + 1.0
    power = (np.float64(shifted).view(np.int64) << np.int64(52)) + np.int64(0x3FF0000000000000)
    return total * np.int64(power).view(np.float64)


@functools.cache
def check() -> None:
    """Check this machine's bits, once a process; NhzooError where they differ."""
    found = probe()
    if found != DIGEST:
        raise NhzooError(
            f"this machine's arithmetic gives other bits than {NUMERICS} (found {found[:12]}, not "
            f"{DIGEST[:12]}), so its games would be nobody else's. If this process flushes "
            "denormal numbers (torch.set_flush_denormal, a library built with -ffast-math), stop "
            "that; else report it with the output of `nhzoo doctor`"
        )


def probe() -> str:
    """SHA-256 of products and exponentials of fixed arguments, rows in every place of a tile."""
    numbers = (np.arange(40_000, dtype=np.int64) * 40_503 + 12_345) & 0xFFFF
    values = (numbers.astype(np.float32) - _F(1 << 15)) / _F(1 << 13)
    a, weight = values[: 24 * 77].reshape(24, 77), values[-77 * 43 :].reshape(43, 77)
    panels = np.zeros((panels_of(43), 77, LANES), np.float32)
    pack(weight, panels, 0)
    digest = hashlib.sha256()
    tiny = a * _F(2.0**-135)  # their products are denormal numbers, which some programs flush
    for rows in (a, tiny):
        for first in range(8):
            for n in (1, 3, 8, 16):
                out = np.zeros((padded(n), 43), np.float32)
                multiply(np.ascontiguousarray(rows[first : first + padded(n)]), panels, out, n)
                digest.update(out[:n].tobytes())
    single = np.concatenate([values * _F(25), np.array([np.inf, -np.inf], np.float32)])
    double = np.minimum(values.astype(np.float64) * 200, 0)
    _exponentials(single, double)
    digest.update(single.tobytes() + double.tobytes())
    return digest.hexdigest()


@kernels.njit()
def _exponentials(single: Array, double: Array) -> None:
    for i in range(len(single)):
        single[i] = exp32(single[i])
    for i in range(len(double)):
        double[i] = exp64(double[i])
