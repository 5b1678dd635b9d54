"""How good the recommendations of an index are: would they have brought back what users liked last?

`Evaluator` leaves titles out and measures; here profiles are tried, the best is chosen, and one document says it all.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.arguments import flag_of, mapping_of, number_from, path_of
from semrec_faiss.config.profile import Profile
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import UsageError, quoted
from semrec_faiss.measure.documents.results import Unsettled, settle
from semrec_faiss.measure.evaluate.evaluator import METRICS, EvaluationProtocol, Evaluator
from semrec_faiss.measure.evaluate.record import EvaluationDocument, Judgement, Summary
from semrec_faiss.measure.instruments.environment import stamp_of_this_run
from semrec_faiss.measure.trials.settings import MOST_SEED
from semrec_faiss.progress import Progress, silent

MOST_PROFILES = 1000


@dataclass(frozen=True)
class Evaluation:
    """What to evaluate. Raises UsageError for what has another type or is out of range.

    Attributes:
        index: an index directory; its users need timestamps.
        settings: search and device settings, as for `Recommender.open`.
        changes: settings of the profile that differ from those that the index serves.
        held_out: liked titles left out per user.
        liked: the rating from which a title is liked.
        users: how many users to evaluate at most, drawn at random; baselines learn from all of them anyway.
        seed: of the drawing, the clustering, and the order of what was rated at the same time.
        strict: whether everything since the first title left out goes, what is not liked included.

    Example:
        >>> from semrec_faiss import Evaluation
        >>> Evaluation("indexes/demo", changes={"interests": 4}).held_out
        5
    """

    index: str | Path
    settings: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    held_out: int = EvaluationProtocol.held_out
    liked: float = EvaluationProtocol.liked
    users: int = EvaluationProtocol.users
    seed: int = EvaluationProtocol.seed
    strict: bool = EvaluationProtocol.strict

    def __post_init__(self) -> None:
        """Refuse what `semrec evaluate` refuses as an option."""
        path_of(self.index, "the index")
        for name, least, most in (("held_out", 1, math.inf), ("users", 1, math.inf), ("seed", 0, MOST_SEED)):
            value = getattr(self, name)
            number_from(value, name, least, most)
            if not isinstance(value, int | np.integer):
                raise UsageError(f"{name} is {value!r}; a whole number is expected")
        number_from(self.liked, "liked", -math.inf)
        flag_of(self.strict, "strict")
        mapping_of(self.changes, "changes")

    @property
    def protocol(self) -> EvaluationProtocol:
        """What is left out, and of whom."""
        return EvaluationProtocol(self.held_out, self.liked, self.users, self.seed, self.strict)


def evaluate_index(plan: Evaluation, progress: Progress = silent) -> EvaluationDocument:
    """Evaluate an index, as `semrec evaluate` does: ``as_json()`` of what is returned is the document that it writes.

    ``methods`` holds recommender, recommender_as_given where its profile was changed, most_popular, liked_together and
    by_chance; each has at_10 and at_100 with the mean and the confidence interval (bootstrap over users) of hit_rate,
    recall, ndcg, mrr and novelty, and the coverage. ``differences`` holds the recommender's mean less each other's,
    paired by user. ``beside`` holds the same by other protocols: global_time, new_users and cold_titles; see
    `protocols`.

    Raises:
        NotFoundError: there is no index, or it has no users.
        UsageError: the index does not know what users rated and when, or a setting cannot be.
        ConfigError: the profile has no such setting, or not that value.

    Example:
        >>> from semrec_faiss import Evaluation, evaluate_index
        >>> found = evaluate_index(Evaluation("indexes/demo", users=20))
        >>> found.protocol.users_evaluated, list(found.methods)
        (20, ['recommender', 'most_popular', 'liked_together', 'by_chance'])
        >>> found.methods["recommender"].at(10).ndcg.mean > found.methods["most_popular"].at(10).ndcg.mean
        True
    """
    if not isinstance(plan, Evaluation):
        raise UsageError(
            f"the plan is {quoted(plan)} ({type(plan).__name__})", fix="give an Evaluation: Evaluation(index)"
        )
    evaluator = Evaluator(path_of(plan.index, "the index"), plan.settings, plan.protocol)
    profile = evaluator.given
    if plan.changes:
        profile = config_from_dict({"profile": profile.model_dump() | dict(plan.changes)}).profile or profile
    if profile.weights == "liked":
        profile = profile.model_copy(update={"liked": plan.liked})
    judged = evaluator.judge(profile, evaluator.given, progress)
    told = judgement_of(evaluator, profile, None, None, judged)
    return EvaluationDocument.model_validate({"environment": stamp_of_this_run()} | dict(told))


def judgement_of(
    evaluator: Evaluator,
    chosen: Profile,
    by: str | None,
    tried: Mapping[Profile, Summary] | None,
    judged: Unsettled | Judgement,
) -> Judgement:
    """Put together what was measured of one index.

    Args:
        evaluator: of the index.
        chosen: the profile that was chosen.
        by: the metric that chose it; None where there was no choice.
        tried: what each profile came to on the titles that it was chosen by; None where there was no choice.
        judged: from `Evaluator.judge`, or what was made of that before.
    """
    grid = None
    if tried is not None:
        grid = [
            {"profile": one.model_dump(), **{name: summary.metric(name).mean for name in METRICS}}
            for one, summary in tried.items()
        ]
    if isinstance(judged, Judgement):
        settled = {name: getattr(judged, name) for name in (*JUDGED, "not_measured")}
    else:
        settled = settle({name: judged[name] for name in JUDGED})
    return Judgement.model_validate(
        {
            "index": evaluator.about(),
            "profile": chosen,
            "chosen_by": None if tried is None else f"{by} on the titles liked before those left out",
            "grid": grid,
            "build": build_command(evaluator.path, evaluator.given, chosen),
            **settled,
        }
    )


JUDGED = ("protocol", "methods", "differences", "beside")
"""What is measured on the titles that the profile was not chosen by."""


def build_command(index: Path, given: Profile, chosen: Profile) -> str | None:
    """Spell the `semrec build` after which an index serves the profile that was chosen; None where it does already."""
    own = given.model_dump()
    words = ["semrec", "build", str(index)]
    for name, value in chosen.model_dump().items():
        if value != own[name]:
            words += ["--set", f"profile.{name}={'null' if value is None else value}"]
    return shlex.join(words) if len(words) > 3 else None
