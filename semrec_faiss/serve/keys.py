"""API keys: a file of their hashes, so that who reads the file cannot ask; a role each; shown once, when made."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from semrec_faiss.errors import ConfigError, NotFoundError, StorageError, UsageError, quoted
from semrec_faiss.locks import only_writer
from semrec_faiss.paths import as_typed
from semrec_faiss.storage import new_file, read_small

Role = Literal["read", "admin"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINE = re.compile(rf"({_NAME.pattern}) ({'|'.join(get_args(Role))}) sha256:([0-9a-f]{{64}})")
PREFIX = "semrec_"

LOCK_SECONDS = 10.0
"""Until another process has added its key."""


@dataclass(frozen=True)
class Key:
    """Who holds a key: the name it was made for, what it allows, and its SHA-256."""

    name: str
    role: Role
    sha256: str

    def may(self, role: Role) -> bool:
        """Tell whether the key allows what needs ``role``; an admin may all that a reader may."""
        return self.role in ("admin", role)


class Keys:
    """The keys of a service."""

    def __init__(self, keys: list[Key]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Read a file of keys.

        Raises:
            NotFoundError: there is none.
            ConfigError: a line is not NAME ROLE sha256:HASH, or a name is there twice.
        """
        return cls(_read(path))

    def holder(self, shown: str) -> Key | None:
        """Return whose key was shown, None if nobody's; takes the same time whichever it is, and whether or not."""
        digest = _digest(shown)
        found: Key | None = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def add_key(path: Path, name: str, role: Role = "read") -> str:
    """Make a key, add its hash to a file, and return the key, which is kept nowhere.

    A new file is for its owner alone; of one that is there, owner, rights and everything that it says stay.

    A key of this many random bits needs no slow hash.

    Raises:
        UsageError: a name of other characters, or one that the file has; another process writes the file still.
        StorageError: the disk refuses.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{quoted(name)} is no name of a key", fix="up to 64 letters, digits, dots, hyphens and underscores"
        )
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        with only_writer(path, wait=LOCK_SECONDS):
            _append(path, Key(name, role, _digest(key)))
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    return key


def _append(path: Path, key: Key) -> None:
    """Add a line to a file, new or not, whose other lines stay as they are."""
    before, owner = b"", None
    if path.exists():
        if any(one.name == key.name for one in _read(path)):
            raise UsageError(
                f"{path} has a key of {key.name} already", fix="take another name, or delete that line first"
            )
        before, owner = read_small(path), path.stat()
    end = b"" if before[-1:] in (b"", b"\n") else b"\n"
    with new_file(path) as file:
        number = file.fileno()
        os.chmod(number, 0o600 if owner is None else stat.S_IMODE(owner.st_mode))  # noqa: PTH101 - of the open file
        if owner is not None and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(number, owner.st_uid, owner.st_gid)  # or the service could not read it any more
        file.write(before + end + f"{key.name} {key.role} sha256:{key.sha256}\n".encode())


def _read(path: Path) -> list[Key]:
    try:
        lines = read_small(path).decode("utf-8").splitlines()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no file of keys {path}", fix=f"semrec serve keys add NAME --keys {as_typed(path)}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or error
        raise ConfigError(f"the file of keys {path} cannot be read: {told}") from error
    keys: list[Key] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if not found:
            raise ConfigError(
                f"{path}:{number} is not NAME ROLE sha256:HASH", fix="`semrec serve keys add` writes such lines"
            )
        if found[1] in {key.name for key in keys}:
            raise ConfigError(f"{path}:{number}: {found[1]} has a key already", fix="delete one of the two lines")
        keys.append(Key(found[1], "admin" if found[2] == "admin" else "read", found[3]))
    return keys


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
