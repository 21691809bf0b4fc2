"""Two vectorised loops over table rows; numba alone would leave such short rows scalar.

LLVM's loop vectorizer works in blocks of 32 numbers and does what is left one at a time, and rows
of small networks are 3 to 48 wide. Here a row is one or a few masked vectors, and a sum of rows
stays in registers until it is whole. Additions are those of the plain loop, in the same order and
with the same bits. With plain loops a step of training takes 1.12, 1.10 and 1.05 times as long, for
100,000, 300,000 and a million parameters, and one of inference 2.2, 1.7 and 1.2 times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic as _intrinsic

cgutils: Any = _cgutils
intrinsic: Any = _intrinsic

_LANES = 16
_INDEX, _INT = ir.IntType(64), ir.IntType(32)
_INTS = ir.VectorType(_INT, _LANES)
_VECTOR = ir.VectorType(ir.FloatType(), _LANES)
_MASK = ir.VectorType(ir.IntType(1), _LANES)
_ZEROS = ir.Constant(_VECTOR, [0.0] * _LANES)


@intrinsic
def sum_rows(
    typing: Any,
    out: Any,
    at: Any,
    table: Any,
    bias: Any,
    chosen: Any,
    begin: Any,
    end: Any,
    relu: Any,
) -> Any:
    """`out`.flat[at : at + width] = bias + rows `chosen[begin:end]` of `table`, in order.

    `table` float32 [rows, width], `bias` float32 [width], `chosen` int32; all contiguous. With
    `relu` what is below 0 becomes 0.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        into, tab, add, rows = (
            context.make_array(signature.args[k])(context, builder, args[k]) for k in (0, 2, 3, 4)
        )
        width = cgutils.unpack_tuple(builder, tab.shape)[1]
        with _blocks(builder, width) as (block, mask):
            total = cgutils.alloca_once(builder, _VECTOR)
            builder.store(_load(builder, add.data, block, mask), total)
            with _rows(builder, rows.data, args[5], args[6]) as row:
                place = builder.add(builder.mul(row, width), block)
                more = _load(builder, tab.data, place, mask)
                builder.store(builder.fadd(builder.load(total), more), total)
            result = builder.load(total)
            positive = builder.fcmp_ordered(">", result, _ZEROS)
            rectified = builder.select(positive, result, _ZEROS)
            result = builder.select(args[7], rectified, result)
            store(builder, result, into.data, builder.add(args[1], block), mask)
        return context.get_dummy_value()

    at, relu = types.int64, types.boolean
    return types.void(out, at, table, bias, chosen, types.int64, types.int64, relu), codegen


@intrinsic
def spread_row(
    typing: Any,
    grad: Any,
    out: Any,
    at: Any,
    table_grad: Any,
    bias_grad: Any,
    chosen: Any,
    begin: Any,
    end: Any,
    relu: Any,
) -> Any:
    """The backward of `sum_rows`: add `grad`.flat[at : at + width] to each row that was summed.

    `table_grad`, `bias_grad`: like the table and the bias, or an empty one. With `relu` nothing
    passes where `out`, what `sum_rows` gave, is 0.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        given, before, into, biases, rows = (
            context.make_array(signature.args[k])(context, builder, args[k])
            for k in (0, 1, 3, 4, 5)
        )
        width = cgutils.unpack_tuple(builder, into.shape)[1]
        biased = builder.icmp_unsigned("!=", biases.nitems, ir.Constant(_INDEX, 0))
        with _blocks(builder, width) as (block, mask):
            here = builder.add(args[2], block)
            passed = _load(builder, given.data, here, mask)
            positive = builder.fcmp_ordered(">", _load(builder, before.data, here, mask), _ZEROS)
            rectified = builder.select(positive, passed, _ZEROS)
            passed = builder.select(args[8], rectified, passed)
            with builder.if_then(biased):
                _accumulate(builder, passed, biases.data, block, mask)
            with _rows(builder, rows.data, args[6], args[7]) as row:
                place = builder.add(builder.mul(row, width), block)
                _accumulate(builder, passed, into.data, place, mask)
        return context.get_dummy_value()

    at, relu, where = types.int64, types.boolean, types.int64
    return types.void(grad, out, at, table_grad, bias_grad, chosen, where, where, relu), codegen


@contextmanager
def _blocks(builder: ir.IRBuilder, width: Any) -> Iterator[tuple[Any, Any]]:
    """Loop over the blocks of a row: the number of its first lane, and which lanes are inside."""
    zero, lanes = ir.Constant(_INDEX, 0), ir.Constant(_INDEX, _LANES)
    with cgutils.for_range_slice(builder, zero, width, lanes) as (block, _):
        left = builder.trunc(builder.sub(width, block), _INT)
        first = builder.insert_element(ir.Constant(_INTS, ir.Undefined), left, ir.Constant(_INT, 0))
        same = builder.shuffle_vector(first, first, ir.Constant(_INTS, [0] * _LANES))
        yield block, builder.icmp_signed(">", same, ir.Constant(_INTS, list(range(_LANES))))


@contextmanager
def _rows(builder: ir.IRBuilder, chosen: Any, begin: Any, end: Any) -> Iterator[Any]:
    """Loop over the numbers of rows."""
    with cgutils.for_range_slice(builder, begin, end, ir.Constant(_INDEX, 1)) as (k, _):
        yield builder.zext(builder.load(builder.gep(chosen, [k])), _INDEX)


def _load(builder: ir.IRBuilder, data: Any, place: Any, mask: Any) -> Any:
    pointer = builder.gep(data, [place])
    kind = ir.FunctionType(_VECTOR, [pointer.type, _INT, _MASK, _VECTOR])
    name = f"llvm.masked.load.v{_LANES}f32.p0"
    load = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(load, [pointer, ir.Constant(_INT, 4), mask, _ZEROS])


def store(builder: ir.IRBuilder, value: Any, data: Any, place: Any, mask: Any) -> None:
    """Write the lanes of a vector of 16 that `mask` names to `data` from `place` on."""
    pointer = builder.gep(data, [place])
    kind = ir.FunctionType(ir.VoidType(), [_VECTOR, pointer.type, _INT, _MASK])
    name = f"llvm.masked.store.v{_LANES}f32.p0"
    store = cgutils.get_or_insert_function(builder.module, kind, name)
    builder.call(store, [value, pointer, ir.Constant(_INT, 4), mask])


def _accumulate(builder: ir.IRBuilder, value: Any, data: Any, place: Any, mask: Any) -> None:
    total = builder.fadd(_load(builder, data, place, mask), value)
    store(builder, total, data, place, mask)
