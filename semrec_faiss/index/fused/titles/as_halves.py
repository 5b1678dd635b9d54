"""Float32 titles that came as float16: found out, and taken back to float16 and one factor each, exactly.

A title that was float16 and then brought to unit length is float16 × factor, rounded to float32 once. Where it was
of unit length but for rounding, as float16 titles mostly are, it is the float16 nearest to each component. Whatever the
factor was, the largest component's float16 had one of 1,024 significands, up to a power of two; the right one makes
float16 of all the others too. Which one it was, ratios of components tell: each is nearly a fraction whose denominator
divides it. The factor is then bounded by every component's rounding, and the middle of what is left gives all
components back. That is checked bit by bit: where it fails, all significands are tried, by a few components and then by
all; where that fails for one title, the titles are no halves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

LEAST_SIGNIFICAND, SIGNIFICANDS_END = 1024, 2048
"""Significands of a float16, as whole numbers."""

LARGEST = 4
"""2^4 × a significand, the largest component of every half: float16 holds 2^-28 of it to all its bits."""

TRIED_BY, TRIED_ON_BY = 8, 32
"""The largest components that a significand is tried by, and that those few are for which so many did not tell."""

PROBED = 16
"""Titles that the processor looks at before others are: a GPU has to load a dozen kernels to tell, for 0.4 s. Of so few
torch makes no work for several threads, which would have to wake."""

TRIED_TOGETHER = 64
"""Titles that all significands are tried for together."""

STILL_WHOLE = 2.0**-9
"""How far from a whole number, in units of its last place, a float32 product may be that stands for one."""

STILL_RATIO = 2.0**-23
"""How far from a ratio of halves, of its size, that of two float32 numbers may be that stand for them."""

FRACTION_STEPS = 16
"""Steps of a continued fraction by which any denominator has reached `SIGNIFICANDS_END`, as Fibonacci numbers do."""

AT_ONCE = 1 << 24
"""Components that are taken back at once: 128 MiB of float64, some eight times. With fewer, launching takes longer."""

Candidates = Callable[[Any, Any], Any]
"""Significands to try for the largest component, float32 (titles or 1, candidates), by the largest components."""


def halves_of(torch: Any, vectors: Any, *, probed: bool = False) -> tuple[Any, Any] | None:
    """Take titles back to what they came as; the first few tell of most titles that they did not come so.

    Args:
        torch: the module.
        vectors: float32 (titles, dim).
        probed: whether others of the catalogue came as float16, so that these are not probed.

    Returns:
        float16 (titles, dim) and float64 (titles,): `exactly` makes the vectors of them, to the bit. None where they
        did not come as float16.
    """
    if not probed:
        few = vectors[:PROBED].cpu()
        if not _fill(torch, few, *_room(torch, few)):
            return None
    halves, factors = _room(torch, vectors)
    step = max(1, AT_ONCE // vectors.shape[1])
    for part in (slice(start, start + step) for start in range(0, len(vectors), step)):
        if not _fill(torch, vectors[part], halves[part], factors[part]):
            return None
    return halves, factors


def seem_halves(torch: Any, vectors: Any) -> bool:
    """Tell by the first few of some titles, float32 (titles, dim), whether they came as float16, as nearly always."""
    return halves_of(torch, torch.from_numpy(np.array(vectors[:PROBED], np.float32))) is not None


def _fill(torch: Any, vectors: Any, halves: Any, factors: Any) -> bool:
    """Fill in ``halves`` and ``factors``; tell whether they give all vectors back."""
    left = _given_back(torch, vectors, vectors.half(), halves, factors)
    if len(left):
        its = _room(torch, vectors[left])
        still_left = left[_take_back(torch, vectors[left], *its, TRIED_BY, _by_ratios)]
        halves[left], factors[left] = its
        left = still_left
    for tried_by in (TRIED_BY, TRIED_ON_BY, vectors.shape[1]):  # a few components alone may fit several significands
        if not len(left):
            break
        still = []
        for some in left.split(TRIED_TOGETHER):
            its = _room(torch, vectors[some])
            still.append(some[_take_back(torch, vectors[some], *its, tried_by, _every)])
            if tried_by == vectors.shape[1] and len(still[-1]):
                return False
            halves[some], factors[some] = its
        left = torch.cat(still)
    return True


def _room(torch: Any, vectors: Any) -> tuple[Any, Any]:
    halves = torch.empty_like(vectors, dtype=torch.float16)
    return halves, torch.empty(len(vectors), dtype=torch.float64, device=vectors.device)


def _take_back(torch: Any, vectors: Any, halves: Any, factors: Any, tried_by: int, candidates: Candidates) -> Any:
    """Fill in ``halves`` and ``factors``; return the positions of the vectors that they do not give back."""
    scaled = vectors * _inverse_factors(torch, vectors, tried_by, candidates)[:, None]
    return _given_back(torch, vectors, scaled, halves, factors)


def _given_back(torch: Any, vectors: Any, scaled: Any, halves: Any, factors: Any) -> Any:
    """Fill in ``scaled``, rounded, and what it has to be multiplied with; see `_take_back`."""
    halves[:] = scaled
    factors[:] = _factors(torch, vectors, halves)
    return (exactly(halves, factors) != vectors).any(dim=1).nonzero()[:, 0]


def exactly(halves: Any, factors: Any) -> Any:
    """Return float32 (titles, dim): halves × factors, rounded once."""
    return (halves.double() * factors[:, None]).float()


def _inverse_factors(torch: Any, vectors: Any, tried_by: int, candidates: Candidates) -> Any:
    """Return what makes float16 of the titles, as far as their largest components tell: float64 (titles,)."""
    largest = vectors.abs().topk(min(tried_by, vectors.shape[1]), dim=1).values
    significands = candidates(torch, largest)
    fits = torch.ones((len(vectors), significands.shape[1]), dtype=torch.bool, device=vectors.device)
    for other in range(1, largest.shape[1]):
        product = significands * (largest[:, other] / largest[:, 0])[:, None]
        product *= torch.exp2(10 - torch.floor(torch.log2(product)))  # NaN of a zero, which fits all
        fits &= ~((product - product.round()).abs() > STILL_WHOLE)
        if other % TRIED_BY == 0 and not fits.any():
            break
    chosen = significands.expand(len(vectors), -1).gather(1, fits.int().argmax(dim=1, keepdim=True))[:, 0]
    return chosen.double() * 2**LARGEST / largest[:, 0].double()


def _every(torch: Any, largest: Any) -> Any:
    return torch.arange(LEAST_SIGNIFICAND, SIGNIFICANDS_END, dtype=torch.float32, device=largest.device)[None]


def _by_ratios(torch: Any, largest: Any) -> Any:
    """Return a significand for each other component: the denominator of its ratio to the largest.

    Mostly the two have no odd factor in common, so that the denominator is the significand up to a power of two. It is
    that of a continued fraction's first convergent that is as near to the ratio as rounding lets it be.
    """
    if largest.shape[1] == 1:  # any will do
        return torch.full_like(largest, LEAST_SIGNIFICAND)
    exact = largest.double()
    ratio = 2 * torch.frexp(exact[:, 1:] / exact[:, :1])[0]  # 1 to 2: powers of two do not matter; or 0, or NaN
    rest, (above, below) = ratio, (torch.ones_like(ratio), torch.zeros_like(ratio))
    before = below, above
    for _ in range(FRACTION_STEPS):
        whole = rest.floor()
        longer = whole * above + before[0], whole * below + before[1]
        goes_on = ((above - ratio * below).abs() > STILL_RATIO * ratio * below) & (longer[1] < SIGNIFICANDS_END)
        before = torch.where(goes_on, above, before[0]), torch.where(goes_on, below, before[1])
        above, below = torch.where(goes_on, longer[0], above), torch.where(goes_on, longer[1], below)
        rest = torch.where(goes_on, 1 / (rest - whole), rest)
    return (2048 * torch.frexp(below)[0]).float()


def _factors(torch: Any, vectors: Any, halves: Any) -> Any:
    """Return the middle of the factors that give every component back, rounded to nearest: float64 (titles,)."""
    size, half = vectors.abs(), halves.abs().double()
    up, down = (torch.nextafter(size, torch.full_like(size, end)).double() for end in (float("inf"), 0.0))
    exact = size.double()
    least = torch.where(half > 0, (exact + down) / (2 * half), 0.0).amax(dim=1)
    most = torch.where(half > 0, (exact + up) / (2 * half), float("inf")).amin(dim=1)
    return (least + most) / 2
