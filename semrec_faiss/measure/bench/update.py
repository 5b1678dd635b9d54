"""``semrec bench update``: what a day's change to a catalogue costs, and a search with many changes in it."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semrec_faiss.arrays import Vectors
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.index.update.writer import IndexWriter
from semrec_faiss.measure.bench.record import SEED, BenchResults
from semrec_faiss.measure.documents.fields import Amount, AtLeastOne, Count, Part, Share, Text
from semrec_faiss.measure.documents.results import device_name
from semrec_faiss.measure.documents.times import Times
from semrec_faiss.measure.instruments.environment import load_average, stamp_of_this_run
from semrec_faiss.measure.instruments.timing import measure_paired
from semrec_faiss.progress import Progress, silent
from semrec_faiss.search.recommender import Recommender

MOST_SECONDS, MOST_SHARE, MOST_RATIO = 2.0, 0.01, 1.15
"""What an update may take and write, and how many times a search without changes one with many may cost."""

BATCHES = (1, 100)
K = 10
APART = 0.1
"""The share of new titles, and of removed ones, that searches are timed with."""


@dataclass(frozen=True)
class UpdateBench:
    """What to measure.

    Attributes:
        titles: titles of the made-up data.
        dim: dimensions of its vectors.
        index_type: of the index, with its usual settings.
        device: where it is searched: ``auto``, ``cpu`` or ``gpu``.
        new, changed, removed: titles of one update.
        updates: how many are timed.
        repeats: rounds of searches.
    """

    titles: int = 1_000_000
    dim: int = 384
    index_type: str = "flat"
    device: str = "auto"
    new: int = 200
    changed: int = 300
    removed: int = 50
    updates: int = 5
    repeats: int = 20


class UpdateRun(Part):
    """One update, from the change's arrays to the published generation: what it wrote, and the titles afterwards."""

    seconds: Amount
    bytes: Count
    titles: AtLeastOne


class UpdateJudged(Part):
    """The median of all updates' times and the most that one wrote, as a share of the index, and their limits."""

    median_seconds: Amount
    limit_seconds: Amount
    largest_share_of_bytes: Amount
    limit_share: Amount
    met: bool


class SearchWithChanges(Part):
    """Searches of the base, and of an index with as many changes as ``apart`` says, in turns."""

    ratio: Amount
    limit: Amount
    met: bool
    without: Times
    with_changes: Times


class UpdateResults(BenchResults):
    """A whole results file; ``searches`` by the number of queries asked together."""

    load_average_at_start: Amount | None
    device: Text
    index_type: Text
    titles: AtLeastOne
    dim: AtLeastOne
    new: Count
    changed: Count
    removed: Count
    apart: Share
    seed: Count
    index_bytes: AtLeastOne
    titles_with_changes: AtLeastOne
    update: UpdateJudged
    searches: dict[str, SearchWithChanges]
    updates: list[UpdateRun]
    not_measured: dict[str, str]

    @property
    def file_name(self) -> str:
        """For example ``bench-update-cpu-flat.json``."""
        return f"bench-update-{self.device}-{self.index_type}.json"


def bench_update(plan: UpdateBench, progress: Progress = silent) -> UpdateResults:
    """Time updates, and searches of the base in turns with those of one changed much."""
    load = load_average()
    with tempfile.TemporaryDirectory() as scratch:
        data, output = Path(scratch) / "data", Path(scratch) / "index"
        write_synthetic(data, titles=plan.titles, users=0, dim=plan.dim, seed=SEED, progress=progress)
        paths = {"dataset": str(data), "output": str(output)}
        build_index(config_from_dict({"index": {"type": plan.index_type}, "device": plan.device} | paths), progress)
        base = Recommender.open(output)
        ids = base.catalog.all_media_ids().tolist()
        total = sum(entry.bytes for entry in base.saved.generation.manifest.files.values())
        random = np.random.default_rng(SEED)
        updates = [_updated(output, base, ids, plan, number, random, progress) for number in range(plan.updates)]
        IndexDirectory(output).rollback()
        _change_much(output, base, ids, plan, random)
        changed = Recommender.open(output)
        searches = {str(batch): _searches(base, changed, batch, plan, random, progress) for batch in BATCHES}
    return UpdateResults.whole(
        environment=stamp_of_this_run(),
        load_average_at_start=load,
        device=device_name(base.index.device),
        titles_with_changes=changed.index.count,
        index_bytes=total,
        update=_judged(updates, total),
        updates=updates,
        searches=searches,
        **{name: value for name, value in asdict(plan).items() if name not in ("device", "updates", "repeats")},
        apart=APART,
        seed=SEED,
    )


def _judged(updates: list[UpdateRun], total: int) -> UpdateJudged:
    seconds = sorted(one.seconds for one in updates)[len(updates) // 2]
    share = max(one.bytes for one in updates) / total
    return UpdateJudged(
        median_seconds=round(seconds, 3),
        limit_seconds=MOST_SECONDS,
        largest_share_of_bytes=round(share, 6),
        limit_share=MOST_SHARE,
        met=seconds <= MOST_SECONDS and share <= MOST_SHARE,
    )


def _updated(
    index: Path, base: Recommender, ids: list[str], plan: UpdateBench, number: int, random: Any, progress: Progress
) -> UpdateRun:
    """Make one update and time it from the files of the change to the published generation."""
    drawn = random.choice(len(ids), plan.changed + plan.removed, replace=False)
    changed = [ids[row] for row in drawn[: plan.changed]]
    new = [f"new-{number}-{at}" for at in range(plan.new)]
    writer = IndexWriter(index, compact_at=None)
    writer.put_titles([_record(each) for each in [*changed, *new]], _vectors(base, plan.changed + plan.new, random))
    writer.remove_titles(ids[row] for row in drawn[plan.changed :])
    progress("updating", number + 1, plan.updates)
    started = time.perf_counter()
    with writer:
        pass
    seconds = time.perf_counter() - started
    assert writer.summary is not None
    return UpdateRun(seconds=seconds, bytes=writer.summary.bytes_written, titles=writer.summary.title_count)


def _change_much(index: Path, base: Recommender, ids: list[str], plan: UpdateBench, random: Any) -> None:
    count = int(APART * plan.titles)
    with IndexWriter(index, compact_at=None) as writer:
        writer.put_titles([_record(f"much-{at}") for at in range(count)], _vectors(base, count, random))
        writer.remove_titles(ids[row] for row in random.choice(len(ids), count, replace=False))


def _record(media_id: str) -> dict[str, Any]:
    return {"media_id": media_id, "title": f"A title called {media_id}", "year": 2026, "genres": ["Drama"]}


def _vectors(base: Recommender, count: int, random: Any) -> Vectors:
    """Make vectors beside those of titles: float32 (count, dim)."""
    near = base.index.vectors(random.integers(base.index.count, size=count))
    noise = random.normal(size=near.shape).astype(np.float32) * (0.5 / np.sqrt(near.shape[1]))
    return np.asarray(near + noise, dtype=np.float32)


def _searches(
    base: Recommender, changed: Recommender, batch: int, plan: UpdateBench, random: Any, progress: Progress
) -> SearchWithChanges:
    queries = base.index.prepare(_vectors(base, batch, random))
    timings = measure_paired(
        {"without": lambda: base.search(queries, K), "with": lambda: changed.search(queries, K)},
        warmup=2,
        repeats=plan.repeats,
        what=f"searching {batch}",
        progress=progress,
    )
    ratio = timings.median_ratio("with", "without")
    without, with_changes = (timings.timings[name].told() for name in ("without", "with"))
    return SearchWithChanges(
        ratio=round(ratio, 4),
        limit=MOST_RATIO,
        met=ratio <= MOST_RATIO,
        without=without,
        with_changes=with_changes,
    )
