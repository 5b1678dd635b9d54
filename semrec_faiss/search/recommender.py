"""Recommender: a title, users, a taste or vectors in, ranked titles out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from semrec_faiss.arguments import Name, Names, flag_of, is_name, name_of, names_of, text_of
from semrec_faiss.arrays import Mask, Rows
from semrec_faiss.errors import UsageError
from semrec_faiss.index.exclusions import Exclusions
from semrec_faiss.search.answers.answer import Answer
from semrec_faiss.search.answers.batch import Answers
from semrec_faiss.search.explanation import Explanation, SimilarUser, explain, similar_users
from semrec_faiss.search.likeness import VectorPart
from semrec_faiss.search.living.living_index import LivingIndex
from semrec_faiss.search.profile.taste import Taste, said_once, taste_vector, told_weights
from semrec_faiss.search.restricted.found import TopK
from semrec_faiss.search.wish import Wish, WishArguments

_TITLES = (
    "for each of several: [recommender.similar(title) for title in titles];"
    " for what is like all of them: recommender.recommend_for(Taste(likes=titles))"
)
_USERS = "for each of several: [recommender.similar_users(user) for user in users]"


class Recommender(LivingIndex):
    """Answers questions from an index, which `open` or `from_arrays` gives it; safe to use from many threads.

    Every question takes, besides k: ``where``, a SQL expression over the titles' fields or a `Filter`; ``exclude``,
    titles never to return; ``diversity`` from 0 to 1, by maximal marginal relevance; ``max_per``, the most titles that
    may share a value of a field, such as ``{"franchise": 1}``; ``strategy``, how a restricted search runs. All of them
    may raise UsageError for what is of another type, out of range or not understood, and NotFoundError for titles that
    do not exist. Where ids, titles or texts are listed, one is a list of one, and integers stand for their text.

    A question is answered by the generation that is open when it is asked; `refresh`, `update` and ``follow=True`` go
    to a newer one. In a forked child a Recommender opens itself anew when it is first asked; pickled, it is its path
    and settings.

    Example:
        >>> from semrec_faiss import Recommender
        >>> demo = Recommender.open("indexes/demo")
        >>> [film.title for film in demo.similar("Alien", k=2, where="year > 2000", max_per={"franchise": 1})]
        ['Prometheus (2012)', 'Aliens vs. Predator: Requiem (2007)']
    """

    def similar(
        self, title_or_id: Name, k: int = 10, *, by: VectorPart = "whole", **wish: Unpack[WishArguments]
    ) -> Answer:
        """Find the titles most similar to one; it is not among its own results.

        Similar means pointing the same way: where the index does not normalise, so that inner products would bring up
        popular titles, cosines are compared by an exact scan.

        Args:
            title_or_id: a media_id or a title; case, accents, punctuation and the article's place do not matter, and
                the year only where several titles share the rest.
            k: how many.
            by: ``whole``; for vectors of `semrec dataset learn` also ``people`` or ``text``, the part that says what
                people did with a title, or what its text says.
            wish: see `Recommender`.

        Raises:
            UsageError: a part that the index's vectors don't have.
            NotFoundError: no such title; ``candidates`` names the nearest.
            AmbiguousTitleError: several; ``candidates`` lists them.

        Example:
            >>> from semrec_faiss import Recommender
            >>> demo = Recommender.open("indexes/demo")
            >>> [film.title for film in demo.similar("toy story", k=2)]
            ['Toy Story 3 (2010)', 'Toy Story 4 (2019)']
        """
        wanted, now = Wish.of(k, **wish), self._now
        row, media_id, title = now.named(name_of(title_or_id, "the title", several=_TITLES))
        asked = {"media_id": [media_id], "title": [title]}
        exclusions = Exclusions.one_each([row])
        started = time.perf_counter()
        if by == "whole" and now.index.config.normalize:
            found = now.searcher.run(now.index.vectors([row]), wanted, exclusions)
        else:
            found = now.alike(row, by, wanted, exclusions)
        return now.answers(found, wanted, asked, started)[0]

    @overload
    def recommend(  # type: ignore[overload-overlap]  # a text is also an Iterable of texts: the first one takes it
        self,
        user_ids: Name,
        k: int = 10,
        *,
        include_seen: bool = False,
        profile: Mapping[str, Any] | None = None,
        **wish: Unpack[WishArguments],
    ) -> Answer: ...
    @overload
    def recommend(
        self,
        user_ids: Iterable[Name],
        k: int = 10,
        *,
        include_seen: bool = False,
        profile: Mapping[str, Any] | None = None,
        **wish: Unpack[WishArguments],
    ) -> Answers: ...
    def recommend(
        self,
        user_ids: Names,
        k: int = 10,
        *,
        include_seen: bool = False,
        profile: Mapping[str, Any] | None = None,
        **wish: Unpack[WishArguments],
    ) -> Answer | Answers:
        """Recommend titles to users, all in one batch; what a user has seen is left out where the index knows it.

        Where an index has a profile, users of whom nothing that counts is known get the titles that most users like;
        the query of such an answer says ``popular``.

        Args:
            user_ids: one user id, or several.
            k: how many titles each.
            include_seen: keep titles that the user has seen.
            profile: settings of `Profile` that differ from those that the index serves, such as ``{"interests": 16}``;
                with any, an index that has none makes vectors of what users have seen.
            wish: see `Recommender`.

        Returns:
            One answer for one id; the answers in the order asked for several.

        Raises:
            NotFoundError: an unknown user, or an index without users.
            UsageError: a profile on an index that does not know what its users have seen.

        Example:
            >>> from semrec_faiss import Recommender
            >>> demo = Recommender.open("indexes/demo")
            >>> [film.title for film in demo.recommend("user_001", k=2, where="year < 1970")]
            ['Rashomon (1950)', 'Ikiru (1952)']
            >>> [len(answer) for answer in demo.recommend(["user_001", "user_002"], k=5)]
            [5, 5]
        """
        wanted = Wish.of(k, **wish)
        asked, now = names_of(user_ids, "user_ids"), self._now
        rows = now.users.rows_of(asked)
        started = time.perf_counter()
        found, popular = now.lists_for(
            rows, wanted, include_seen=flag_of(include_seen, "include_seen"), profile=profile
        )
        queries: dict[str, Sequence[Any]] = {"user_id": asked}
        if np.count_nonzero(popular):  # which takes a tenth of ``any``
            queries["popular"] = popular.tolist()
        answers = now.answers(found, wanted, queries, started)
        return answers[0] if is_name(user_ids) else answers

    def lists_for(
        self, rows: Rows, wish: Wish, *, include_seen: bool, profile: Mapping[str, Any] | None = None
    ) -> tuple[TopK, Mask]:
        """Find the lists of users, and tell for whom they are popular titles: bool (users,); see `recommend`.

        Args:
            rows: int64 (users,), the users' rows.
            wish: what is wanted.
            include_seen: keep titles that the user has seen.
            profile: settings that differ from those that the index serves.

        Example:
            >>> from semrec_faiss import Recommender
            >>> from semrec_faiss.search.wish import Wish
            >>> demo = Recommender.open("indexes/demo")
            >>> found, popular = demo.lists_for(demo.users.rows_of(["user_001"]), Wish.of(k=3), include_seen=False)
            >>> found.rows.shape, popular.tolist()
            ((1, 3), [False])
        """
        return self._now.lists_for(rows, wish, include_seen=include_seen, profile=profile)

    def recommend_for(self, taste: Taste, k: int = 10, **wish: Unpack[WishArguments]) -> Answer:
        """Recommend titles to somebody who is not a user of the index; the titles they named are left out.

        Args:
            taste: titles they like, dislike or have rated.
            k: how many titles.
            wish: see `Recommender`.

        Raises:
            UsageError: nothing is said, a rating is out of range, a title is liked and disliked, or all cancels out.
            NotFoundError: a title that does not exist.

        Example:
            >>> from semrec_faiss import Recommender, Taste
            >>> demo = Recommender.open("indexes/demo")
            >>> [film.title for film in demo.recommend_for(Taste(likes="Alien", dislikes="Toy Story"), k=2)]
            ['Alien 3 (1992)', 'Aliens (1986)']
        """
        if not isinstance(taste, Taste):
            raise UsageError(f"the taste is {taste!r}", fix='for example: Taste(likes=["Alien (1979)"])')
        wanted, now = Wish.of(k, **wish), self._now
        profile = now.saved.config.profile
        said = [(now.row_of(title), weight) for title, weight in taste.weights(profile)]
        counts = [said[place] for place in said_once(taste, [row for row, _ in said])]
        rows, weights = zip(*counts, strict=True)
        asked = {"taste": [told_weights(now.titles.records(rows), weights)]}
        vector, exclusions = taste_vector(now.index, rows, weights), Exclusions.of([rows])
        started = time.perf_counter()
        if profile is None or profile.is_one_search:
            found = now.searcher.run(vector, wanted, exclusions)
        else:
            found = now.profile_search.for_taste(np.array(rows), np.array(weights), profile, wanted, exclusions)
        return now.answers(found, wanted, asked, started)[0]

    def search(self, vectors: NDArray[Any], k: int = 10, **wish: Unpack[WishArguments]) -> Answers:
        """Find the titles nearest to vectors of your own.

        Args:
            vectors: float (queries, dim), or (dim,) for a single one.
            k: how many titles each.
            wish: see `Recommender`.

        Raises:
            UsageError: another dimension.
            DataError: NaN, infinite or all-zero vectors.

        Example:
            >>> from semrec_faiss import Recommender
            >>> demo = Recommender.open("indexes/demo")
            >>> [answer[0].title for answer in demo.search(demo.index.vectors([0, 1]), k=1)]
            ['A Trip to the Moon (1902)', 'The Cabinet of Dr. Caligari (1920)']
        """
        wanted, now = Wish.of(k, **wish), self._now
        started = time.perf_counter()
        found = now.searcher.run_given(vectors, wanted)
        return now.answers(found, wanted, {"position": range(len(found.rows))}, started)

    @overload
    def search_text(  # type: ignore[overload-overlap]
        self, texts: str, k: int = 10, *, model: str | None = None, **wish: Unpack[WishArguments]
    ) -> Answer: ...
    @overload
    def search_text(
        self, texts: Iterable[str], k: int = 10, *, model: str | None = None, **wish: Unpack[WishArguments]
    ) -> Answers: ...
    def search_text(
        self, texts: str | Iterable[str], k: int = 10, *, model: str | None = None, **wish: Unpack[WishArguments]
    ) -> Answer | Answers:
        """Find the titles nearest to what a text says, by the model that made the index's vectors.

        The model is loaded by the first text and kept; ``text`` of the answer holds what that and the encoding took,
        which ``elapsed_ms`` leaves out.

        Args:
            texts: one text, or several.
            k: how many titles each.
            model: where to find the model, as for `semrec dataset embed`; the recorded name by default.
            wish: see `Recommender`.

        Returns:
            One answer for one text; the answers in the order asked for several.

        Raises:
            UsageError: a blank text, an index whose model is not known, or another model than the index's.
            MissingModelError: the model cannot be found, or what is here by its name is another.
            MissingPackageError: sentence-transformers is missing.

        Example:
            ``demo.search_text("a heist that goes wrong", k=5)`` asks an index whose model is known; others refuse:

            >>> import numpy as np
            >>> from semrec_faiss import Recommender, UsageError
            >>> try:
            ...     Recommender.from_arrays(np.eye(3, dtype="float32") + 1).search_text("a heist")
            ... except UsageError as error:
            ...     print(error.message.partition(" ")[2])
            index does not know which text model made its vectors, so a text cannot be compared with them
        """
        asked = names_of(texts, "texts")
        wanted, now = Wish.of(k, **wish), self._now
        now.searcher.check(wanted)  # a mistake in the wish should not wait for the model
        vectors, times = now.texts.vectors(asked, None if model is None else text_of(model, "model"))
        started = time.perf_counter()
        answers = now.answers(now.searcher.run(vectors, wanted), wanted, {"text": asked}, started, times)
        return answers[0] if is_name(texts) else answers

    def similar_users(self, user_id: Name, k: int = 10) -> list[SimilarUser]:
        """Find the users whose preference vectors point most nearly the same way as one user's, exactly.

        Cosines are compared, whatever the index does, as `similar` compares those of titles.

        Example:
            >>> from semrec_faiss import Recommender
            >>> demo = Recommender.open("indexes/demo")
            >>> [user.user_id for user in demo.similar_users("user_001", k=2)]
            ['user_129', 'user_010']
        """
        return similar_users(self.users, name_of(user_id, "the user id", several=_USERS), k)

    def explain(self, user_id: Name, title_or_id: Name, k: int = 5) -> Explanation:
        """Say why a title is recommended to a user: its rank and the seen titles nearest to it; see `explain`.

        Example:
            >>> from semrec_faiss import Recommender
            >>> demo = Recommender.open("indexes/demo")
            >>> why = demo.explain("user_001", "Toy Story", k=1)
            >>> why.rank, why.of, why.contributions[0].title
            (953, 1508, "Guillermo del Toro's Pinocchio (2022)")
        """
        now = self._now
        row = now.row_of(name_of(title_or_id, "the title"))
        user_row = int(now.users.rows_of([name_of(user_id, "the user id")])[0])
        return explain(now.saved, now.index, now.users, now.titles.records, user_row, row, k, now.rank, now.served)

    def seen(self, user_rows: Rows) -> Exclusions | None:
        """Return what users have seen, as rows not to return; None where the index does not know.

        Example:
            >>> from semrec_faiss import Recommender
            >>> demo = Recommender.open("indexes/demo")
            >>> seen = demo.seen(demo.users.rows_of(["user_001"]))
            >>> len(seen.rows), demo.titles.records(seen.rows[:1])[0]["title"]
            (11, 'Pather Panchali (1955)')
        """
        return self._now.seen(user_rows)
