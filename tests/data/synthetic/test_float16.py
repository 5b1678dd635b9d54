"""float32 to float16 by the bits, against numpy's own cast."""

from __future__ import annotations

import numpy as np
import pytest

from semrec_faiss.data.synthetic.float16 import store_as_float16


def stored(values: np.ndarray) -> np.ndarray:
    out = np.full(values.shape, np.nan, np.float16)
    store_as_float16(values.copy(), out, np.empty_like(values))
    return out


@pytest.mark.parametrize("sign", [1, -1])
def test_every_float16_up_to_1_its_neighbours_and_the_ties_between(sign: int) -> None:
    halves = np.arange(0x3C01, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (halves[:-1] + halves[1:]) / 2
    near = [np.nextafter(ties, np.float32(end)) for end in (0, 1)]
    for unsigned in (halves, ties, *near):
        values = (sign * unsigned).reshape(-1, 1)
        np.testing.assert_array_equal(stored(values).view(np.uint16), values.astype(np.float16).view(np.uint16))


def test_any_bits_up_to_1() -> None:
    bits = np.random.default_rng(5).integers(0, 0x3F800001, (1000, 300), dtype=np.uint32)
    bits |= np.random.default_rng(6).integers(0, 2, bits.shape, dtype=np.uint32) << np.uint32(31)
    values = bits.view(np.float32)
    np.testing.assert_array_equal(stored(values).view(np.uint16), values.astype(np.float16).view(np.uint16))


def test_where_no_value_is_tiny_none_is_looked_for() -> None:
    bits = np.random.default_rng(7).integers(0x38800000, 0x3F800001, (400, 300), dtype=np.uint32)  # 2^-14 to 1
    bits |= np.random.default_rng(8).integers(0, 2, bits.shape, dtype=np.uint32) << np.uint32(31)
    values = bits.view(np.float32)
    values[0, :2] = 2.0**-14, -(2.0**-14)
    out = np.full(values.shape, np.nan, np.float16)
    store_as_float16(values.copy(), out, np.empty_like(values), least=2.0**-14)
    np.testing.assert_array_equal(out.view(np.uint16), values.astype(np.float16).view(np.uint16))
