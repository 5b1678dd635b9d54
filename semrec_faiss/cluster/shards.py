"""The actors of an index's shards: asked together, another replica where one is lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.arrays import Rows
from semrec_faiss.cluster.connection import left_by_proxy, load_ray, told_as_ours
from semrec_faiss.cluster.head import LOOK_SECONDS, SILENT_SECONDS, HeadWatch
from semrec_faiss.cluster.shard import About
from semrec_faiss.deadline import TooLateError, time_left
from semrec_faiss.errors import UnavailableError
from semrec_faiss.index.generations.shards import ShardList

OPEN_SECONDS = 180.0
"""How long a shard may take to find a place and to be opened."""

PATIENCE_SECONDS = 30.0
"""How long a question waits for a shard that is lost: its actor is started anew elsewhere meanwhile."""

SHARE_OF_TIME_LEFT = 0.8
"""Of the time until an answer is due: so much is waited for a lost shard, and what is left suffices to say so."""

RETRY_SECONDS = 0.1

STATE_SECONDS = 0.5
"""How long a look at the shards waits for one that answered at the last: probes of `/readyz` often wait a second."""

LOST_FIX = "`ray status` tells which machines are there; with --replicas 2 another one answers for it"

LEAST_PUT = 100_000
"""Arguments from so many bytes on are sent to each machine once."""


@dataclass
class OpenShards:
    """The shards of an open index; travels to other processes of the cluster, which then ask the same actors.

    Attributes:
        index: the index directory.
        listed: the shards.
        replicas: the actors of each shard; any one answers for it.
        patience_s: how long a question waits for a shard that is lost.
        partial: whether it is answered without that shard then.
        wanted: how many actors each shard is to have.
        held: what the actors need for as long as they are asked; stays in this process.
        head: looks at the head of their cluster; stays in this process.
    """

    index: Path
    listed: ShardList
    replicas: list[list[Any]]
    patience_s: float = PATIENCE_SECONDS
    partial: bool = False
    wanted: int = 1
    held: tuple[object, ...] = ()
    head: HeadWatch | None = None
    _preferred: dict[int, int] = field(default_factory=dict)
    _lost: dict[int, Any] = field(default_factory=dict)  # each with a ping, or None: once that answers, it is back
    _late: dict[tuple[int, int], Any] = field(default_factory=dict)  # pings of `states`, by shard and replica

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"held": (), "head": None, "_lost": dict.fromkeys(self._lost), "_late": {}}

    def __len__(self) -> int:
        return len(self.listed.shards)

    def unopened(self, listed: ShardList) -> OpenShards:
        """Return shards that are asked in the same way, without actors yet."""
        return OpenShards(self.index, listed, [], self.patience_s, self.partial, self.wanted)

    @property
    def count(self) -> int:
        """How many titles all shards have."""
        return self.listed.count

    def opened(self) -> list[About]:
        """Wait until every shard is open, and return what they say; raises what opening one raises."""
        try:
            return list(self._ask(dict.fromkeys(range(len(self)), ()), "about", OPEN_SECONDS).values())
        except UnavailableError as error:
            if self._silent_head() is not None:
                raise
            free = load_ray().available_resources()
            room = ", ".join(f"{free.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))
            raise UnavailableError(f"{error.message}; free in the cluster are {room}", fix=error.fix) from error

    def shards_of(self, rows: Rows) -> Rows:
        """Return the shard that each row lies in: int64 (rows,)."""
        return np.searchsorted(self.listed.starts, rows, side="right") - 1

    def ask(self, shard: int, method: str, *arguments: Any) -> Any:
        """Ask one shard; raises UnavailableError where it is lost."""
        found = self._ask({shard: arguments}, method, self.patience_s)
        if shard not in found:
            raise self._lost_one(shard, "is lost")
        return found[shard]

    def ask_all(self, method: str, *arguments: Any) -> dict[int, Any]:
        """Ask every shard the same; where partial answers are wanted, lost ones are left out."""
        return self.ask_each(method, dict.fromkeys(range(len(self)), arguments))

    def ask_each(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Ask shards, each with arguments of its own."""
        return self._ask(arguments, method, self.patience_s)

    def ask_by_row(self, method: str, rows: Rows) -> list[tuple[Rows, Any]]:
        """Ask each shard for rows of its own; return the positions in ``rows`` and the answer of each."""
        shards = self.shards_of(rows)
        at = {shard: np.flatnonzero(shards == shard) for shard in np.unique(shards).tolist()}
        found = self._ask({shard: (rows[own],) for shard, own in at.items()}, method, self.patience_s)
        lost = sorted(at.keys() - found.keys())
        if lost:
            raise self._lost_one(lost[0], "is lost")
        return [(own, found[shard]) for shard, own in at.items()]

    def states(self, patience_s: float = STATE_SECONDS) -> list[dict[str, Any]]:
        """Say of each shard which titles it has, and how many of its actors answer.

        Args:
            patience_s: how long is waited for their answers; for an actor that was late the last time only until it
                has answered that, so that one which is lost costs this time once.
        """
        ray = load_ray()
        late, pings = dict(self._late), {}
        for shard, replicas in enumerate(self.replicas):
            for place, actor in enumerate(replicas):
                before = late.get((shard, place))
                is_late = before is not None and not _is_over(ray, before)
                pings[shard, place] = before if is_late else actor.ping.remote()
        waited = [ping for ping in pings.values() if ping not in late.values()]
        if waited:
            ray.wait(waited, num_returns=len(waited), timeout=patience_s)
        over = {at for at, ping in pings.items() if _is_over(ray, ping)}
        self._late = {at: ping for at, ping in pings.items() if at not in over}
        fine = {at for at in over if _is_fine(ray, pings[at])}
        return [
            {
                "shard": number,
                "first": shard.first,
                "titles": shard.titles,
                "replicas": len(self.replicas[number]),
                "answering": sum((number, place) in fine for place in range(len(self.replicas[number]))),
            }
            for number, shard in enumerate(self.listed.shards)
        ]

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Wait inside as long as for opening: what shards are asked for the first time takes them longer."""
        usual, self.patience_s = self.patience_s, OPEN_SECONDS
        try:
            yield
        finally:
            self.patience_s = usual

    def lose(self, shard: int) -> None:
        """Take a shard for lost until it answers a ping: where partial answers are wanted, it is not waited for."""
        ping = self._lost.get(shard)
        if self.replicas and (ping is None or _is_over(load_ray(), ping)):  # one on its way is not overtaken for ever
            ping = self._call(shard, "ping", ())
        self._lost[shard] = ping

    def share_of(self, shards: Iterable[int]) -> float:
        """Return the share of all titles that some shards have."""
        return sum(self.listed.shards[shard].titles for shard in shards) / self.count

    def lost_one(self) -> UnavailableError:
        """Return the error for a question that a shard which is lost may know the answer to."""
        return self._lost_one(min(self._lost, default=0), "is lost")

    def close(self) -> None:
        """End the actors; without a head they end with their cluster."""
        ray = load_ray()
        there = self.head is None or self.head.look()
        for actor in (actor for replicas in self.replicas for actor in replicas) if there else ():
            ray.kill(actor, no_restart=True)
        self.held = ()

    def _ask(self, arguments: Mapping[int, tuple[Any, ...]], method: str, patience_s: float) -> dict[int, Any]:
        ray = load_ray()
        if self.head is not None:
            self.head.check()
        elif not ray.is_initialized():
            raise left_by_proxy()
        answers: dict[int, Any] = {}
        late: TooLateError | None = None
        with told_as_ours():
            sent = _sent_once(ray, arguments)
            asked = {shard: self._call(shard, method, given) for shard, given in sent.items()}
            lost = {shard for shard in sent if self._is_lost(ray, shard)}
            for shard in sorted(asked, key=lost.__contains__) if self.partial else asked:
                if self.partial and shard in lost:  # they have had the time of those that are there
                    patience_s = 0.0 if answers else min(patience_s, RETRY_SECONDS)
                question = (method, sent[shard])
                try:
                    answers[shard] = self._answer(ray, shard, asked[shard], question, patience_s, is_lost=shard in lost)
                    self._lost.pop(shard, None)
                except UnavailableError:
                    self.lose(shard)
                    if not self.partial:
                        raise
                    patience_s = min(patience_s, RETRY_SECONDS)  # the others were waited for meanwhile
                except TooLateError as error:
                    late = error
                    if not self.partial:
                        raise
        if not answers:
            raise late or self._lost_one(min(arguments), "is lost, and so are all others")
        return {shard: answers[shard] for shard in sent if shard in answers}

    def _call(self, shard: int, method: str, arguments: tuple[Any, ...]) -> Any:
        replicas = self.replicas[shard]
        return getattr(replicas[self._preferred.get(shard, 0) % len(replicas)], method).remote(*arguments)

    def _answer(
        self,
        ray: Any,
        shard: int,
        reference: Any,
        question: tuple[str, tuple[Any, ...]],
        patience_s: float,
        *,
        is_lost: bool,
    ) -> Any:
        """Wait for an answer; where its actor is lost, ask the other replicas and, when it is there again, itself."""
        due_s = time_left()
        is_hurried = due_s is not None and SHARE_OF_TIME_LEFT * due_s < patience_s
        if due_s is not None and is_hurried:
            patience_s = max(0.0, SHARE_OF_TIME_LEFT * due_s)
        ends = time.monotonic() + patience_s
        tried = 1
        while True:
            left = ends - time.monotonic()
            try:
                return self._got(ray, reference, max(0.0, left / len(self.replicas[shard])))
            except ray.exceptions.RayTaskError:
                raise
            except ray.exceptions.RayError as error:
                is_lost |= not isinstance(error, ray.exceptions.GetTimeoutError)
                self._preferred[shard] = self._preferred.get(shard, 0) + 1
                if time.monotonic() >= ends:
                    told = f"did not answer within {patience_s:.3g} s"
                    if is_hurried and not is_lost:  # it may only take longer than the caller waits
                        raise TooLateError(f"{named(self.listed, shard)} {told}") from error
                    raise self._lost_one(shard, told) from error
            if tried % len(self.replicas[shard]) == 0:
                time.sleep(min(RETRY_SECONDS, max(0.0, ends - time.monotonic())))
            tried += 1
            reference = self._call(shard, *question)

    def _got(self, ray: Any, reference: Any, patience_s: float) -> Any:
        """Wait for a result, and for nothing once the head of the cluster is lost: no actor is started anew then."""
        while self.head is not None and patience_s > LOOK_SECONDS:
            if ray.wait([reference], timeout=LOOK_SECONDS)[0]:
                break
            self.head.check()
            patience_s -= LOOK_SECONDS
        return ray.get(reference, timeout=patience_s)

    def _is_lost(self, ray: Any, shard: int) -> bool:
        """Tell whether a shard that did not answer in time still answers no ping: it may just have taken longer."""
        try:
            ping = self._lost[shard]
        except KeyError:
            return False
        if ping is not None and _is_over(ray, ping) and _is_fine(ray, ping):
            self._lost.pop(shard, None)
            return False
        self.lose(shard)
        return True

    def _lost_one(self, shard: int, what: str) -> UnavailableError:
        return self._silent_head() or UnavailableError(f"{named(self.listed, shard)} {what}", fix=LOST_FIX)

    def _silent_head(self) -> UnavailableError | None:
        return None if self.head is None else self.head.error(SILENT_SECONDS)


def named(listed: ShardList, shard: int) -> str:
    """Return what messages call a shard: which it is, its titles, and the machines whose disks hold it."""
    one = listed.shards[shard]
    nodes = [place.node for place in one.places if place.node is not None]
    where = f", on {' and '.join(nodes)}" if nodes else ""
    return f"shard {shard} of {len(listed.shards)} (titles {one.first:,} to {one.first + one.titles - 1:,}{where})"


def _is_over(ray: Any, ping: Any) -> bool:
    return bool(ray.wait([ping], timeout=0)[0])


def _is_fine(ray: Any, ping: Any) -> bool:
    try:
        ray.get(ping)
    except ray.exceptions.RayError:
        return False
    return True


def _sent_once(ray: Any, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, tuple[Any, ...]]:
    """Put large arrays that several shards are given where each machine takes them once."""
    put: dict[int, Any] = {}
    for given in arguments.values():
        for one in given:
            if isinstance(one, np.ndarray) and one.nbytes >= LEAST_PUT and id(one) not in put:
                put[id(one)] = ray.put(one)
    if not put:
        return dict(arguments)
    return {shard: tuple(put.get(id(one), one) for one in given) for shard, given in arguments.items()}
