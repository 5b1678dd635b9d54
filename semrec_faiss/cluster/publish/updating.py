"""Changes to an index in shards: each shard takes what concerns its titles, and all are published together, last.

As in one piece, new and changed titles go to the end, which is the last shard's, so that rows stay those of an index
built anew. A shard that nothing concerns is listed again as it is.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss._version import __version__
from semrec_faiss.arrays import Rows, Vectors
from semrec_faiss.cluster.connection import OWN, connect
from semrec_faiss.cluster.publish.changing import Work, changed_shards, shard_plan
from semrec_faiss.cluster.publish.dividing import divided_shards, is_to_be_divided
from semrec_faiss.cluster.publish.remains import remove_unlisted
from semrec_faiss.cluster.saved import ShardedSaved, listed_in, opened_front
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation, NewGeneration
from semrec_faiss.index.generations.manifest import GenerationRef
from semrec_faiss.index.generations.shards import SHARDS_LIST, ShardList
from semrec_faiss.index.saved.titles import fields_of, write_fields
from semrec_faiss.index.update.compaction import write_held_users
from semrec_faiss.index.update.plan import Change, Kind, UpdatePlan, planned
from semrec_faiss.index.update.profiles import affected_users, write_affected
from semrec_faiss.index.update.segment import SeenCounts, Written, write_segment
from semrec_faiss.index.update.updating import (
    COMPACT_AT,
    MOST_SEGMENTS,
    ON_CPU,
    UpdateSummary,
    checked,
    counted,
    if_possible,
    manifest_after,
    segments_of,
    summary_of,
)
from semrec_faiss.progress import Progress, silent


def update_shards(
    path: str | Path,
    change: Change,
    *,
    address: str = OWN,
    asks: ShardedSaved | None = None,
    dry_run: bool = False,
    strict: bool = False,
    compact_at: float | None = COMPACT_AT,
    wait: float = 0,
    progress: Progress = silent,
) -> UpdateSummary:
    """Change an index in shards as `update_index` does one in one piece; a reader sees it before or after, whole.

    A shard is built anew by itself once ``compact_at`` of it lies apart, which the last one reaches first. A
    RuntimeWarning says when it has grown far beyond the others, as `ShardList.uneven` does.

    Args:
        path: the index directory, as this machine reads it.
        change: what is to be changed; only this machine reads it.
        address: the cluster; see `connect`.
        asks: the index as it is open already; without it, or where it is not the newest, actors are started.
        dry_run: only count; raises what the update would.
        strict: refuse what names unknown users or titles, instead of counting it.
        compact_at: share of the index, or of a shard, in segments or removed, from which on it is built anew.
        wait: seconds for another process that writes the index to end.
        progress: told how many shards are done.

    Raises:
        UsageError: the index is not in shards; and as `update_index`.
        UnavailableError: there is no cluster, or a shard is lost; the index is as it was.
        SemrecError: as `update_index`.
    """
    directory = IndexDirectory(Path(path).absolute())
    opened_front(directory.path, ON_CPU)  # no index, or not in shards: nothing is locked, nor made
    connect(address)
    if dry_run:
        with _opened(directory, asks) as saved:
            plan = checked(planned(saved, change), strict=strict)
            return counted(saved, plan, strict=strict)
    with directory.writing(wait), _opened(directory, asks) as saved:
        plan = checked(planned(saved, change), strict=strict)
        if plan.is_empty:
            return summary_of(saved.generation, plan, SeenCounts(), 0, is_compacted=False)
        generation, written, size = _publish(directory, saved, plan, strict, compact_at, progress)
        if generation is saved.generation:
            return summary_of(generation, plan, written.seen, size, is_compacted=False)
        anew = None
        if segments_of(generation) >= MOST_SEGMENTS or (
            compact_at is not None and generation.manifest.share_apart > compact_at
        ):
            ref = saved.generation.ref  # a rollback takes back the change, not its being built anew
            front = opened_front(directory.path, ON_CPU)
            anew = if_possible(lambda: _compacted(directory, front, progress, before=ref))
        generation = generation if anew is None else anew
        _tell_uneven(listed_in(generation))
        return summary_of(generation, plan, written.seen, size, is_compacted=anew is not None)


def compact_shards(path: str | Path, *, address: str = OWN, wait: float = 0, progress: Progress = silent) -> Generation:
    """Build every shard anew that updates have touched, and the users; answers stay as they are.

    Where one has grown far beyond the others, and all machines see the storage, titles are divided anew among as many
    shards: see `ShardList.uneven`.

    Args:
        path: the index directory.
        address: the cluster; see `connect`.
        wait: seconds for another process that writes the index to end.
        progress: told how many shards are done.

    Raises:
        SemrecError: as `compact_index` and `update_shards`.
    """
    directory = IndexDirectory(Path(path).absolute())
    opened_front(directory.path, ON_CPU)
    connect(address)
    with directory.writing(wait):
        front = opened_front(directory.path, ON_CPU)
        if front.segments is None and not is_to_be_divided(front.shards.listed):
            return front.generation
        return _compacted(directory, front, progress)


def _tell_uneven(listed: ShardList) -> None:
    if listed.uneven is not None:
        warnings.warn(listed.uneven, RuntimeWarning, stacklevel=3)


@contextlib.contextmanager
def _opened(directory: IndexDirectory, asks: ShardedSaved | None) -> Iterator[ShardedSaved]:
    """Open the index in use, with actors that tell what it holds."""
    if asks is not None and not asks.shards.partial and asks.generation.ref == directory.current_ref():
        yield asks
        return
    saved = opened_front(directory.path, ON_CPU)
    saved.start()
    try:
        yield saved
    finally:
        saved.shards.close()


def _publish(
    directory: IndexDirectory,
    saved: ShardedSaved,
    plan: UpdatePlan,
    strict: bool,
    compact_at: float | None,
    progress: Progress,
) -> tuple[Generation, Written, int]:
    """Have the shards changed, write what the front knows of it, and publish all of it; or leave nothing of it."""
    with _new_generation(directory) as new:
        for name in saved.generation.manifest.files:
            if name != SHARDS_LIST:
                new.link(saved.generation, name)
        before = set(new.files)
        front = replace(plan, lines=())  # the titles themselves go to the shards
        written = write_segment(new, saved, front, f"seg-{new.name[4:]}", strict=strict)
        if plan.titles.is_empty and set(new.files) == before:  # all that was seen since is known already, or of nobody
            return saved.generation, written, 0
        work = _work_of(saved.shards.listed, plan, fields_of(saved.generation))
        listed = changed_shards(directory.path, new.name, saved.shards.listed, work, compact_at, progress)
        _write_list(new, listed)
        manifest = manifest_after(new, saved, plan, [written.segment])
        profile = saved.config.profile
        after = _Staged(Generation.staged(new, manifest), saved, plan.titles)
        if profile is not None and after.users is not None and after.users.has_seen:
            affected = affected_users(saved, after, plan, written)
            if len(affected):
                more = write_affected(new, after, profile, affected, f"{written.segment.name}-users")
                manifest = manifest_after(new, saved, plan, [written.segment, more])
        size = sum(entry.bytes for name, entry in new.files.items() if name not in before)
        return directory.publish(new, manifest), written, size


@contextlib.contextmanager
def _new_generation(directory: IndexDirectory, before: GenerationRef | None = None) -> Iterator[NewGeneration]:
    """Give a generation to write, and remove the shards of one that is not published, or of those that are no more."""
    remove_unlisted(directory.path)  # what an update that was killed has left
    try:
        with directory.new_generation(before) as new:
            yield new
    finally:
        remove_unlisted(directory.path)


def _work_of(listed: ShardList, plan: UpdatePlan, fields: dict[str, str]) -> list[Work | None]:
    """Divide a plan: each shard loses what is removed or changed, and the last one takes what is written."""
    gone = np.sort(np.concatenate([plan.titles.replaced, plan.titles.removed]))
    last = len(listed.shards) - 1
    work: list[Work | None] = []
    for number, shard in enumerate(listed.shards):
        own = gone[(gone >= shard.first) & (gone < shard.first + shard.titles)] - shard.first
        takes = plan.lines if number == last else ()
        if len(own) or takes or fields != plan.fields:
            work.append(Work(_plan_of(plan, own, takes=bool(takes)), shard.titles - len(own) + len(takes)))
        else:
            work.append(None)
    return work


def _plan_of(plan: UpdatePlan, gone: Rows, *, takes: bool) -> UpdatePlan:
    """Return what a shard is to do: lose rows of its own, and take what is written where that is its part."""
    titles = plan.titles
    ids = np.array(titles.ids, dtype=object)[titles.written].tolist() if takes else []
    vectors = titles.vectors if takes else titles.vectors[:0]
    return shard_plan(ids, vectors, plan.lines if takes else (), gone, plan.fields)


def _write_list(new: NewGeneration, listed: ShardList) -> None:
    with new.create(SHARDS_LIST) as file:
        file.write(listed.as_json())


class _Staged(ShardedSaved):
    """The front of a generation that is being written, whose titles' vectors are those before and those that come."""

    def __init__(self, generation: Generation, before: ShardedSaved, titles: Kind) -> None:
        super().__init__(generation, ON_CPU, before.shards)
        self._vectors = _VectorsAfter(before, titles)

    @property
    def vectors(self) -> Any:  # of which only `vectors.vectors` is asked
        return self._vectors


class _VectorsAfter:
    def __init__(self, before: ShardedSaved, titles: Kind) -> None:
        gone = np.concatenate([titles.replaced, titles.removed])
        self._left = np.delete(np.arange(before.shards.count), gone)
        self._before = before
        self._fresh = titles.vectors

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors of rows of the new generation: float32 (rows, dim)."""
        old = rows < len(self._left)
        found = np.empty((len(rows), self._fresh.shape[1]), np.float32)
        found[old] = self._before.vectors.vectors(self._left[rows[old]])
        found[~old] = self._fresh[rows[~old] - len(self._left)]
        return found


def _compacted(
    directory: IndexDirectory, saved: ShardedSaved, progress: Progress, *, before: GenerationRef | None = None
) -> Generation:
    """Build what updates have touched anew, or divide all anew, and publish it; a rollback returns to ``before``."""
    manifest, listed, fields = saved.generation.manifest, saved.shards.listed, fields_of(saved.generation)
    with _new_generation(directory, before) as new:
        if is_to_be_divided(listed):
            fresh = divided_shards(directory.path, new.name, listed, fields, progress)
        else:
            work: list[Work | None] = [Work(None, shard.titles) for shard in listed.shards]
            fresh = changed_shards(directory.path, new.name, listed, work, None, progress)
        _write_list(new, fresh)
        write_held_users(new, saved)
        write_fields(new, fields)
        later = {
            "generation": new.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "semrec_version": __version__,
            "files": new.files,
            "previous": new.previous,
            "before_change": manifest.before_change if before else manifest.last_before_change,
            "segments": None,
        }
        return directory.publish(new, manifest.model_copy(update=later))
