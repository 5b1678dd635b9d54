"""A stand-in for CUDA graphs where there are none: what is recorded is launched anew, with whatever is where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from semrec_faiss.index.fused.block_search import BlockSearch
from semrec_faiss.index.fused.filters.shelves import Shelf
from tests.index.fused.worlds import PLACE

FUSED = "semrec_faiss.index.fused"


class _Card(str):
    """A device that records, though it is none."""

    type = "cuda"


def _replayed(launches: Callable[[], None], _: Any) -> Any:
    launches()
    return SimpleNamespace(replay=launches)


def _not_locked(make: Callable[..., Any]) -> Callable[..., Any]:
    def made_so(*given: Any, **options: Any) -> Any:
        options.pop("pin_memory", None)
        return make(*given, **options)

    return made_so


@contextmanager
def recordings() -> Iterator[None]:
    """Let shelves and searches record in the interpreter, too."""
    if PLACE != "cpu":
        yield
        return
    import torch

    def recording(start: Callable[..., None]) -> Callable[..., None]:
        def started(self: Any, *given: Any) -> None:
            start(self, *given)
            self._device = _Card("cpu")

        return started

    with ExitStack() as patched:
        for name in ("empty", "zeros", "ones", "empty_like"):
            patched.enter_context(mock.patch.object(torch, name, _not_locked(getattr(torch, name))))
        for name in ("batch", "repeating", "filters.shelves"):
            patched.enter_context(mock.patch(f"{FUSED}.{name}.recorded", _replayed))
        for name in ("block_search", "filters.shelves"):  # so that the few searches of an example replay
            patched.enter_context(mock.patch(f"{FUSED}.{name}.RECORDED_AT", 1))
        for kind in (BlockSearch, Shelf):
            patched.enter_context(mock.patch.object(kind, "__init__", recording(kind.__init__)))
        yield
