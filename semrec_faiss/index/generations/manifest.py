"""What an index directory says about itself, and how its bytes are held against it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from semrec_faiss.config.schema import Config
from semrec_faiss.data.text.provenance import Embedding
from semrec_faiss.data.titles.stored import REPAIR
from semrec_faiss.errors import DamagedIndexError, SemrecError, StorageError
from semrec_faiss.storage import read_small, sha256_of_file, too_many_open

FORMAT_VERSION = 1
MANIFEST_NAME = "MANIFEST.json"
MANIFEST_DIGEST_NAME = "MANIFEST.sha256"
"""Holds the manifest's digest a second time, as ``sha256sum -c`` reads it, for when CURRENT is damaged."""

MOST_BYTES = 64 << 20
"""More than any manifest has."""


_LATER_FIELDS = ("embedding", "segments", "ignored_history", "screening", "before_change")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Record):
    """Size and SHA-256 of one file."""

    bytes: int
    sha256: str


class KnownAnswer(_Record):
    """A query and what the index answered on the CPU when it was built."""

    query: tuple[float, ...]
    rows: tuple[int, ...]
    scores: tuple[float, ...]


class GenerationRef(_Record):
    """A generation's name and the SHA-256 of its manifest, which holds the digests of all its other files."""

    name: str
    manifest_sha256: str


class Screening(_Record):
    """The principal directions by which a search leaves titles out, and what was measured when they were chosen.

    Attributes:
        directions: how many.
        share: of the squared length of all vectors, what they hold.
        left: titles whose bounds reach the tenth neighbour's score, the mean over titles, and means of three, as
            queries.
        left_most: nine tenths of those queries have fewer.
        scale: by what bounds have been multiplied; see `semrec_faiss.index.screening.bounds.Rounding`.
        error: how far rounding may have moved a bound along the directions.
        norm: the largest length of a bound.
    """

    directions: int
    share: float
    left: float
    left_most: float
    scale: float
    error: float
    norm: float


class Segment(_Record):
    """What one update brought: its files' names begin with ``name``; see `semrec_faiss.index.segments`.

    Attributes:
        name: for example ``seg-000007``.
        titles: how many titles it holds, new ones and new versions of old ones.
        users: the same of users.
        bounds_error: of its titles' bounds; see `semrec_faiss.index.screening.bounds.Rounding`. None where it has none.
        bounds_norm: the same.
    """

    name: str
    titles: int
    users: int
    bounds_error: float | None = None
    bounds_norm: float | None = None


class Segments(_Record):
    """What updates have brought since the last build.

    Attributes:
        base_titles: titles in the files of that build.
        base_users: users in them.
        parts: the updates, oldest first.
        fields: the DuckDB type of every metadata field over all titles.
    """

    base_titles: int
    base_users: int
    parts: tuple[Segment, ...]
    fields: dict[str, str]


class Manifest(_Record):
    """Everything needed to tell a whole generation from a damaged one, and the text model that made its vectors.

    ``embedding`` is None where that is not known, ``segments`` where nothing was updated since the build; they are left
    out of the file then, so that versions that do not know of them read the index as before. ``count`` and ``users``
    are what is there now; the known answers are those of the last build. ``ignored_history`` counts rows
    of what users have seen that named titles or users that it was built without. ``screening`` is None where searches
    compare every title. ``before_change`` is the generation before titles or users were built or changed last, where
    ``previous`` came after that: what users have seen was appended, or it was built anew as it is.
    """

    format: int
    generation: str
    created: str
    semrec_version: str
    faiss_version: str
    count: int
    dim: int
    users: int
    config: Config
    files: dict[str, FileEntry]
    known_answers: tuple[KnownAnswer, ...]
    previous: GenerationRef | None
    embedding: Embedding | None = None
    segments: Segments | None = None
    ignored_history: int | None = None
    screening: Screening | None = None
    before_change: GenerationRef | None = None

    @property
    def last_before_change(self) -> GenerationRef | None:
        """The generation before titles or users were built or changed last."""
        return self.before_change or self.previous

    @property
    def base_count(self) -> int:
        """Titles in the files of the last build."""
        return self.count if self.segments is None else self.segments.base_titles

    @property
    def base_users(self) -> int:
        """Users in the files of the last build."""
        return self.users if self.segments is None else self.segments.base_users

    @property
    def share_apart(self) -> float:
        """The share of the titles or users that lie in segments, or that the base has lost, whichever is the most."""
        if self.segments is None:
            return 0.0
        titles = sum(part.titles for part in self.segments.parts)
        users = sum(part.users for part in self.segments.parts) if self.segments.base_users else 0
        gone = self.segments.base_titles + titles - self.count
        gone_users = self.segments.base_users + users - self.users if self.segments.base_users else 0
        return max(max(titles, gone) / self.count, max(users, gone_users) / max(self.users, 1))

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_known(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        return {name: value for name, value in values.items() if name not in _LATER_FIELDS or value is not None}


def check_file(path: Path, entry: FileEntry, held: Path | None = None) -> None:
    """Hold a file against its entry.

    Args:
        path: its name, for messages.
        entry: what was written.
        held: the path that it is read by, where that is another.

    Raises:
        DamagedIndexError: it is missing, of another size, or its bytes have changed.
    """
    check_size(path, entry, held)
    try:
        if not (held or path).is_file():
            raise damaged(path, "is not a regular file")
        digest = sha256_of_file(held or path)
    except OSError as error:
        raise unreadable(path, error) from error
    if digest != entry.sha256:
        raise damaged(path, "has changed since it was written: its SHA-256 differs from the manifest's")


def check_size(path: Path, entry: FileEntry, held: Path | None = None) -> None:
    """Hold a file's size against its entry, as `check_file`; raises DamagedIndexError where that differs."""
    try:
        size = (held or path).stat().st_size
    except OSError as error:
        raise unreadable(path, error) from error
    if size != entry.bytes:
        raise damaged(path, f"has {size} bytes, {entry.bytes} were written")


def read_manifest(folder: Path, sha256: str) -> Manifest:
    """Read a generation's manifest, held against the digest that names it.

    Raises:
        DamagedIndexError: it is missing, changed, or of a format that this version does not read.
    """
    path = folder / MANIFEST_NAME
    try:
        text = read_small(path, MOST_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    if hashlib.sha256(text).hexdigest() != sha256:
        raise damaged(path, "has changed since it was written: its SHA-256 differs from the one in CURRENT")
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise DamagedIndexError(
            f"{path} is whole, but not of a form that this version of semrec reads",
            fix="open it with the version that wrote it, or build it again",
        ) from error
    if manifest.format != FORMAT_VERSION:
        raise DamagedIndexError(f"{path} has format {manifest.format}; this version reads {FORMAT_VERSION}")
    return manifest


def manifest_digest_line(sha256: str) -> bytes:
    """Return the content of MANIFEST.sha256."""
    return f"{sha256}  {MANIFEST_NAME}\n".encode()


def own_manifest_digest(folder: Path) -> str:
    """Read the digest that a generation's own MANIFEST.sha256 gives; raises DamagedIndexError when it gives none."""
    path = folder / MANIFEST_DIGEST_NAME
    try:
        text = read_small(path)
    except OSError as error:
        raise unreadable(path, error) from error
    digest = text[:64].decode("ascii", "replace")
    if text != manifest_digest_line(digest):
        raise damaged(path, "does not hold the manifest's digest")
    return digest


def check_manifest_digest(folder: Path, sha256: str) -> None:
    """Hold MANIFEST.sha256 against the manifest's digest; raises DamagedIndexError when they differ."""
    if own_manifest_digest(folder) != sha256:
        raise damaged(folder / MANIFEST_DIGEST_NAME, "has changed since it was written")


def unreadable(path: Path, error: Exception) -> SemrecError:
    """Make the error for a file that the system does not hand over: damaged, unless it lies with who reads it."""
    if isinstance(error, PermissionError):
        return StorageError(
            f"{path} may not be read: {error.strerror}", fix="run as a user who may, or `chmod -R a+rX` the index"
        )
    return too_many_open(error, path) or damaged(path, f"cannot be read: {getattr(error, 'strerror', None) or error}")


def damaged_by(error: SemrecError) -> SemrecError:
    """Make of the error for any file the one for a file of an index: damaged, unless too many are open."""
    return too_many_open(error) or DamagedIndexError(error.message, fix="build the index again")


def damaged(path: Path, what: str) -> DamagedIndexError:
    """Make the error for one file that is not as it was written."""
    return DamagedIndexError(
        f"{path} {what}",
        fix=REPAIR,
    )
