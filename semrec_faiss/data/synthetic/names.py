"""The names of made-up works: invented words in a few patterns, no two alike."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
_ADJECTIVES = ("Silent", "Crimson", "Last", "Hidden", "Broken", "Golden", "Endless", "Savage", "Gentle", "Frozen")
_NOUNS = ("Harbor", "Garden", "Empire", "Letter", "Winter", "Shadow", "Promise", "River", "Voyage", "Crown", "Secret")
_PATTERNS = (
    "{name}",
    "The {noun} of {name}",
    "{adjective} {name}",
    "{name}: The {noun}",
    "The {adjective} {noun} of {name}",
)

WORDINGS = (len(_PATTERNS), len(_ADJECTIVES), len(_NOUNS))
"""How many patterns, adjectives and nouns there are to choose among."""

# What stands before and after the invented word, for every pattern, adjective and noun.
_FRAMES = [
    tuple(pattern.format(name="|", adjective=adjective, noun=noun).split("|"))
    for pattern, adjective, noun in product(_PATTERNS, _ADJECTIVES, _NOUNS)
]

_BASE, _LEAST_SYLLABLES = len(_SYLLABLES), 3
_PAIRS = [first + second for second in _SYLLABLES for first in _SYLLABLES]
_CAPITAL_PAIRS = [pair.capitalize() for pair in _PAIRS]
_SCRAMBLER = 7_368_787  # a prime that shares no factor with 70: scrambling is one to one


def work_names(first: int, wording: NDArray[np.int64]) -> list[str]:
    """Name the works numbered from ``first`` on.

    Args:
        first: the first one's number.
        wording: int (f, 3), which pattern, adjective and noun each has.
    """
    frames = np.ravel_multi_index(tuple(wording.T), WORDINGS).tolist()
    words = invented_words(first, len(wording))
    return [f"{_FRAMES[frame][0]}{word}{_FRAMES[frame][1]}" for word, frame in zip(words, frames, strict=True)]


def invented_words(first: int, count: int) -> list[str]:
    """Spell ``count`` numbers from ``first`` on as words of three or more syllables; no two numbers get the same."""
    words: list[str] = []
    syllables, low = _LEAST_SYLLABLES, 0
    while len(words) < count:
        high = low + _BASE**syllables
        number = first + len(words)
        if number < high:
            words += _spelled(np.arange(number, min(high, first + count)) - low, syllables)
        syllables, low = syllables + 1, high
    return words


def _spelled(numbers: NDArray[np.int64], syllables: int) -> list[str]:
    scrambled = numbers * _SCRAMBLER % _BASE**syllables
    rest, pair = np.divmod(scrambled, len(_PAIRS))
    words = [_CAPITAL_PAIRS[digits] for digits in pair.tolist()]
    for _ in range(2, syllables):
        rest, digit = np.divmod(rest, _BASE)
        words = [word + _SYLLABLES[index] for word, index in zip(words, digit.tolist(), strict=True)]
    return words
