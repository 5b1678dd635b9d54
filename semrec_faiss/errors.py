"""The errors a caller can meet, each with the exit code that the command line ends with.

Every message says what is wrong, the value that was found and the limit it broke; ``fix`` says what to do about it.
Lines and rows of files are counted from 1, a CSV's header not among the rows: ``products.csv: row 3``. What Python and
JSON index is named as they do, from 0 and in brackets: ``vectors.npy[2]``, ``metadata[2]`` of a frame.
"""

from __future__ import annotations

_QUOTED = 60
_LINE = 1_000


def quoted(value: object) -> str:
    """Return a value as an error quotes it: of a long one its beginning, and how long it is.

    Example:
        >>> from semrec_faiss.errors import quoted
        >>> quoted("Alien"), quoted("x" * 10_000_000)
        ("'Alien'", "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…' (10,000,000 characters)")
    """
    if isinstance(value, str):
        return repr(value) if len(value) <= _QUOTED else f"{value[:_QUOTED] + '…'!r} ({len(value):,} characters)"
    text = repr(value)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}… ({len(text):,} characters)"


def told_shortly(text: str) -> str:
    """Return a text without the middle of lines that nobody would read to their end."""
    if len(text) <= _LINE:
        return text
    return "\n".join(map(_shortened, text.split("\n")))


def _shortened(line: str) -> str:
    left_out = len(line) - _LINE
    if left_out <= 0:
        return line
    return f"{line[: _LINE // 2]} … ({left_out:,} characters left out) … {line[-_LINE // 2 :]}"


class SemrecError(Exception):
    """Something went wrong that the caller can understand and mend.

    Attributes:
        message: what is wrong, with the value and the limit.
        fix: what to do about it, as a command where there is one; None when the message says it already.
        candidates: the nearest names that do exist, best first, where a name was not known; may be empty.
        exit_code: the exit code of ``semrec`` for this kind of error.

    Example:
        >>> from semrec_faiss import Recommender, SemrecError
        >>> try:
        ...     Recommender.open("indexes/nowhere")
        ... except SemrecError as error:
        ...     print(error.exit_code, error.message)
        4 index indexes/nowhere does not exist
    """

    exit_code = 1

    def __init__(self, message: str, *, fix: str | None = None, candidates: tuple[str, ...] = ()) -> None:
        self.message = told_shortly(message)
        self.fix = None if fix is None else told_shortly(fix)
        super().__init__(self.message if self.fix is None else f"{self.message}\n{self.fix}")
        self.candidates = candidates


class UsageError(SemrecError):
    """A request that can never work: an impossible option, argument or setting.

    Example:
        >>> from semrec_faiss import Recommender, UsageError
        >>> try:
        ...     Recommender.open("indexes/demo").similar("Toy Story", k=0)
        ... except UsageError as error:
        ...     print(error.exit_code, error.message)
        2 k is 0; it must be at least 1, and a whole number
    """

    exit_code = 2


class ConfigError(UsageError):
    """A config file with mistakes; the message lists all of them.

    Example:
        >>> from semrec_faiss import ConfigError
        >>> from semrec_faiss import load_config
        >>> try:
        ...     load_config("flat", ["index.serach.k=3"])
        ... except ConfigError as error:
        ...     print(error.exit_code, error.message.splitlines()[1].strip())
        2 --set: unknown key 'index.serach'; did you mean 'search'? known here: build, metric, normalize, search, type
    """


class DataError(SemrecError):
    """The data folder is inconsistent or malformed; the message names file, line or row.

    Example:
        >>> from semrec_faiss import Recommender, DataError
        >>> import numpy as np
        >>> try:
        ...     Recommender.from_arrays(np.zeros((1, 3), "float32"))
        ... except DataError as error:
        ...     print(error.exit_code, error.message)
        3 the titles[0], column vector: is all zero
    """

    exit_code = 3


class NotFoundError(SemrecError):
    """A title, user, file or index that does not exist.

    Attributes:
        media_ids: of the titles that ``candidates`` names, where these are titles; else empty.

    Example:
        >>> from semrec_faiss import Recommender, NotFoundError
        >>> try:
        ...     Recommender.open("indexes/demo").similar("Toy Stroy")
        ... except NotFoundError as error:
        ...     print(error.exit_code, error.candidates[0], error.media_ids[0])
        4 Toy Story (1995) film_0534
    """

    exit_code = 4

    def __init__(
        self,
        message: str,
        *,
        fix: str | None = None,
        candidates: tuple[str, ...] = (),
        media_ids: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, fix=fix, candidates=candidates)
        self.media_ids = media_ids


class AmbiguousTitleError(NotFoundError):
    """A name that several titles carry; ``candidates`` lists them.

    Example:
        >>> from semrec_faiss import Recommender, AmbiguousTitleError
        >>> try:
        ...     Recommender.open("indexes/demo").similar("The Mummy")
        ... except AmbiguousTitleError as error:
        ...     print(error.exit_code, error.candidates)
        4 ('The Mummy (1932) [film_0014]', 'The Mummy (1999) [film_0625]')
    """


class MissingModelError(NotFoundError):
    """A text model that is not on this machine; ``fix`` says how it comes there.

    Example:
        >>> from semrec_faiss import MissingModelError
        >>> error = MissingModelError("the text model 'M' is not on this machine", fix="pip install M")
        >>> error.exit_code, error.fix
        (4, 'pip install M')
    """


class DamagedIndexError(SemrecError):
    """An index directory whose content is not what was written.

    Example:
        >>> from semrec_faiss import Recommender, DamagedIndexError
        >>> import shutil
        >>> from pathlib import Path
        >>> _ = shutil.copytree("indexes/demo", "indexes/damaged", dirs_exist_ok=True)
        >>> _ = Path("indexes/damaged/CURRENT").write_text("gen-000009")
        >>> try:
        ...     Recommender.open("indexes/damaged")
        ... except DamagedIndexError as error:
        ...     print(error.exit_code)
        5
    """

    exit_code = 5


class DeviceError(SemrecError):
    """A processor or GPU is missing, has too little memory, or cannot do what was asked.

    Example:
        >>> from semrec_faiss import Recommender, DeviceError
        >>> try:
        ...     Recommender.open("indexes/demo", ["device.kind=gpu", "device.gpus=[99]"]).similar("Toy Story")
        ... except DeviceError as error:
        ...     print(error.exit_code)
        6
    """

    exit_code = 6


class UnavailableError(DeviceError):
    """A cluster, or a part of one that a question needs, does not answer; it may do so later.

    Example:
        >>> from semrec_faiss import UnavailableError
        >>> error = UnavailableError("6 of 200 users got no list", fix="ask for them again")
        >>> error.exit_code, error.fix
        (6, 'ask for them again')
    """


class MissingPackageError(SemrecError):
    """A Python package is not installed, or not in a way that loads; ``fix`` is the ``pip`` line that mends it.

    Example:
        >>> import sys
        >>> from semrec_faiss import Recommender
        >>> from semrec_faiss import MissingPackageError
        >>> answer = Recommender.open("indexes/demo").similar("Toy Story")
        >>> sys.modules["polars"] = None  # as where it is not installed
        >>> try:
        ...     answer.to_polars()
        ... except MissingPackageError as error:
        ...     print(error.exit_code, error.fix)
        7 pip install polars
        >>> del sys.modules["polars"]
    """

    exit_code = 7


class StorageError(SemrecError):
    """The disk would not take what was to be written; nothing that was there before is changed.

    Example:
        >>> from semrec_faiss import StorageError
        >>> import numpy as np
        >>> from semrec_faiss import build
        >>> try:
        ...     build(np.eye(3, dtype="float32"), output="/proc/index")
        ... except StorageError as error:
        ...     print(error.exit_code)
        8
    """

    exit_code = 8
