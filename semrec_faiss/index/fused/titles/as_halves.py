"""Float32 titles that came as float16: found out, and taken back to float16 and one factor each, exactly.

A title that was float16 and then brought to unit length is float16 × factor, rounded to float32 once. Whatever the
factor was, the largest component's float16 had one of 1,024 significands, up to a power of two; the right one makes
float16 of all the others too. The factor is then bounded by every component's rounding, and the middle of what is left
gives all components back. That is checked bit by bit: where it fails for one title, the titles are no halves.
"""

from __future__ import annotations

from typing import Any

SIGNIFICANDS = range(1024, 2048)
"""Of a float16, as whole numbers."""

LARGEST = 4
"""2^4 × a significand, the largest component of every half: float16 holds 2^-28 of it to all its bits."""

TRIED_BY = 8
"""The largest components that a significand is tried by."""

PROBED = 64
"""Titles that are tried by all their components before others are: float32 ones fail here."""

STILL_WHOLE = 2.0**-9
"""How far from a whole number, in units of its last place, a float32 product may be that stands for one."""

AT_ONCE = 8192
"""Titles whose significands are tried at once: 32 MiB for each array of them."""


def halves_of(torch: Any, vectors: Any) -> tuple[Any, Any] | None:
    """Take titles back to what they came as.

    Args:
        torch: the module.
        vectors: float32 (titles, dim).

    Returns:
        float16 (titles, dim) and float64 (titles,): `exactly` makes the vectors of them, to the bit. None where they
        did not come as float16.
    """
    halves = torch.empty_like(vectors, dtype=torch.float16)
    factors = torch.empty(len(vectors), dtype=torch.float64, device=vectors.device)
    for part in (slice(start, start + AT_ONCE) for start in range(0, len(vectors), AT_ONCE)):
        left = _take_back(torch, vectors[part], halves[part], factors[part], TRIED_BY)
        for some in (left[:PROBED], left[PROBED:]):  # whose largest components alone fit several significands
            again = vectors[part][some]
            its = torch.empty_like(again, dtype=torch.float16), torch.empty_like(factors[part][some])
            if len(some) and len(_take_back(torch, again, *its, vectors.shape[1])):
                return None
            halves[part][some], factors[part][some] = its
    return halves, factors


def _take_back(torch: Any, vectors: Any, halves: Any, factors: Any, tried_by: int) -> Any:
    """Fill in ``halves`` and ``factors``; return the positions of the vectors that they do not give back."""
    halves[:] = vectors * _inverse_factors(torch, vectors, tried_by)[:, None]
    factors[:] = _factors(torch, vectors, halves)
    return (exactly(halves, factors) != vectors).any(dim=1).nonzero()[:, 0]


def exactly(halves: Any, factors: Any) -> Any:
    """Return float32 (titles, dim): halves × factors, rounded once."""
    return (halves.double() * factors[:, None]).float()


def _inverse_factors(torch: Any, vectors: Any, tried_by: int) -> Any:
    """Return what makes float16 of the titles, as far as their largest components tell: float64 (titles,)."""
    largest = vectors.abs().topk(min(tried_by, vectors.shape[1]), dim=1).values
    significands = torch.arange(SIGNIFICANDS.start, SIGNIFICANDS.stop, dtype=torch.float32, device=vectors.device)
    fits = torch.ones((len(vectors), len(SIGNIFICANDS)), dtype=torch.bool, device=vectors.device)
    for other in range(1, largest.shape[1]):
        product = significands * (largest[:, other] / largest[:, 0])[:, None]
        product *= torch.exp2(10 - torch.floor(torch.log2(product)))  # NaN of a zero, which fits all
        fits &= ~((product - product.round()).abs() > STILL_WHOLE)
    return significands[fits.int().argmax(dim=1)].double() * 2**LARGEST / largest[:, 0].double()


def _factors(torch: Any, vectors: Any, halves: Any) -> Any:
    """Return the middle of the factors that give every component back, rounded to nearest: float64 (titles,)."""
    size, half = vectors.abs(), halves.abs().double()
    up, down = (torch.nextafter(size, torch.full_like(size, end)).double() for end in (float("inf"), 0.0))
    exact = size.double()
    least = torch.where(half > 0, (exact + down) / (2 * half), 0.0).amax(dim=1)
    most = torch.where(half > 0, (exact + up) / (2 * half), float("inf")).amin(dim=1)
    return (least + most) / 2
