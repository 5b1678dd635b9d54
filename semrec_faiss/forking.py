"""Forks: what a child process may still use of what its parent had open.

The threads of DuckDB, FAISS and OpenMP stay with the parent when a process forks. In the child a parallel loop would
wait for them for ever, and letting go of a database or a mapped index would end the process. So before a fork OpenMP
lets its threads go, as it makes new ones when it needs them; and in the child whatever held a library's handles loses
them, without ever letting go of them: asked again, it opens itself anew or refuses.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

from semrec_faiss.errors import UsageError

OWN_THREADS = "semrec-"
"""How the names of threads begin that compute nothing unless they are waited for."""

_OMP_PAUSE_SOFT = 1

_held: WeakSet[HoldsHandles] = WeakSet()
_renewals: list[Callable[[], object]] = []
_to_limit: list[Any] = []

Held = TypeVar("Held", bound="HoldsHandles")
Renewal = TypeVar("Renewal", bound=Callable[[], object])


class HoldsHandles:
    """Base of what holds a library's handles; in a forked child it has no attributes until it is opened anew."""

    def __new__(cls: type[Held], *_: Any, **__: Any) -> Held:
        """Remember the new object for as long as it lives."""
        held = super().__new__(cls)
        _held.add(held)
        return held

    @classmethod
    def opened_anew(cls: type[Held], lost: dict[str, Any]) -> Held:
        """Return an object that a forked child may use in the place of one of its parent's.

        Args:
            lost: the attributes that it had in the parent; those with handles must not be touched.

        Raises:
            UsageError: such an object does not know how.
        """
        raise UsageError(
            f"this {cls.__name__} was opened before the process forked: its threads stayed with the parent",
            fix="open the index in the process that asks it, keep a Recommender, which opens itself anew,"
            " or start processes by spawn",
        )

    def go_on(self) -> None:
        """Begin again what a thread of the parent's did, now that this object is open in the child."""


class _Lost:
    """What an object of a forked child is until it is first asked; a class of its own costs the parent nothing."""

    reopening = threading.RLock()
    kind: type[HoldsHandles]
    go_on: Callable[[], None]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        with _Lost.reopening:
            if "lost" in vars(self):
                self.__dict__ = dict(vars(self.kind.opened_anew(vars(self)["lost"])))
                object.__setattr__(self, "__class__", self.kind)
                self.go_on()
        return getattr(self, name)


def _lose(held: HoldsHandles) -> None:
    """Take an object's attributes, which are kept for ever, and make it one that is asked for none of them."""
    if isinstance(held, _Lost):
        return
    keep_for_ever(vars(held))
    held.__dict__ = {"lost": vars(held)}
    object.__setattr__(held, "__class__", type(type(held).__name__, (_Lost, type(held)), {"kind": type(held)}))


def renewed_after_fork(renew: Renewal) -> Renewal:
    """Have ``renew`` called in every forked child: it drops what is of no use there; also usable as a decorator."""
    _renewals.append(renew)
    return renew


def keep_for_ever(thing: object) -> None:
    """Never let go of ``thing``, not even when the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _loaded(name: str) -> list[Any]:
    """The libraries of this process with ``name`` in their paths."""
    if not sys.platform.startswith("linux"):
        return []
    with contextlib.suppress(OSError):  # no /proc, or a library that was removed from the disk meanwhile
        lines = Path("/proc/self/maps").read_text(errors="replace").splitlines()
        return [ctypes.CDLL(path) for path in sorted({line.split(maxsplit=5)[5] for line in lines if name in line})]
    return []


def _before() -> None:
    """Let the forking thread's OpenMP threads go, and note what a child will have to do with one thread.

    FAISS brings a GNU OpenMP runtime, torch another; LLVM's looks after forks itself. OpenBLAS on top of OpenMP counts
    who multiplies: what another thread has begun never ends in the child, and a second thread would wait for it.
    """
    _to_limit.clear()
    for runtime in _loaded("libgomp"):
        pause = getattr(runtime, "omp_pause_resource_all", None)  # there since GCC 9
        if pause is None or pause(_OMP_PAUSE_SOFT):
            _to_limit.append(runtime.omp_set_num_threads)
    here = threading.current_thread()
    if any(thread is not here and not thread.name.startswith(OWN_THREADS) for thread in threading.enumerate()):
        _to_limit.extend(blas.openblas_set_num_threads for blas in _loaded("libopenblaso"))


def _in_child() -> None:
    _Lost.reopening = threading.RLock()
    for set_number_of_threads in _to_limit:
        set_number_of_threads(1)
    for held in list(_held):
        _lose(held)
    for renew in _renewals:
        renew()
    if sys.version_info < (3, 12):
        _renew_property_locks()


def _renew_property_locks() -> None:
    """Free every cached property of ours: before Python 3.12 all objects of a class share a lock that may be held."""
    ours = [module for name, module in list(sys.modules.items()) if name.startswith("semrec_faiss.")]
    classes = {value for module in ours for value in vars(module).values() if isinstance(value, type)}
    for held in (value for kind in classes for value in vars(kind).values() if isinstance(value, cached_property)):
        held.lock = threading.RLock()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_in_child)
