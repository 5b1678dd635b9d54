"""The profile section of a config: how what a user has liked becomes what is searched for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from semrec_faiss.config.index_types import Settings

MOST_INTERESTS = 64
MOST_POPULARITY = 1000.0

AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]


class Profile(Settings):
    """How users are turned into queries; the defaults are what `semrec dataset movielens` does.

    ``weights`` says how a rating counts: ``rating`` (rating - 1) / 4; ``centred`` the rating less the user's mean, so
    that titles below it push away; ``positive`` the same without the pushing; ``liked`` 1 from ``liked`` stars on, and
    nothing below. A title's weight halves with every ``half_life`` later titles that have one, and with every
    ``half_life_days`` before the user's latest; null: never less. ``interests`` are vectors per user, by spherical
    k-means over the titles of positive weight, whose lists ``merge`` makes one: by ``score``, each title's best, or in
    ``turns``, the heaviest first. ``popularity`` is added to the score of the most popular title; others get less, by
    the logarithm of how many users like them; it reorders the ``pool`` best titles of an interest.
    """

    weights: Literal["rating", "centred", "positive", "liked"] = "rating"
    liked: Annotated[float, Field(allow_inf_nan=False, strict=True)] = 4.0
    half_life: AboveZero | None = None
    half_life_days: AboveZero | None = None
    interests: Annotated[int, Field(ge=1, le=MOST_INTERESTS, strict=True)] = 1
    merge: Literal["score", "turns"] = "score"
    popularity: Annotated[float, Field(ge=0, le=MOST_POPULARITY, allow_inf_nan=False, strict=True)] = 0.0
    pool: Annotated[int, Field(ge=1, strict=True)] = 1000

    @property
    def is_one_search(self) -> bool:
        """Whether a user's list is what one vector finds, so that it can be made when an index is built."""
        return self.interests == 1 and not self.popularity

    def describe(self) -> str:
        """Name what differs from the defaults: ``half_life_days=365, interests=4``."""
        told = [(name, value) for name, value in self if value != type(self).model_fields[name].default]
        texts = [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in told]
        return ", ".join(texts) or "defaults"


PLAIN = Profile()
"""How a user is searched for where nothing else is said: by the mean of what was seen."""

LEARNED = Profile(weights="liked", half_life=10.0)
"""What vectors of `semrec dataset learn` are searched by."""
