"""The titles of a MovieLens download: movies, the commonest tags and the most relevant genome tags."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from semrec_faiss.data.movielens.download import MovieLensSource, SourceFile
from semrec_faiss.data.movielens.franchise import franchises
from semrec_faiss.data.movielens.rows import BadRows, rows_of, shortened, tag_problem, whole_number
from semrec_faiss.errors import DataError
from semrec_faiss.progress import Progress, silent

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MOST_TAGS = 10

MOVIE_COLUMNS = ("movieId", "title", "genres")
TAG_COLUMNS = ("userId", "movieId", "tag", "timestamp")
GENOME_TAG_COLUMNS = ("tagId", "tag")

_NO_GENRES = "(no genres listed)"
# "(1995)", "(2006–2007)", "(2009– )", "(1983))": the first year of what ends the title.
_YEAR = re.compile(r"\((\d{4})\s*(?:[-–]\s*(?:\d{4})?\s*)?\)+\s*$")


@dataclass
class Titles:
    """The titles in the order of movies.csv.

    Attributes:
        records: what metadata.jsonl holds, a dict per title.
        movie_ids: MovieLens' own ids, in the same order.
        tag_rows: how many tags were given by users.
        blank_tags: how many of them are left out because they hold nothing but blanks.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    movie_ids: list[int] = field(default_factory=list)
    tag_rows: int = 0
    blank_tags: int = 0

    def json_lines(self) -> Iterator[bytes]:
        """Yield the lines of metadata.jsonl."""
        for record in self.records:
            yield (json.dumps(record, ensure_ascii=False) + "\n").encode()


def media_id(movie_id: int) -> str:
    """Name a title as media_id."""
    return f"ml_{movie_id:08d}"


def read_titles(source: MovieLensSource, progress: Progress = silent) -> Titles:
    """Read movies and users' tags; `add_genome` adds the genome's.

    A title's ``franchise`` is the series that titles tell of, see `franchises`. Its ``tags`` are the up to ten
    commonest, in lower case; of equally common ones those given first.

    Raises:
        DataError: rows that cannot be used, with file and line.
    """
    bad = BadRows()
    titles = Titles()
    lines: dict[int, int] = {}
    for line, (number, title, genres) in rows_of(source.movies, MOVIE_COLUMNS, bad, progress):
        movie = whole_number(number)
        if movie is None:
            bad.add(source.movies, line, f"movieId is {shortened(number)}; a whole number is expected")
        elif movie in lines:
            bad.add(source.movies, line, f"movieId {movie} is also on line {lines[movie]}")
        elif not title.strip():
            bad.add(source.movies, line, f"movieId {movie} has no title")
        else:
            lines[movie] = line
            titles.movie_ids.append(movie)
            titles.records.append(_record(movie, title.strip(), genres))
    if not titles.records:
        bad.check()
        raise DataError(f"{source.movies.shown} holds no titles", fix="download it again")
    if source.tags is not None:
        _add_tags(titles, source.tags, bad, progress)
    bad.check()
    _add_franchises(titles)
    return titles


def _add_franchises(titles: Titles) -> None:
    """Give every title the field ``franchise``, unless no title is of any."""
    found = franchises([record["title"] for record in titles.records])
    if any(found):
        for record, franchise in zip(titles.records, found, strict=True):
            record["franchise"] = franchise


def _record(movie: int, title: str, genres: str) -> dict[str, Any]:
    year = _YEAR.search(title)
    listed = [genre.strip() for genre in genres.split("|")]
    return {
        "media_id": media_id(movie),
        "title": title,
        "year": int(year[1]) if year else None,
        "genres": [genre for genre in listed if genre and genre != _NO_GENRES],
    }


def _add_tags(titles: Titles, source: SourceFile, bad: BadRows, progress: Progress) -> None:
    counts: dict[int, Counter[str]] = {movie: Counter() for movie in titles.movie_ids}
    spelled: dict[str, str] = {}  # one string for all uses of a tag
    for line, (user, number, raw, rated_at) in rows_of(source, TAG_COLUMNS, bad, progress):
        problem = tag_problem(user, number, rated_at, counts)
        if problem is not None:
            bad.add(source, line, problem)
            continue
        movie = whole_number(number) or 0
        titles.tag_rows += 1
        tag = raw.strip().lower()
        if tag:
            counts[movie][spelled.setdefault(tag, tag)] += 1
        else:
            titles.blank_tags += 1
    for movie, record in zip(titles.movie_ids, titles.records, strict=True):
        record["tags"] = [tag for tag, _ in counts[movie].most_common(MOST_TAGS)]


def read_genome_tags(source: SourceFile) -> dict[int, str]:
    """Read genome-tags.csv: tagId to tag.

    Raises:
        DataError: rows that cannot be used, with file and line.
    """
    bad = BadRows()
    tags: dict[int, str] = {}
    for line, (number, tag) in rows_of(source, GENOME_TAG_COLUMNS, bad):
        tag_id = whole_number(number)
        if tag_id is None or tag_id in tags or not tag.strip():
            bad.add(source, line, f"tagId {shortened(number)} is not a whole number, or is repeated, or has no tag")
        else:
            tags[tag_id] = tag.strip()
    bad.check()
    return tags


def add_genome(titles: Titles, tags: dict[int, str], db: DuckDBPyConnection) -> int:
    """Give every title ``genome_tags``, the ten most relevant; return how many titles have any.

    Args:
        titles: the titles.
        tags: from `read_genome_tags`.
        db: its table ``genome`` holds title_row, tag_id and relevance.
    """
    best: dict[int, list[str]] = {}
    rows = db.execute(
        "SELECT title_row, tag_id FROM genome"
        f" QUALIFY row_number() OVER (PARTITION BY title_row ORDER BY relevance DESC, tag_id) <= {MOST_TAGS}"
        " ORDER BY title_row, relevance DESC, tag_id"
    )
    for title_row, tag_id in rows.fetchall():
        best.setdefault(title_row, []).append(tags[tag_id])
    for row, record in enumerate(titles.records):
        record["genome_tags"] = best.get(row, [])
    return len(best)
