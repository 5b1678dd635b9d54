"""A word about kernels being compiled: whoever asks for the first time on a machine waits for that."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

_compiled = itertools.count()


def tell_of_compiling() -> None:
    """Have the first of our kernels that Triton compiles in this process, and does not find on the disk, warned of.

    Where somebody else listens to Triton already, or it tells nobody, nothing is said.
    """
    from triton import knobs

    if getattr(knobs.compilation, "listener", tell_of_compiling) is None:
        knobs.compilation.listener = _tell


def _tell(*, src: Any, times: Any, cache_hit: bool, **_: Any) -> None:
    """Hear of a kernel from Triton, which says how many microseconds it took."""
    if cache_hit or not str(getattr(getattr(src, "fn", None), "__module__", "")).startswith("semrec_faiss."):
        return
    if next(_compiled) == 0:
        from triton import knobs

        warnings.warn(
            f"Triton compiles the kernels of type fused as they are first used, the first in {times.total / 1e6:.1f} s,"
            f" and keeps them in {knobs.cache.dir}; `semrec warm INDEX` has all of them compiled beforehand",
            RuntimeWarning,
            stacklevel=2,
        )
