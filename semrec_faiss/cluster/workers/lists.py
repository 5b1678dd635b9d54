"""Every user's list by workers of a cluster: a folder of Parquet parts that is there only when it is whole."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Unpack

from semrec_faiss.arguments import flag_of, path_of
from semrec_faiss.arrays import Rows
from semrec_faiss.cluster.connection import OWN, alive_nodes, connect, load_ray
from semrec_faiss.cluster.recommender import ClusterRecommender
from semrec_faiss.cluster.shard import rss_bytes
from semrec_faiss.cluster.starting import A_PLACE
from semrec_faiss.cluster.workers.blocks import done_in_blocks
from semrec_faiss.data.titles.columns import column_of_numbers, column_of_texts
from semrec_faiss.errors import StorageError, UnavailableError, UsageError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.shards import read_shards
from semrec_faiss.index.hardware.device import load_faiss
from semrec_faiss.locks import only_writer
from semrec_faiss.places import check_new_folder
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.export import (
    BLOCK_USERS,
    ExportSummary,
    parts_folder,
    remove_parts,
    settings_of_lists,
    what_lists_depend_on,
)
from semrec_faiss.search.lists_file import MANIFEST
from semrec_faiss.search.recommender import Recommender
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.wish import Wish, WishArguments
from semrec_faiss.storage import move_over, new_file, save_json, sha256_of_file, sync_tree

_COUNTS = b"semrec"


@dataclass(frozen=True)
class Counts:
    """What a part holds: lists of so many users, how many of them are full, and what must not be there."""

    users: int
    users_with_k: int
    repeats: int
    seen_leaks: int | None


class ListMaker:
    """A worker: has the index, or asks its shards, and makes a part of the lists at a time."""

    def __init__(
        self,
        opened: Recommender,
        wish: Wish,
        include_seen: bool,
        profile: Mapping[str, Any] | None,
        cores: int = 1,
    ) -> None:
        """Take an index that travelled here: one of its own from the same path, or the same shards."""
        self._cores = cores
        self._recommender = opened
        self._wish = wish
        self._include_seen = include_seen
        self._profile = profile

    def make(self, first: int, last: int) -> bytes:
        """Return the lists of the users from row ``first`` to ``last`` - 1 as a Parquet file that holds its counts."""
        load_faiss().omp_set_num_threads(self._cores)
        users = np.arange(first, last, dtype=np.int64)
        found, _ = self._recommender.lists_for(
            users, self._wish, include_seen=self._include_seen, profile=self._profile
        )
        return _as_parquet(self._recommender, users, found, self._counts(users, found))

    def rss_bytes(self) -> int:
        """Return the memory of this worker."""
        return rss_bytes()

    def _counts(self, users: Rows, found: TopK) -> Counts:
        index = self._recommender.index
        ordered = np.sort(found.rows, axis=1)
        repeats = int(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).sum())
        seen = None if self._include_seen else self._recommender.seen(users)
        leaks = None if seen is None else int(seen.contain(found.rows, index.count).sum())
        full = int((found.returned >= self._wish.k).sum())
        return Counts(len(users), full, repeats, leaks)


def recommend_all(
    index: str | PathLike[str],
    out: str | PathLike[str],
    k: int = 10,
    *,
    address: str = OWN,
    workers: int | None = None,
    settings: Sequence[str] = (),
    include_seen: bool = False,
    profile: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    **wish: Unpack[WishArguments],
) -> ExportSummary:
    """Write the recommendations of all users to Parquet parts in a folder, made by workers of a cluster.

    An index in shards is asked where these are; of any other every worker opens its own, from the same path. A block
    of users whose worker or machine is lost is done again. An interrupted run leaves its parts beside ``out``, and the
    same call goes on from there.

    Args:
        index: an index directory, in shards or not, that every machine can read.
        out: the folder; replaced when the new one is whole, if it holds such lists.
        k: titles per user.
        address: the cluster; see `connect`.
        workers: how many; one a machine by default.
        settings: search and device settings.
        include_seen: keep titles that a user has seen.
        profile: settings of the profile that differ from those that the index serves.
        progress: told the users done.
        wish: see `Recommender`.

    Raises:
        UsageError: ``out`` is something else, another process writes it, or a setting is out of range.
        NotFoundError: there is no such index, or it holds no users.
        UnavailableError: there is no cluster, or workers are lost again and again.
        StorageError: the disk is full or refuses; ``out`` is as it was.
    """
    wanted = Wish.of(k, **wish)
    flag_of(include_seen, "include_seen")
    place = path_of(out, "out")
    check_new_folder(place, "--out")
    if place.exists() and any(place.iterdir()) and not (place / MANIFEST).is_file():
        raise UsageError(f"{place} is a directory with other content", fix="name a new or empty one as --out")
    connect(address)
    opened = _opened(path_of(index, "the index"), settings)
    try:
        opened.searcher.check(wanted)
        maker = _Run(opened, wanted, include_seen, profile, workers or len(alive_nodes()), progress)
        place.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(place):
            return maker.run(maker.work_folder(place), place)
    except OSError as error:
        raise StorageError(
            f"cannot write {place}: {error.strerror or error}", fix="free space or name another --out"
        ) from error
    finally:
        if isinstance(opened, ClusterRecommender):
            opened.close()


def _opened(index: Path, settings: Sequence[str]) -> Recommender:
    if read_shards(IndexDirectory(index).current()) is None:
        return Recommender.open(index.absolute(), settings)
    return ClusterRecommender.open(index, settings)


class _Run:
    def __init__(
        self,
        opened: Recommender,
        wish: Wish,
        include_seen: bool,
        profile: Mapping[str, Any] | None,
        workers: int,
        progress: Progress,
    ) -> None:
        self._opened = opened
        self._arguments = (wish, include_seen, profile)
        self._workers = self._started = workers
        self._gpus = _gpus_each(opened, workers)
        self._progress = progress
        users = opened.users.count
        self._blocks = [(first, min(first + BLOCK_USERS, users)) for first in range(0, users, BLOCK_USERS)]

    @cached_property
    def _depends(self) -> dict[str, Any]:
        return what_lists_depend_on(self._opened.saved, *self._arguments)

    def work_folder(self, out: Path) -> Path:
        """Make the folder of finished parts, named by everything they depend on; parts stay after an error."""
        return parts_folder(out, self._depends)

    def run(self, work: Path, out: Path) -> ExportSummary:
        """Make every part that is not there, and put the folder in its place."""
        counts = {block: held for block in self._blocks if (held := _counts_of(_part(work, block))) is not None}
        resumed = sum(held.users for held in counts.values())
        left = [block for block in self._blocks if block not in counts]
        done, users = resumed, self._opened.users.count
        self._started = min(self._workers, len(left))
        for block, content in done_in_blocks(self._start, self._started, "make", left):
            with new_file(_part(work, block)) as file:
                file.write(content)
            counts[block] = _must_hold(_part(work, block))
            done += counts[block].users
            self._progress("recommending", done, users)
        summary = self._summary(work, counts, resumed)
        parts = [_part(work, block) for block in self._blocks]
        files = {part.name: {"bytes": part.stat().st_size, "sha256": sha256_of_file(part)} for part in parts}
        save_json(
            work / MANIFEST,
            {
                "format": 1,
                "made": settings_of_lists(self._opened.saved, self._depends),
                "summary": summary.as_dict(),
                "files": files,
            },
            indent=1,
        )
        sync_tree(work)
        move_over(work, out)
        remove_parts(out)
        return summary

    def _start(self, number: int) -> Any:
        ray = load_ray()
        there = ray.cluster_resources()
        if there.get("GPU", 0) < self._gpus * self._started:  # Ray would wait for another one for ever
            raise UnavailableError(
                f"{self._started} workers need a GPU each, and the cluster has {there.get('GPU', 0):g} now",
                fix="give the same command: what is done is kept, and it takes as many workers as there are machines",
            )
        cores = max(1, int(there.get("CPU", 1) / self._workers))
        maker = ray.remote(ListMaker).options(num_cpus=A_PLACE, num_gpus=self._gpus, scheduling_strategy="SPREAD")
        return maker.remote(self._opened, *self._arguments, cores)

    def _summary(self, work: Path, counts: Mapping[Any, Counts], resumed: int) -> ExportSummary:
        import pyarrow.parquet as pq

        distinct: set[str] = set()
        for block in self._blocks:
            titles = pq.read_table(_part(work, block), columns=["media_id"])["media_id"]
            distinct.update(titles.unique().to_pylist())
        leaks = [held.seen_leaks for held in counts.values()]
        full = sum(held.users_with_k for held in counts.values())
        users = self._opened.users.count
        return ExportSummary(
            users=users,
            users_with_k=full,
            users_short=users - full,
            titles_recommended=len(distinct),
            titles=self._opened.index.count,
            repeats=sum(held.repeats for held in counts.values()),
            seen_leaks=None if None in leaks else sum(leak for leak in leaks if leak is not None),
            resumed_users=resumed,
        )


def _gpus_each(opened: Recommender, workers: int) -> int:
    """Return 1 where workers open an index that is searched on one GPU, and there is a free one for each of them."""
    if isinstance(opened, ClusterRecommender) or opened.index.device.gpus != (0,):
        return 0
    return int(load_ray().available_resources().get("GPU", 0) >= workers)


def _part(work: Path, block: tuple[int, int]) -> Path:
    return work / f"users-{block[0]:010d}.parquet"


def _must_hold(part: Path) -> Counts:
    counts = _counts_of(part)
    if counts is None:
        raise StorageError(f"{part} is not as it was written", fix="look after the disk, and run the command again")
    return counts


def _counts_of(part: Path) -> Counts | None:
    """Return the counts that a part holds; None for one that is not there, or not whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        held = pq.ParquetFile(part, page_checksum_verification=True)
        held.read()
        return Counts(**json.loads(held.schema_arrow.metadata[_COUNTS]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def _as_parquet(recommender: Recommender, users: Rows, found: TopK, counts: Counts) -> bytes:
    """Return user_id, rank, media_id, title and score of each title of each user."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = found.rows >= 0
    distinct, at = np.unique(found.rows[kept], return_inverse=True)
    titles = recommender.titles.columns(distinct).select(["media_id", "title"]).take(column_of_numbers(at.reshape(-1)))
    ids = column_of_texts([recommender.users.ids[user] for user in users.tolist()])
    ranks = np.broadcast_to(np.arange(1, found.rows.shape[1] + 1, dtype=np.int32), found.rows.shape)
    columns = {
        "user_id": ids.take(column_of_numbers(np.repeat(np.arange(len(users)), kept.sum(axis=1)))),
        "rank": column_of_numbers(ranks[kept]),
        "media_id": titles["media_id"].cast(pa.string()),
        "title": titles["title"].cast(pa.string()),
        "score": column_of_numbers(found.scores[kept]),
    }
    table = pa.table(columns).replace_schema_metadata({_COUNTS: json.dumps(asdict(counts))})
    written = io.BytesIO()
    pq.write_table(table, written, compression="zstd", write_page_checksum=True)
    return written.getvalue()
