"""What follows where memory ran out: a block half as large, and a word about it the first time."""

from __future__ import annotations

import warnings

from semrec_faiss.errors import DeviceError
from semrec_faiss.index.hardware.device import first_line


def halved(size: int, place: object, error: BaseException, *, is_first: bool, fix: str) -> int:
    """Return how many queries to search at once after ``size`` of them were too many.

    Args:
        size: queries of the block for which memory ran out.
        place: the device, for messages.
        error: what said so.
        is_first: whether to warn.
        fix: what helps where not even one query fits.

    Raises:
        DeviceError: it was a single query.
    """
    if size <= 1:
        raise DeviceError(
            f"memory on {place} does not suffice for a single query: {first_line(error)}", fix=fix
        ) from error
    if is_first:
        warnings.warn(
            f"memory on {place} ran out at a block of {size} queries; going on with smaller blocks",
            RuntimeWarning,
            stacklevel=5,
        )
    return max(1, size // 2)
