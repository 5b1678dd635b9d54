"""When two spellings mean the same title: case, accents, punctuation, articles, years and names in brackets.

A title's *key* is what is left without all these: "Godfather, The (1972)" and "The GODFATHER!" share "the godfather",
"Spider-Man" and "spiderman" share "spiderman".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property

ARTICLES = frozenset(
    "the a an le la les l un une der die das ein eine el los las una il lo gli het een den det".split()  # noqa: SIM905
)
LEFT_OUT = ARTICLES - {"die"}
"""Those that a title may be known without: "Die Hard" is not "Hard", so that this article only moves."""

YEAR_AT_END = re.compile(r"[(\[]\s*([0-9]{4})(?:\s*[-–—]\s*(?:[0-9]{4})?)?\s*[)\]]\s*$")
_FILM_YEAR = re.compile(r"(?:18|19|20)[0-9]{2}")
BRACKETED = re.compile(r"\(([^()]*)\)")
_ALSO_KNOWN_AS = re.compile(r"^\s*(?:a\.?k\.?a\.?|aka)\s+", re.IGNORECASE)

COMPARED = 200
"""How many characters of a title are compared when the nearest are looked for: the time grows with their square."""

LONG = 1000
"""Characters of a text that is looked at for letters of too many marks; of fewer no marks take long to be ordered."""

MOST_MARKS = 30
"""Marks of one letter that count in a long text, as in Unicode's stream-safe form: ordering takes their square."""

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_NOT_DECOMPOSED = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"})


def words(text: str) -> list[str]:
    """Split ``text`` into lower-case words without accents and punctuation, any script."""
    text = text.replace("&", " and ")
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    decomposed = _decomposed(text).casefold().translate(_NOT_DECOMPOSED)
    # Only Latin, Greek and Cyrillic accents go: in other scripts a mark makes another letter.
    kept = unicodedata.normalize("NFC", "".join(c for c in decomposed if not "\u0300" <= c <= "\u036f"))
    return "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in kept).split()


def caseless(text: str) -> str:
    """Return what two spellings share that differ only in case, Unicode form or white space, as names of genres may."""
    decomposed = _decomposed(text).casefold()
    return " ".join(unicodedata.normalize("NFKC", decomposed).split())


def _decomposed(text: str) -> str:
    """Return a text with its marks behind their letters, in one order; of a long text `MOST_MARKS` of each letter's."""
    if len(text) > LONG:
        text = "".join(unicodedata.normalize("NFKD", character) for character in text)
        marks = 0
        kept = []
        for character in text:
            marks = marks + 1 if unicodedata.combining(character) else 0
            if marks <= MOST_MARKS:
                kept.append(character)
        text = "".join(kept)
    return unicodedata.normalize("NFKD", text)


def squeezed(text: str) -> str:
    """Join the words of ``text`` without moving an article."""
    return "".join(words(text)) or text.casefold().strip()


def _ordered_words(text: str) -> list[str]:
    """Split ``text`` into words, with an article at the end moved to the front."""
    found = words(text)
    return [found[-1], *found[:-1]] if len(found) > 1 and found[-1] in ARTICLES else found


def key(text: str) -> str:
    """Join the words of ``text`` but for an article, which comes first; a text of symbols alone stays as it is."""
    found = _ordered_words(text)
    # The article stays apart, so that "É, L'" is not "Le".
    return f"{found[0]} {''.join(found[1:])}" if _begins_with(found, ARTICLES) else squeezed(text)


def core(text: str, articles: frozenset[str] = ARTICLES) -> str:
    """Join the words of ``text`` without its article: this part stands in one piece in every title of the same key."""
    found = _ordered_words(text)
    return "".join(found[1:]) if _begins_with(found, articles) else key(text)


def _begins_with(found: list[str], articles: frozenset[str]) -> bool:
    return len(found) > 1 and found[0] in articles


def _without_article(text: str) -> set[str]:
    """Return the two ways to see ``text`` when articles do not count: "A-Team" may begin with one or be a word."""
    return {core(text, LEFT_OUT), squeezed(text)}


def split_year(title: str) -> tuple[str, int | None]:
    """Split "Heat (1995)" into "Heat" and 1995."""
    match = YEAR_AT_END.search(title)
    if match is None or not (rest := title[: match.start()].rstrip()):
        return title, None
    return rest, int(match[1])


def split_bare_year(title: str) -> tuple[str, int | None]:
    """Split "heat 1995" into "heat" and 1995."""
    rest, last = title.rstrip()[:-4], title.rstrip()[-4:]
    name = rest.rstrip(", \t")
    if not name or name == rest or not _FILM_YEAR.fullmatch(last):
        return title, None
    return name, int(last)


@dataclass(frozen=True)
class TitleParts:
    """A title taken apart.

    Attributes:
        year: from brackets at its end, or else from the year field; None when neither gives one.
        whole: all but the year.
        main: what stands before the first bracket; all of ``whole`` where there is none.
        alternatives: what stands in brackets, such as the original title.
    """

    year: int | None
    whole: str
    main: str
    alternatives: tuple[str, ...]

    @classmethod
    def of(cls, title: str, year: int | None = None) -> TitleParts:
        """Take ``title`` apart; ``year`` counts where it names none itself."""
        whole, own_year = split_year(title)
        main = whole.split("(", 1)[0].strip() or whole
        alternatives = tuple(_ALSO_KNOWN_AS.sub("", found) for found in BRACKETED.findall(whole) if found.strip())
        return cls(year if own_year is None else own_year, whole, main, alternatives)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of the title."""
        return tuple(dict.fromkeys((self.whole, self.main, *self.alternatives)))

    # Made once: what was asked is held against thousands of titles, and a hostile text is long.

    @cached_property
    def whole_key(self) -> str:
        """The `key` of the whole."""
        return key(self.whole)

    @cached_property
    def main_key(self) -> str:
        """The `key` of what stands before the first bracket."""
        return self.whole_key if self.main == self.whole else key(self.main)

    @cached_property
    def alternative_keys(self) -> frozenset[str]:
        """The keys of what stands in brackets."""
        return frozenset(map(key, self.alternatives))

    @cached_property
    def without_article(self) -> set[str]:
        """The two ways to see the whole when articles do not count."""
        return _without_article(self.whole)


class TitleQuery:
    """What a person typed for a title, and how well a title answers to it."""

    def __init__(self, text: str) -> None:
        """Read ``text``; "wonder woman 1984" may be a title, or one with its year."""
        self.text = text
        self.readings = [TitleParts.of(text)]
        name, bare_year = split_bare_year(text)
        if bare_year is not None and self.readings[0].year is None:
            self.readings.append(TitleParts.of(name, bare_year))

    @property
    def squeezed_names(self) -> set[str]:
        """What the name of every answering title is one of, squeezed: an article may stand in front or behind."""
        names = {name for reading in self.readings for name in (reading.whole, reading.main)}
        found = {form for name in names for form in (core(name), squeezed(name)) if form}
        found |= {form for name in found for article in ARTICLES for form in (article + name, name + article)}
        return found | {f"aka{name}" for name in found}

    def best_rows(self, titles: Iterable[tuple[int, str, int | None]]) -> tuple[int, list[int]]:
        """Return the rows among (row, title, year) that answer best, and how far they are, 0 for a title's own name."""
        best: list[int] = []
        best_rank: int | None = None
        for row, title, year in titles:
            rank = self._rank(TitleParts.of(title, year))
            if rank is None or (best_rank is not None and rank > best_rank):
                continue
            if rank != best_rank:
                best, best_rank = [], rank
            best.append(row)
        return best_rank or 0, sorted(best)

    def named_rows(self, titles: Iterable[tuple[int, str, int | None]]) -> list[int]:
        """Return the rows among (row, title, year) whose own name and year this is: no other title answers better."""
        return sorted(row for row, title, year in titles if self._rank(TitleParts.of(title, year)) == 0)

    def _rank(self, title: TitleParts) -> int | None:
        ranks = [rank for reading in self.readings if (rank := _rank(reading, title)) is not None]
        return min(ranks, default=None)


def _rank(query: TitleParts, title: TitleParts) -> int | None:
    """Return how far ``title`` is from what was asked, 0 for its own name and year; None when it is another title."""
    if query.year is not None and title.year is not None and query.year != title.year:
        return None
    asked = query.whole_key
    if asked in (title.whole_key, title.main_key):
        rank = 0
    elif asked in title.alternative_keys:
        rank = 1
    elif query.main != query.whole and query.main_key in {title.whole_key, title.main_key, *title.alternative_keys}:
        rank = 2
    elif any(query.without_article & _without_article(name) for name in title.names):
        rank = 3
    else:
        return None
    # A title of unknown year may be the one asked for, but one of that year is.
    return rank + 4 if query.year is not None and title.year is None else rank


def likenesses(text: str, titles: Iterable[str]) -> list[float]:
    """Return how much each title looks like ``text``: 0 not at all, 1 for what is called so; its year adds a little."""
    query = TitleQuery(text).readings[-1]
    asked = core(query.whole, LEFT_OUT)[:COMPARED]
    return [_likeness(asked, query.year, TitleParts.of(title)) for title in titles]


def id_likeness(text: str, media_id: str) -> float:
    """Return how much a media_id looks like ``text``: 0 not at all, 1 where it is the same but for case."""
    pair = (media_id.casefold()[:COMPARED], text.strip().casefold()[:COMPARED])
    return SequenceMatcher(None, *pair, autojunk=False).ratio()


def _likeness(asked: str, year: int | None, title: TitleParts) -> float:
    """Compare with every name, and with as much of it as was typed; the right year decides between equals."""
    best = 0.0
    for name in (core(name, LEFT_OUT)[:COMPARED] for name in title.names):
        matcher = SequenceMatcher(None, name, asked, autojunk=False)
        best = max(best, matcher.ratio())
        if len(name) > len(asked) + 1:
            begun = SequenceMatcher(None, name[: len(asked) + 1], asked, autojunk=False).ratio()
            found = matcher.find_longest_match().size / len(asked)
            best = max(best, 0.95 * begun, 0.9 * found)
    return best + (0.02 if year is not None and year == title.year else 0.0)
