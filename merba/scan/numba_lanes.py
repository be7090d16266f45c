"""SIMD lanes for Numba: values of several float32 numbers, with arithmetic, loads, stores, exp2 and softplus.

Sixteen neighbouring channels are one `Lanes` value (LLVM's <16 x float>: one AVX-512 register, two of AVX2, four of
NEON), four states of them one `Block` (<64 x float>). Kernels written with these don't depend on a compiler's
vectoriser. Arithmetic is IEEE, except that a*b + c may be fused: NaN and infinity are kept.
"""

from __future__ import annotations

import operator
import zlib
from pathlib import Path

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, models, overload, register_model

from merba.compilation import kernel as compiled

LANES, STATES = 16, 4
BLOCK = STATES * LANES
ZERO, ONE, TWO, LOG2E = np.float32(0), np.float32(1), np.float32(2), np.float32(1.4426950408889634)

# Polynomials with the least maximal relative error: 2**r on [-1/2, 1/2], exact at 0 (error 9e-8), so that a state that
# hardly decays is kept over many steps; and log((1 + s)/(1 - s))/s in s² on [0, 1/9] (4e-9).
EXP2 = (1.0, 0.6931470036506653, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957, 0.001326472731307149)
LOG_RATIO = (2.0, 0.66666316986084, 0.400249093770981, 0.2796060144901276, 0.2817833423614502)

# AVX-512 has instructions for a number's fraction and for multiplying with a power of two: half the work of exp2.
# (Not if the user has Numba compile for another processor than this one.)
AVX512 = not (config.CPU_NAME or config.CPU_FEATURES) and get_host_cpu_features().get("avx512dq", False)

_THIS_FILE = zlib.crc32(Path(__file__).read_bytes())


def kernel(function):
    """A kernel made of lanes (see `merba.compilation.kernel`), without fast-math flags."""
    # Numba's cache notices changes in the kernel's own file; by its name, also changes in this one.
    function.__qualname__ += f"_{_THIS_FILE:08x}"
    return compiled()(function)


_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FUSE = ("contract",)


class LanesType(types.Type):
    """Numba's type of some float32 numbers in SIMD registers."""

    def __init__(self, width: int):
        self.width = width
        self.vector = ir.VectorType(_FLOAT, width)
        super().__init__(name=f"Lanes({width})")


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, kind.vector)


Lanes, Block = LanesType(LANES), LanesType(BLOCK)


def _integers(*values: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(_INT, len(values)), [ir.Constant(_INT, value) for value in values])


def _constant(kind, value: float) -> ir.Constant:
    return ir.Constant(kind.vector, [ir.Constant(_FLOAT, float(np.float32(value)))] * kind.width)


def _pick(builder, vector, *lanes: int):
    """A vector of the named lanes of another."""
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), _integers(*lanes))


def _repeat(builder, number, width: int):
    """A vector with one number in every lane."""
    single = builder.insert_element(ir.Constant(ir.VectorType(_FLOAT, 1), ir.Undefined), number, ir.Constant(_INT, 0))
    return _pick(builder, single, *[0] * width)


def _address(context, builder, kind, array, position, width: int):
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [position]), ir.VectorType(_FLOAT, width).as_pointer())


def _loader(result: LanesType, count: int, spread_lanes=None):
    """An intrinsic (array, flat position) that reads `count` numbers and spreads them over lanes as listed."""

    @intrinsic
    def load(typing, array, position):
        def emit(context, builder, signature, args):
            value = builder.load(_address(context, builder, signature.args[0], *args, count), align=4)
            return value if spread_lanes is None else _pick(builder, value, *spread_lanes)

        return result(array, types.intp), emit

    return load


load = _loader(Lanes, LANES)
load_block = _loader(Block, BLOCK)
load_over_states = _loader(Block, LANES, [lane % LANES for lane in range(BLOCK)])  # 16 channels, for each state
load_over_channels = _loader(Block, STATES, [lane // LANES for lane in range(BLOCK)])  # 4 states, for each channel


@intrinsic
def prefetch(typing, array, position):
    """Ask for a cache line that will be needed soon; any position is allowed."""

    def emit(context, builder, signature, args):
        address = builder.bitcast(_address(context, builder, signature.args[0], *args, 1), ir.IntType(8).as_pointer())
        for_reading, second_level, data = (ir.Constant(_INT, value) for value in (0, 2, 1))
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), address, for_reading, second_level, data)
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


@intrinsic
def store(typing, array, position, lanes):
    """Write the lanes to an array from a flat position on."""

    def emit(context, builder, signature, args):
        kind, _, lanes = signature.args
        builder.store(args[2], _address(context, builder, kind, *args[:2], lanes.width), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), emit


@intrinsic
def add_channel_sums(typing, array, position, block):
    """Add a block's sum over channels to four states of an array; halves are added until one lane is left."""

    def emit(context, builder, signature, args):
        value, width = args[2], LANES
        while width > 1:
            low = [state * width + lane for state in range(STATES) for lane in range(width // 2)]
            high = [lane + width // 2 for lane in low]
            value = builder.fadd(_pick(builder, value, *low), _pick(builder, value, *high))
            width //= 2
        address = _address(context, builder, signature.args[0], *args[:2], STATES)
        builder.store(builder.fadd(builder.load(address, align=4), value), address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, Block), emit


@intrinsic
def sum_states(typing, block):
    """Sum of a block's four states, channel by channel."""

    def emit(context, builder, signature, args):
        rows = [_pick(builder, args[0], *range(at, at + LANES)) for at in range(0, BLOCK, LANES)]
        value = rows[0]
        for row in rows[1:]:
            value = builder.fadd(value, row, flags=_FUSE)
        return value

    return Lanes(Block), emit


@intrinsic
def spread(typing, number):
    """A number in each of 16 lanes."""

    def emit(context, builder, signature, args):
        return _repeat(builder, args[0], LANES)

    return Lanes(types.float32), emit


@intrinsic
def zeros(typing):
    """A block of zeros."""

    def emit(context, builder, signature, args):
        return _constant(Block, 0)

    return Block(), emit


def _lane_operator(symbol, instruction: str) -> None:
    """Arithmetic of lanes with lanes of the same width, or with a number on either side."""

    @intrinsic
    def apply(typing, a, b):
        result = a if isinstance(a, LanesType) else b

        def emit(context, builder, signature, args):
            pair = zip(signature.args, args, strict=True)
            a, b = (x if kind == result else _repeat(builder, x, result.width) for kind, x in pair)
            return getattr(builder, instruction)(a, b, flags=_FUSE)

        return result(a, b), emit

    @overload(symbol)
    def _(a, b):
        return (lambda a, b: apply(a, b)) if isinstance(a, LanesType) or isinstance(b, LanesType) else None


for _symbol, _instruction in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv")):
    _lane_operator(getattr(operator, _symbol), _instruction)


@intrinsic
def choose_negative(typing, x, negative, otherwise):
    """Lane by lane: the second argument where the first is below 0, else the third."""

    def emit(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<", args[0], _constant(Lanes, 0)), args[1], args[2])

    return Lanes(Lanes, Lanes, Lanes), emit


def _call(builder, name: str, result, *args):
    """Call one of LLVM's own functions."""
    kind = ir.FunctionType(result, [x.type for x in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _polynomial(builder, x, coefficients):
    """Σ coefficients[i] xⁱ."""
    kind = LanesType(x.type.count)
    value = _constant(kind, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = builder.fadd(builder.fmul(value, x, flags=_FUSE), _constant(kind, coefficient), flags=_FUSE)
    return value


def _exp2_anywhere(builder, x):
    """2**fraction by the polynomial, times 2**integer by a shift into the exponent."""
    kind = LanesType(x.type.count)
    for order, limit in (("<", -126), (">", 128)):  # comparisons with NaN are false: it stays
        x = builder.select(builder.fcmp_ordered(order, x, _constant(kind, limit)), _constant(kind, limit), x)
    rounder = _constant(kind, 1.5 * 2**23)  # adding it leaves the nearest integer in the low bits of the sum
    shifted = builder.fadd(x, rounder)
    fraction = builder.fsub(x, builder.fsub(shifted, rounder))
    power = _polynomial(builder, fraction, [2 * coefficient for coefficient in EXP2])
    bits = builder.bitcast(shifted, ir.VectorType(_INT, kind.width))
    exponent = builder.add(bits, _integers(*[126] * kind.width))  # of 2**(integer - 1), as 2**128 would not fit
    scale = builder.bitcast(builder.shl(exponent, _integers(*[23] * kind.width)), x.type)
    return builder.fmul(power, scale)


def _exp2_avx512(builder, x):
    """The same by the instructions vreduceps and vscalefps, register by register."""
    parts = []
    for start in range(0, x.type.count, 16):
        part = _pick(builder, x, *range(start, start + 16))
        keep = (part, ir.Constant(ir.IntType(16), -1), ir.Constant(_INT, 4))  # all lanes, rounding as it is
        nearest = ir.Constant(_INT, 8)
        fraction = _call(builder, "llvm.x86.avx512.mask.reduce.ps.512", part.type, part, nearest, *keep)
        power, integer = _polynomial(builder, fraction, EXP2), builder.fsub(part, fraction)
        parts.append(_call(builder, "llvm.x86.avx512.mask.scalef.ps.512", part.type, power, integer, *keep))
    while len(parts) > 1:
        lanes = _integers(*range(2 * parts[0].type.count))
        parts = [builder.shuffle_vector(low, high, lanes) for low, high in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _exp2(emitter):
    @intrinsic
    def exp2(typing, lanes):
        """2**x to 1e-7: 0 from about -126 down, infinity from 128, NaN for NaN."""
        return lanes(lanes), lambda context, builder, signature, args: emitter(builder, args[0])

    return exp2


exp2_anywhere = _exp2(_exp2_anywhere)
exp2 = _exp2(_exp2_avx512) if AVX512 else exp2_anywhere


@kernel
def softplus_and_slope(x):
    """log(1 + exp(x)) and its derivative, the sigmoid, without overflow; over 20 exactly x and 1, as in Mamba."""
    minus_size = choose_negative(x, x, ZERO - x)
    e = exp2(minus_size * LOG2E)
    e_1, e_2 = e + ONE, e + TWO
    inverse = ONE / (e_1 * e_2)  # one division for both: divisions are slow
    ratio = e * e_1 * inverse  # e / (2 + e)
    square = ratio * ratio
    series = square * np.float32(LOG_RATIO[4]) + np.float32(LOG_RATIO[3])
    series = series * square + np.float32(LOG_RATIO[2])
    series = series * square + np.float32(LOG_RATIO[1])
    series = series * square + np.float32(LOG_RATIO[0])
    slope = choose_negative(x, e, spread(ONE)) * e_2 * inverse
    return choose_negative(x, spread(ZERO), x) + ratio * series, slope
