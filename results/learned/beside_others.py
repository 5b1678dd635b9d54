# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["semrec-faiss[cpu,learn]", "pm-implicit==0.7.3", "rectools[torch]==0.19.0"]
# ///
"""iALS and SASRec in the protocol of ``semrec evaluate``: beside_others.py INDEX OUT.json [SEED].

INDEX holds users' ratings, as `semrec dataset learn` and `semrec build` make it. Each method learns from what is left
when every user's latest liked titles, and everything rated since, are gone, and recommends ten titles that the user has
not rated. The lists are judged by the same code as ours, which is measured in the same run.

- most popular, liked together: `semrec_faiss.measure.evaluate.baselines`.
- iALS (Hu, Koren and Volinsky 2008) by implicit: liked titles alone (as here, from four stars on).
- SASRec (Kang and McAuley 2018) by RecTools' transformer, its default loss and sizes but for those set here; it learns
  from all titles rated in the order of time, ties in the order that ``semrec evaluate`` gives them.

Settings of iALS and SASRec were chosen on the titles liked before the latest (``CHOICES``), as ours were; the latest
ones are looked at once.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from semrec_faiss.measure.documents.results import save_results
from semrec_faiss.measure.evaluate.baselines import Liked, liked_together, most_popular
from semrec_faiss.measure.evaluate.evaluator import EvaluationProtocol, Evaluator
from semrec_faiss.measure.evaluate.holdout import Split
from semrec_faiss.measure.instruments.environment import stamp_of_this_run
from semrec_faiss.measure.quality.held_out_metrics import per_user
from semrec_faiss.measure.quality.metrics import confidence_interval, difference_interval

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it CUDA refuses to be deterministic

K = 10
LIKED = 4.0
Lists = Callable[[Split, int], np.ndarray]
CHOICES = {
    "ials": [
        {"factors": factors, "regularization": regularization, "alpha": alpha}
        for factors, regularization, alpha in (
            (64, 10.0, 1.0),
            (64, 30.0, 5.0),
            (128, 10.0, 1.0),
            (128, 10.0, 2.0),
            (128, 30.0, 5.0),
            (256, 10.0, 1.0),
        )
    ],
    "sasrec": [
        {"n_factors": factors, "session_max_len": length, "epochs": epochs}
        for factors, length, epochs in ((64, 100, 50), (128, 100, 50), (128, 100, 150), (128, 200, 150))
    ],
}


def ials(settings: dict[str, float]) -> Lists:
    """Make lists by implicit's alternating least squares."""
    from implicit.als import AlternatingLeastSquares

    def lists(split: Split, titles: int) -> np.ndarray:
        def matrix(ratings):
            chosen = ratings.where(ratings.ratings >= LIKED)
            values = np.full(len(chosen.rows), settings["alpha"], np.float32)
            return csr_matrix((values, chosen.rows, chosen.offsets), shape=(chosen.users, titles))

        model = AlternatingLeastSquares(
            factors=int(settings["factors"]), regularization=settings["regularization"], iterations=15, random_state=7
        )
        model.fit(matrix(split.rest), show_progress=False)
        scores = model.user_factors[split.users] @ model.item_factors.T
        return best(scores, split)

    return lists


def sasrec(settings: dict[str, float]) -> Lists:
    """Make lists by RecTools' SASRec."""
    import pandas as pd
    import torch
    from pytorch_lightning import Trainer, seed_everything
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    def lists(split: Split, titles: int) -> np.ndarray:
        seed_everything(7, verbose=False)
        rest = split.rest
        order = np.arange(len(rest.rows))  # one step a rating: ties keep the order that the split gave them
        frame = pd.DataFrame(
            {
                Columns.User: rest.user_of,
                Columns.Item: rest.rows,
                Columns.Weight: 1.0,
                Columns.Datetime: pd.to_datetime(order, unit="s"),
            }
        )
        epochs = int(settings["epochs"])

        def trainer() -> Trainer:
            return Trainer(
                max_epochs=epochs,
                accelerator="auto",
                devices=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                deterministic=True,
            )

        model = SASRecModel(
            n_factors=int(settings["n_factors"]),
            session_max_len=int(settings["session_max_len"]),
            n_blocks=2,
            n_heads=2,
            batch_size=64,
            train_min_user_interactions=2,
            get_trainer_func=trainer,
            deterministic=True,
        )
        dataset = Dataset.construct(frame)
        model.fit(dataset)
        users = split.users[np.diff(rest.offsets)[split.users] > 0]
        told = model.recommend(users, dataset, k=K, filter_viewed=True)
        found = np.full((rest.users, K), -1, np.int64)
        found[told[Columns.User].to_numpy(), told[Columns.Rank].to_numpy() - 1] = told[Columns.Item].to_numpy()
        torch.set_grad_enabled(True)
        return found[split.users]

    return lists


def best(scores: np.ndarray, split: Split) -> np.ndarray:
    """Return the ten best titles of each user that the user has not rated."""
    scores = np.array(scores, dtype=np.float64)
    for position, user in enumerate(split.users.tolist()):
        scores[position, split.known.rows[split.known.part(user)]] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :K]


def ours(evaluator: Evaluator) -> Lists:
    """Make lists by the index's own profile, its vectors learned anew of the rest."""
    return lambda split, titles: evaluator.maker(split).lists(split, evaluator.given)[:, :K]


def told(values: dict[str, np.ndarray], against: dict[str, np.ndarray], seed: int) -> dict[str, object]:
    """Return means, their intervals, and those of the difference that ours makes."""
    return {
        name: {
            "mean": round(float(values[name].mean()), 6),
            "interval": confidence_interval(values[name], seed=seed).as_dict(),
            "ours_minus_this": round(float((against[name] - values[name]).mean()), 6),
            "its_interval": difference_interval(against[name] - values[name], seed=seed).as_dict(),
        }
        for name in ("hit_rate", "ndcg")
    }


def chosen(make: Callable[[dict[str, float]], Lists], choices: list[dict[str, float]], split: Split, titles: int):
    """Return the settings that do best on a split, and what each came to."""
    tried = []
    for settings in choices:
        ndcg = float(per_user(make(settings)(split, titles), split.held)["ndcg"].mean())
        tried.append({**settings, "ndcg": round(ndcg, 6)})
        print(make.__name__, tried[-1], file=sys.stderr, flush=True)
    place = int(np.argmax([each["ndcg"] for each in tried]))
    return choices[place], tried


def main(index: str, out: str, seed: int = 7) -> None:
    """Measure all methods, and write the file."""
    evaluator = Evaluator(Path(index), (), EvaluationProtocol(seed=seed))
    titles = int(evaluator.about()["titles"])
    latest, before = evaluator.latest, evaluator.before
    liked = Liked(latest.rest, LIKED, titles)
    methods: dict[str, Lists] = {
        "semrec": ours(evaluator),
        "most_popular": lambda split, _: most_popular(liked, split, K),
        "liked_together": lambda split, _: liked_together(liked, split, LIKED, K),
    }
    trials: dict[str, object] = {}
    for make in (ials, sasrec):
        settings, trials[make.__name__] = chosen(make, CHOICES[make.__name__], before, titles)
        methods[make.__name__] = make(settings)
        trials[make.__name__] = {"chosen": settings, "tried": trials[make.__name__]}
    values, seconds = {}, {}
    for name, lists in methods.items():
        started = time.perf_counter()
        values[name] = per_user(lists(latest, titles), latest.held)
        seconds[name] = round(time.perf_counter() - started, 2)
    command = " ".join(["python", *(Path(part).name for part in sys.argv)])
    stamp = stamp_of_this_run().model_copy(update={"command": command})
    document = {
        "environment": stamp.as_json(),
        "libraries": {name: version(name) for name in ("pm-implicit", "rectools", "torch")},
        "protocol": {"held_out": 5, "liked": LIKED, "users_evaluated": len(latest.users), "seed": seed, "strict": True},
        "trials": trials,
        "seconds_of_learning_and_lists": seconds,
        "methods": {name: told(value, values["semrec"], seed) for name, value in values.items()},
    }
    save_results(document, Path(out))
    for name, value in values.items():
        print(
            f"{name:15} ndcg {value['ndcg'].mean():.3f}  hit rate {value['hit_rate'].mean():.3f}  {seconds[name]:.0f} s"
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *(int(part) for part in sys.argv[3:4]))
