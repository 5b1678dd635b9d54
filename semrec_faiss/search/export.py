"""Every user's list to one Parquet file: streamed in blocks, resumable after a kill, there only when it is whole."""

from __future__ import annotations

import glob
import hashlib
import json
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import Unpack

from semrec_faiss.arguments import flag_of, path_of
from semrec_faiss.arrays import Rows, Scores
from semrec_faiss.data.folder.database import first_line
from semrec_faiss.data.tables.source import promises_another
from semrec_faiss.data.titles.columns import column_of_numbers, column_of_texts
from semrec_faiss.data.titles.titles import Titles
from semrec_faiss.errors import StorageError, UsageError
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.locks import only_writer
from semrec_faiss.places import PARQUET, Content, check_new_file
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.lists_file import ROW_GROUP, Counts, ListsFile, TitlesOf, how_made, read_block, write_block
from semrec_faiss.search.living.living_index import LivingIndex
from semrec_faiss.search.living.opened import not_open
from semrec_faiss.search.profile.profile_search import changed_profile
from semrec_faiss.search.wish import Wish, WishArguments
from semrec_faiss.storage import flush_to_disk

if TYPE_CHECKING:
    import pyarrow as pa

    from semrec_faiss.search.recommender import Recommender

BLOCK_USERS = 4096
"""Users searched and written at once; what a kill loses at most."""

MOST_WAITING = 2 * ROW_GROUP
"""Results that may wait to be encoded while more are searched, or two blocks: bounds the memory, and while one row
group is encoded the next is searched."""

_LISTS = Content("lists", PARQUET.begins)


@dataclass(frozen=True)
class ExportSummary:
    """What was written, counted from the lists as they went to the file.

    Attributes:
        users: users in the index.
        users_with_k: of these, with as many titles as were asked for.
        users_short: with fewer, because fewer match.
        titles_recommended: distinct titles over all lists.
        titles: titles in the index.
        repeats: titles that one user was given twice; never anything but 0.
        seen_leaks: titles that a user has seen; never anything but 0 unless seen titles are included.
        resumed_users: users that an interrupted run had finished before.
    """

    users: int
    users_with_k: int
    users_short: int
    titles_recommended: int
    titles: int
    repeats: int
    seen_leaks: int | None
    resumed_users: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def export_all_users(
    recommender: Recommender,
    out: str | PathLike[str],
    k: int = 10,
    *,
    include_seen: bool = False,
    profile: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    **wish: Unpack[WishArguments],
) -> ExportSummary:
    """Write the recommendations of all users: user_id, rank, media_id, title, score; users in row order.

    An interrupted run leaves its finished blocks beside ``out``; the same call on the same index goes on from there.
    Another call begins anew, with a RuntimeWarning, and removes these blocks once its lists are whole.

    Args:
        recommender: an open index with users.
        out: the Parquet file; replaced when the new one is whole.
        k: titles per user.
        include_seen: keep titles that a user has seen.
        profile: settings of the profile that differ from those that the index serves.
        progress: told the users done.
        wish: see `Recommender`.

    Raises:
        UsageError: ``out`` is a directory or under a file, or holds something else than lists, another process writes
            it, or a setting is out of range.
        NotFoundError: the index holds no users.
        StorageError: the disk is full or refuses; ``out`` is as it was.
    """
    import duckdb

    if not isinstance(recommender, LivingIndex):
        raise not_open(recommender)
    wanted = Wish.of(k, **wish)
    flag_of(include_seen, "include_seen")
    out = path_of(out, "out")
    try:
        if out.is_dir():
            raise UsageError(f"{out} is a directory", fix="name a file, such as recs.parquet")
        if out.exists() and not out.is_file():
            raise UsageError(f"{out} is not a regular file", fix="name a file, such as recs.parquet")
        if promises_another(out, "parquet"):
            raise UsageError(f"{out} promises another format; lists are written as Parquet", fix="end it in .parquet")
        check_new_file(out, "--out", _LISTS)
        out = out.resolve() if out.is_symlink() else out
        if out.exists() and out.stat().st_size and how_made(out) is None:
            raise UsageError(f"{out} holds something else than lists", fix="name another --out, or remove it")
        recommender = recommender.pinned()  # all lists are of one generation
        if recommender.titles.is_partial:
            raise UsageError("lists for everybody need all shards", fix="open the index without partial")
        recommender.searcher.check(wanted)
        out.parent.mkdir(parents=True, exist_ok=True)
        saved = recommender.saved
        depends = what_lists_depend_on(saved, wanted, include_seen, profile) | {"device": str(saved.device)}
        with only_writer(out), _work_folder(out, depends) as work:
            staged = work / "joined.new"
            made = settings_of_lists(saved, depends)
            summary = _write(recommender, work, staged, wanted, include_seen, profile, made, progress)
            with staged.open("rb") as file:
                flush_to_disk(file)
            staged.replace(out)
            return summary
    except (OSError, ValueError, duckdb.Error) as error:
        said = getattr(error, "strerror", None) or first_line(error)
        raise StorageError(f"cannot write {out}: {said}", fix="free space or name another --out") from error


def _write(
    recommender: Recommender,
    work: Path,
    staged: Path,
    wish: Wish,
    include_seen: bool,
    profile: Mapping[str, Any] | None,
    made: Mapping[str, Any],
    progress: Progress,
) -> ExportSummary:
    """Write every list to ``staged``; blocks that are there already are not searched again.

    While a block is searched, those before it are encoded in one thread, kept and counted in another.
    """
    users, titles = recommender.users, recommender.titles
    seen = users.seen if users.has_seen and not include_seen else None
    counts = Counts(titles.count, wish.k, seen)
    resumed = 0
    with (
        ListsFile(staged, users.ids, titles.count, _titles_of(titles), made) as lists,
        ThreadPoolExecutor(1) as encoding,
        ThreadPoolExecutor(1) as counting,
    ):
        under_way: deque[list[Future[None]]] = deque()
        most = max(2, MOST_WAITING // (BLOCK_USERS * wish.k))

        def listed(first: int) -> _Block:
            block = np.arange(first, min(first + BLOCK_USERS, users.count), dtype=np.int64)
            path = work / f"users-{first:010d}.lists"
            kept = read_block(path, len(block))
            if kept is not None:
                return _Block(path, *kept, is_new=False)
            found, _ = recommender.lists_for(block, wish, include_seen=include_seen, profile=profile)
            return _Block(path, found.rows, found.scores, is_new=True)

        done = 0
        for block in _in_order(listed, range(0, users.count, BLOCK_USERS), _searched_at_once(recommender)):
            pieces = []
            if block.is_new:
                pieces.append(counting.submit(write_block, block.path, block.rows, block.scores))
            else:
                resumed += len(block.rows)
            pieces.append(encoding.submit(lists.add, block.rows, block.scores))
            pieces.append(counting.submit(counts.add, block.rows))
            under_way.append(pieces)
            while len(under_way) > most or (under_way and all(piece.done() for piece in under_way[0])):
                _wait_for(under_way.popleft())
            done += len(block.rows)
            progress("recommending", done, users.count)
        for pieces in under_way:
            _wait_for(pieces)
    return ExportSummary(
        users=users.count,
        users_with_k=counts.full,
        users_short=users.count - counts.full,
        titles_recommended=counts.distinct,
        titles=titles.count,
        repeats=counts.repeats,
        seen_leaks=counts.leaks,
        resumed_users=resumed,
    )


@dataclass(frozen=True)
class _Block:
    """The lists of a block of users, int64 and float32 (users, k), and where they are kept."""

    path: Path
    rows: Rows
    scores: Scores
    is_new: bool


def _wait_for(pieces: Iterable[Future[None]]) -> None:
    """Wait for work in other threads; raises what it raised."""
    for piece in pieces:
        piece.result()


def _searched_at_once(recommender: Recommender) -> int:
    """While FAISS searches for one block on a GPU, what the users of others have seen is left out here."""
    index = recommender.index
    return 3 if index.device.gpus and index.fused is None else 1


def _in_order(work: Callable[[int], _Block], firsts: Iterable[int], at_once: int) -> Iterator[_Block]:
    """Make blocks in threads, so many at once, and yield them in order."""
    if at_once == 1:
        yield from map(work, firsts)
        return
    with ThreadPoolExecutor(at_once) as threads:
        coming: deque[Future[_Block]] = deque()
        for first in firsts:
            coming.append(threads.submit(work, first))
            if len(coming) > at_once:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _titles_of(titles: Titles) -> TitlesOf:
    """Return what gives the ids and titles of rows: taken from the stored columns, or else from all titles at once."""
    if titles.has_columns:

        def stored(rows: Rows) -> tuple[pa.Array, pa.Array]:
            taken = titles.columns(rows, ("media_id", "title"))
            return taken["media_id"], taken["title"]

        return stored
    sql = "SELECT media_id, title FROM titles ORDER BY _semrec_row"
    found = titles.catalog.cursor().execute(sql).fetchnumpy()
    media_ids, names = (column_of_texts(found[name].tolist()) for name in ("media_id", "title"))
    return lambda rows: (media_ids.take(column_of_numbers(rows)), names.take(column_of_numbers(rows)))


@contextmanager
def _work_folder(out: Path, depends: Mapping[str, Any]) -> Iterator[Path]:
    """Give the folder of finished blocks; it goes when the block ends well, and stays after an error."""
    work = parts_folder(out, depends)
    try:
        yield work
        remove_parts(out)
    finally:
        for half in work.glob("*.new"):  # which the disk may have been full of
            half.unlink()
        if work.is_dir() and not any(work.iterdir()):
            work.rmdir()


def what_lists_depend_on(
    saved: SavedIndex, wish: Wish, include_seen: bool, profile: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Name everything that every user's list depends on; whoever makes lists adds where they are made."""
    served = changed_profile(saved.config.profile, profile).model_dump()
    return {
        "generation": saved.generation.ref.model_dump(),
        "search": saved.config.index.model_dump(mode="json"),
        "wish": asdict(wish),
        "include_seen": include_seen,
        "profile": served if profile or saved.config.profile else None,  # None: by users' own vectors
        "block": BLOCK_USERS,
    }


def settings_of_lists(saved: SavedIndex, depends: Mapping[str, Any]) -> dict[str, Any]:
    """Return of which index lists are, and what else somebody has asked for, as JSON holds it."""
    asked: dict[str, Any] = {"index": None if saved.generation.for_now else saved.generation.folder.parent.name}
    asked |= {name: depends[name] for name in ("search", "wish", "include_seen", "profile")}
    asked["search"] = {name: value for name, value in depends["search"].items() if name != "build"}
    settings: dict[str, Any] = json.loads(json.dumps(asked, default=str))
    return settings


def parts_folder(out: Path, depends: Mapping[str, Any]) -> Path:
    """Make the folder of finished parts beside ``out``, named by what they depend on.

    Parts of another generation are removed. Those made with other settings, perhaps meant to be the same, stay until
    lists are whole: see `remove_parts`.
    """
    generation, settings = (
        hashlib.sha256(json.dumps(each, sort_keys=True, default=str).encode()).hexdigest()[:16]
        for each in (depends["generation"], depends)
    )
    of_generation = f".{out.name}.parts-{generation}-"
    work = out.with_name(f"{of_generation}{settings}")
    others = [remains for remains in _remains(out) if remains != work]
    kept = [remains for remains in others if remains.name.startswith(of_generation)]
    for remains in others:
        if remains not in kept:
            shutil.rmtree(remains, ignore_errors=True)
    if kept and not work.exists():
        warnings.warn(
            f"an interrupted run made lists for {out} with other settings, and this one begins anew; {kept[0]} stays"
            " until lists are whole: give its settings to go on with it, or remove it",
            RuntimeWarning,
            stacklevel=3,
        )
    work.mkdir(exist_ok=True)
    return work


def remove_parts(out: Path) -> None:
    """Remove what interrupted runs left beside ``out``, where the lists are whole now."""
    for remains in _remains(out):
        shutil.rmtree(remains, ignore_errors=True)


def _remains(out: Path) -> list[Path]:
    return list(out.parent.glob(f".{glob.escape(out.name)}.parts-*"))
