"""The errors a caller can meet, each with the exit code that the command line ends with.

Every message says what is wrong, the value that was found and the limit it broke; ``fix`` says what to do about it.
"""

from __future__ import annotations


class SemrecError(Exception):
    """Something went wrong that the caller can understand and mend.

    Attributes:
        message: what is wrong, with the value and the limit.
        fix: what to do about it, as a command where there is one; None when the message says it already.
        exit_code: the exit code of ``semrec`` for this kind of error.
    """

    exit_code = 1

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message if fix is None else f"{message}\n{fix}")
        self.message = message
        self.fix = fix


class UsageError(SemrecError):
    """A request that can never work: an impossible option, argument or setting."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file with mistakes; the message lists all of them."""


class DataError(SemrecError):
    """The data folder is inconsistent or malformed; the message names file, line or row."""

    exit_code = 3


class NotFoundError(SemrecError):
    """A title, user, file or index that does not exist.

    Attributes:
        candidates: the nearest names that do exist, best first; may be empty.
    """

    exit_code = 4

    def __init__(self, message: str, *, fix: str | None = None, candidates: tuple[str, ...] = ()) -> None:
        super().__init__(message, fix=fix)
        self.candidates = candidates


class AmbiguousTitleError(NotFoundError):
    """A title that several items carry; ``candidates`` lists them."""


class DamagedIndexError(SemrecError):
    """An index directory whose content is not what was written."""

    exit_code = 5


class DeviceError(SemrecError):
    """A processor or GPU is missing, has too little memory, or cannot do what was asked."""

    exit_code = 6


class UnavailableError(DeviceError):
    """A cluster, or a part of one that a question needs, does not answer; it may do so later."""


class MissingPackageError(SemrecError):
    """A Python package is not installed, or not in a way that loads; ``fix`` is the ``pip`` line that mends it."""

    exit_code = 7


class StorageError(SemrecError):
    """The disk would not take what was to be written; nothing that was there before is changed."""

    exit_code = 8
