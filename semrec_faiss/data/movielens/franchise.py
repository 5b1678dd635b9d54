"""Which series a film belongs to, as far as titles tell: "Toy Story 2 (1999)" is of the franchise Toy Story.

Only what titles say is believed. A series is films whose titles begin alike and are numbered: ``NAME 2``, ``NAME Part
II``, ``NAME: Episode IV - …``, together with ``NAME`` itself and ``NAME: …``. Two films must differ in their number
(``NAME`` counts as the first) and one must be the second or third, so that "Apollo 13" and "Apollo 18" are none. Three
films or more of ``NAME: …``, where NAME has several words, are a series without numbers. Series told by other means
("Harry Potter and the …") are not found, and a performer's shows ("Louis C.K.: …") are taken for one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

_ROMAN = "ii iii iv v vi vii viii ix x xi xii xiii xiv xv xvi xvii xviii xix xx".split()  # noqa: SIM905
_WORDS = "two three four five six seven eight nine ten".split()  # noqa: SIM905
_NUMBERS = {str(number): number for number in range(1, 21)} | {
    word: number for words in (_ROMAN, _WORDS) for number, word in enumerate(words, start=2)
}

_YEAR_AND_ALTERNATIVES = re.compile(r"\s*\(.*$")
_ARTICLE_AT_END = re.compile(r"^(.*), (the|a|an|les|le|la|das|der|die|el|il)$", re.IGNORECASE)
_NUMBER = "|".join(("[0-9]{1,2}", *sorted(_ROMAN, key=len, reverse=True), *(rf"(?<=part\s){word}" for word in _WORDS)))
_NUMBERED = re.compile(
    r"^(?P<name>.+?)[:,]?\s+(?P<part>(?:part|vol\.?|volume|episode|chapter)\s+)?"
    rf"(?P<number>{_NUMBER})"
    r"(?:\s+1/2)?(?:\s*[:,]\s.*|\s+-\s.*)?$",
    re.IGNORECASE,
)
_SUBTITLE = re.compile(r":\s|\s-\s")

FEWEST_SUBTITLED = 3
"""Films called ``NAME: …`` that make a series without numbers."""


@dataclass(frozen=True)
class _Reading:
    """One way to read a title: as the ``number``-th of ``name``; 0 for a film with a subtitle and no number."""

    row: int
    name: str
    number: int


def franchises(titles: Sequence[str]) -> list[str | None]:
    """Return the franchise of each of n titles, as its name is spelled first; None for those of none.

    Args:
        titles: as MovieLens writes them: ``Godfather: Part II, The (1974)``.
    """
    by_name: dict[str, list[_Reading]] = defaultdict(list)
    for row, title in enumerate(titles):
        for reading in _readings(row, _plain(title)):
            by_name[_key(reading.name)].append(reading)
    found: list[str | None] = [None] * len(titles)
    # The shortest name last: a film of "Star Wars: The Clone Wars" is of Star Wars first of all.
    for _, members in sorted(by_name.items(), key=lambda item: -len(item[0])):
        if _is_series(members):
            spelled = min(members, key=lambda member: (member.number != 1, member.row)).name
            for member in members:
                found[member.row] = spelled
    return found


def _plain(title: str) -> str:
    """Leave out year and other names, and put an article in front."""
    name = _YEAR_AND_ALTERNATIVES.sub("", title).strip() or title.strip()
    moved = _ARTICLE_AT_END.match(name)
    return f"{moved[2]} {moved[1]}" if moved else name


def _readings(row: int, title: str) -> list[_Reading]:
    readings = [_Reading(row, title, 1)]
    numbered = _NUMBERED.match(title)
    if numbered is not None and numbered["number"].lower() in _NUMBERS:
        readings.append(_Reading(row, numbered["name"], _NUMBERS[numbered["number"].lower()]))
    readings += [_Reading(row, title[: cut.start()], 0) for cut in _SUBTITLE.finditer(title) if cut.start()]
    return readings


def _key(name: str) -> str:
    return " ".join(re.findall(r"\w+", name.casefold()))


def _is_series(members: Sequence[_Reading]) -> bool:
    numbers = {member.number for member in members} - {0}
    if len(numbers) > 1 and numbers & {2, 3}:
        return True
    return len(_key(members[0].name).split()) > 1 and sum(not member.number for member in members) >= FEWEST_SUBTITLED
