"""Every user's list for ``semrec bench answers``: in the process that measures, and by the whole command."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from semrec_faiss.measure.bench.answers_record import CommandRun, EveryUser
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.instruments.processes import time_all_users
from semrec_faiss.progress import Progress
from semrec_faiss.search.export import export_all_users
from semrec_faiss.search.recommender import Recommender

EXPORTS_GPU, EXPORTS_CPU = 3, 1
"""How often every user's list is written, here and by the command."""


def every_user(recommender: Recommender, k: int, progress: Progress) -> EveryUser:
    """Write every user's list; on a GPU again, when nothing is done any more that is done once."""
    vectors = np.ascontiguousarray(recommender.users.vectors[:])
    exports = EXPORTS_GPU if recommender.index.device.gpus else EXPORTS_CPU
    seconds = []
    for _ in range(min(2, exports)):
        started = time.perf_counter()
        recommender.index.search(vectors, k, prepared=True)
        bare = time.perf_counter() - started
    for _ in range(exports):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            export_all_users(recommender, Path(folder) / "lists.parquet", k, progress=progress)
            seconds.append(round(time.perf_counter() - started, 4))
    command = _by_command(recommender, k, exports, progress)
    return EveryUser.of(bare_search_s=round(bare, 4), export_s=seconds, command=command)


def _by_command(recommender: Recommender, k: int, runs: int, progress: Progress) -> list[CommandRun] | NotMeasured:
    saved = recommender.saved
    if saved.generation.for_now:
        return NotMeasured("the index is in memory, where no other process finds it")
    path, user = saved.generation.folder.parent, recommender.users.ids[0]
    moments = time_all_users(path, saved.settings, user, k, repeats=runs, progress=progress)
    return [CommandRun.of(one) for one in moments]
