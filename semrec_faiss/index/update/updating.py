"""Changes to an index in place: each becomes a generation that shares with the one before what has not changed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from semrec_faiss._version import __version__
from semrec_faiss.arguments import number_from, path_of
from semrec_faiss.errors import SemrecError, UsageError
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.generations.generation import Generation, NewGeneration
from semrec_faiss.index.generations.manifest import Manifest, Segment, Segments
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.index.update.compaction import compacted
from semrec_faiss.index.update.plan import Change, Kind, UpdatePlan, planned
from semrec_faiss.index.update.profiles import affected_users, write_affected
from semrec_faiss.index.update.segment import SeenCounts, Written, counted_seen, write_segment
from semrec_faiss.progress import Progress, silent

COMPACT_AT = 0.1
"""Share of an index in segments, or removed from its base, from which on it is built anew."""

MOST_SEGMENTS = 32
"""So many segments are compacted before the next one is written: each is several open files."""

ON_CPU = ("device.kind=cpu",)


@dataclass(frozen=True)
class Counts:
    """What an update did to titles, or to users."""

    new: int
    changed: int
    unchanged: int
    removed: int
    unknown: int

    @classmethod
    def of(cls, kind: Kind) -> Counts:
        """Count a plan."""
        return cls(kind.new, kind.changed, kind.unchanged, len(kind.removed), len(kind.unknown))


@dataclass(frozen=True)
class UpdateSummary:
    """What an update did.

    Attributes:
        generation: the one in use now.
        titles: to the titles; ``unknown`` were to be removed and are not there.
        users: to the users.
        seen: what users have seen that was added, each title of a user once.
        seen_known: what the index knew already.
        seen_ignored: rows of it that name unknown users or titles.
        title_count: titles afterwards.
        user_count: users afterwards.
        segments: updates since the last build, as far as they are kept apart.
        bytes_written: of new files, that were not there before.
        compacted: whether the index was built anew, too.
        brought: fields that no title had before.
        emptied: by field, the changed titles that had a value of it and have none: their records left it out.
    """

    generation: str
    titles: Counts
    users: Counts
    seen: int
    seen_known: int
    seen_ignored: int
    title_count: int
    user_count: int
    segments: int
    bytes_written: int
    compacted: bool
    brought: tuple[str, ...]
    emptied: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def update_index(
    path: str | Path,
    change: Change,
    *,
    dry_run: bool = False,
    strict: bool = False,
    compact_at: float | None = COMPACT_AT,
    wait: float = 0,
    progress: Progress = silent,
) -> UpdateSummary:
    """Change an index: new and changed titles and users go to its end, in the folder's order; removed ones are gone.

    A reader sees the index before or after, whole. What users have seen of a title goes with it when it changes; of one
    that is removed it no longer counts, until the title comes back. Where nothing changes, no generation is made. Where
    building anew was due and fails, the change is published all the same, and a RuntimeWarning says why.

    Args:
        path: the index directory.
        change: what is to be changed.
        dry_run: only count; raises what the update would.
        strict: refuse what names unknown users or titles, instead of counting it.
        compact_at: share of the index in segments, or removed, from which on it is rebuilt; None never does.
        wait: seconds for another process that writes the index to end.
        progress: told the steps of a rebuild.

    Raises:
        NotFoundError: no index, or no folder.
        DataError: the folder is inconsistent, or does not fit the index.
        UsageError: another process is still writing the index, which the message names; the change is impossible; or an
            argument has another type or is out of range.
        DamagedIndexError: the index is not as it was written.
        StorageError: the disk is full or refuses; the index is as it was.

    Example:
        >>> import shutil
        >>> index = shutil.copytree("indexes/demo", "indexes/own", dirs_exist_ok=True)
        >>> from semrec_faiss import Change, update_index
        >>> done = update_index(index, Change(remove_titles=["film_0001"]))
        >>> done.titles.removed, done.title_count
        (1, 1518)
    """
    if not isinstance(change, Change):
        raise UsageError(f"the change is {type(change).__name__}", fix="give a Change: Change(folder, where=…)")
    wait = number_from(wait, "wait", 0)
    compact_at = None if compact_at is None else number_from(compact_at, "compact_at", 0, 1)
    directory = IndexDirectory(path_of(path, "the index"))
    directory.current()  # no index: nothing is locked, nor made
    if dry_run:
        saved = SavedIndex(path, ON_CPU)
        plan = checked(planned(saved, change), strict=strict)
        return counted(saved, plan, strict=strict)
    with directory.writing(wait):
        saved = SavedIndex(path, ON_CPU)
        plan = checked(planned(saved, change), strict=strict)
        if plan.is_empty:
            return summary_of(saved.generation, plan, SeenCounts(), 0, is_compacted=False)
        return apply_plan(directory, saved, plan, strict=strict, compact_at=compact_at, progress=progress)


def counted(saved: SavedIndex, plan: UpdatePlan, *, strict: bool) -> UpdateSummary:
    """Say what a plan comes to, and do nothing; raises what doing it would."""
    seen = counted_seen(saved, plan, strict=strict)
    return summary_of(saved.generation, plan, seen, 0, is_compacted=False, titles=count_after(saved, plan))


def apply_plan(
    directory: IndexDirectory,
    saved: SavedIndex,
    plan: UpdatePlan,
    *,
    strict: bool = False,
    compact_at: float | None = COMPACT_AT,
    progress: Progress = silent,
) -> UpdateSummary:
    """Do what was planned for ``saved``, the generation in use; hold `writing` around it; see `update_index`."""
    anew = None
    if segments_of(saved.generation) >= MOST_SEGMENTS:  # rows stay as they are planned for
        anew = if_possible(lambda: compacted(directory, saved, progress))
    before = saved if anew is None else SavedIndex.of(anew, ON_CPU)
    generation, written, size = _publish(directory, before, plan, strict=strict)
    again = None
    is_changed = generation is not before.generation
    if is_changed and compact_at is not None and generation.manifest.share_apart > compact_at:
        ref = before.generation.ref  # a rollback takes back the change, not its being built anew
        again = if_possible(lambda: compacted(directory, SavedIndex.of(generation, ON_CPU), progress, before=ref))
    is_compacted = anew is not None or again is not None
    generation = generation if again is None else again
    return summary_of(generation, plan, written.seen, size, is_compacted=is_compacted)


def if_possible(compact: Callable[[], Generation]) -> Generation | None:
    """Build anew what was, or will be, changed all the same; None, and a RuntimeWarning, where that fails.

    Too few titles are left for its inverted lists, the GPU that it was built on is missing, the disk is full.
    """
    try:
        return compact()
    except SemrecError as error:
        warnings.warn(
            f"the index could not be built anew, which is due, and is changed without: {error}",
            RuntimeWarning,
            stacklevel=4,
        )
        return None


def compact_index(path: str | Path, progress: Progress = silent, *, wait: float = 0) -> Generation:
    """Rebuild an index from what it holds, in its order; where it has no segments, do nothing.

    Args:
        path: the index directory.
        progress: told the steps.
        wait: seconds for another process that writes the index to end.

    Raises:
        NotFoundError: there is no index.
        UsageError: another process is still writing it; the message names it.
        DamagedIndexError: it is not as it was written.
        DeviceError: the GPU that it is built on cannot do it.
        StorageError: the disk is full or refuses; the index is as it was.

    Example:
        >>> import shutil
        >>> index = shutil.copytree("indexes/demo", "indexes/own", dirs_exist_ok=True)
        >>> from semrec_faiss import Change, compact_index, update_index
        >>> update_index(index, Change(remove_titles=["film_0001"])).segments
        1
        >>> compact_index(index).manifest.segments is None
        True
    """
    directory = IndexDirectory(path_of(path, "the index"))
    directory.current()
    with directory.writing(number_from(wait, "wait", 0)):
        saved = SavedIndex(path, ON_CPU)
        return saved.generation if saved.segments is None else compacted(directory, saved, progress)


def checked(plan: UpdatePlan, *, strict: bool) -> UpdatePlan:
    """Return a plan; raises NotFoundError where it is to be ``strict`` and would remove what is not there."""
    if strict:
        plan.refuse_unknown()
    return plan


def segments_of(generation: Generation) -> int:
    """Count the updates that a generation keeps apart from its base."""
    about = generation.manifest.segments
    return 0 if about is None else len(about.parts)


def _publish(
    directory: IndexDirectory, saved: SavedIndex, plan: UpdatePlan, *, strict: bool
) -> tuple[Generation, Written, int]:
    """Write a segment and publish it with all that was there before."""
    with directory.new_generation() as new:
        for name in saved.generation.manifest.files:
            new.link(saved.generation, name)
        before = set(new.files)
        written = write_segment(new, saved, plan, f"seg-{new.name[4:]}", strict=strict)
        if set(new.files) == before:  # all that was seen since is known already, or users have who are not here
            return saved.generation, written, 0
        manifest = manifest_after(new, saved, plan, [written.segment])
        if saved.config.profile is not None:
            manifest = _with_profiles(new, saved, plan, written, manifest)
        size = sum(entry.bytes for name, entry in new.files.items() if name not in before)
        return directory.publish(new, manifest), written, size


def _with_profiles(
    new: NewGeneration, saved: SavedIndex, plan: UpdatePlan, written: Written, manifest: Manifest
) -> Manifest:
    """Make the vectors of users anew whose histories have changed, as a segment after what was written."""
    after = SavedIndex.of(Generation.staged(new, manifest), ON_CPU)
    if saved.config.profile is None or after.users is None or not after.users.has_seen:
        return manifest
    affected = affected_users(saved, after, plan, written)
    if not len(affected):
        return manifest
    more = write_affected(new, after, saved.config.profile, affected, f"{written.segment.name}-users")
    return manifest_after(new, saved, plan, [written.segment, more])


def manifest_after(new: NewGeneration, saved: SavedIndex, plan: UpdatePlan, parts: list[Segment]) -> Manifest:
    """Return the manifest of a generation that ``parts`` bring ``plan`` to."""
    manifest = saved.generation.manifest
    is_appended = plan.titles.is_empty and plan.users.is_empty
    about = manifest.segments or Segments(
        base_titles=manifest.count, base_users=manifest.users, parts=(), fields=plan.fields
    )
    return manifest.model_copy(
        update={
            "generation": new.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "semrec_version": __version__,
            "count": count_after(saved, plan),
            "users": manifest.users + plan.users.new - len(plan.users.removed),
            "files": new.files,
            "previous": new.previous,
            "before_change": manifest.last_before_change if is_appended else None,
            "segments": about.model_copy(update={"parts": (*about.parts, *parts), "fields": plan.fields}),
        }
    )


def count_after(saved: SavedIndex, plan: UpdatePlan) -> int:
    """Count the titles that there are after a change."""
    return saved.generation.manifest.count + plan.titles.new - len(plan.titles.removed)


def summary_of(
    generation: Generation,
    plan: UpdatePlan,
    seen: SeenCounts,
    size: int,
    *,
    is_compacted: bool,
    titles: int | None = None,
) -> UpdateSummary:
    """Say what was done.

    Args:
        generation: the one in use now.
        plan: what was planned.
        seen: what users have seen, counted.
        size: bytes of new files.
        is_compacted: whether the index was built anew.
        titles: how many there would be, where that is all that is asked; None counts what there is.
    """
    manifest = generation.manifest
    about = manifest.segments
    return UpdateSummary(
        generation.name,
        Counts.of(plan.titles),
        Counts.of(plan.users),
        *seen,
        manifest.count if titles is None else titles,
        manifest.users if titles is None else manifest.users + plan.users.new - len(plan.users.removed),
        0 if about is None else len(about.parts),
        size,
        is_compacted,
        plan.brought,
        dict(plan.emptied),
    )
