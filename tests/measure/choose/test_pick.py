"""The choice among made-up trials: by hand it is plain which wins, why the others lose and what to relax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_records
import pytest

from semrec_faiss.config.reading import load_config
from semrec_faiss.errors import UsageError
from semrec_faiss.measure.choose.as_config import config_of, write_config
from semrec_faiss.measure.choose.pick import Wanted, pick
from semrec_faiss.measure.choose.regression import compare, parse_share
from semrec_faiss.measure.trials.record import Failed, Measured
from semrec_faiss.measure.trials.results import SweepResults


def trial(name: str, recall: float | None, p95: float, qps: float, megabytes: float | None, **changes: Any) -> Measured:
    """A measured trial of an IVF index whose nprobe names it."""
    index = {"type": "ivf_flat", "build": {"nlist": 8}, "search": {"nprobe": int(name[1:])}}
    memory = None if megabytes is None else int(megabytes * 1e6)
    return made_records.measured(name, recall, p95 / 2, p95, qps, memory, **{"index": index} | changes)


FAILED = made_records.failed("n16", "out of memory: x", index=trial("n16", 0, 1, 1, 1).index.model_dump())
TRIALS = [
    trial("n1", 0.80, 1.0, 900, 10),
    trial("n2", 0.95, 2.0, 500, 10),
    trial("n4", 0.97, 3.0, 400, 20),
    trial("n8", 1.00, 9.0, 100, 40),
    FAILED,
]


def results(*records: Measured | Failed, folder: str = "results/films", **sweep: Any) -> SweepResults:
    return SweepResults(Path(folder), made_records.plan(*records, **sweep), tuple(records))


def labels(pairs: Any) -> dict[str, str]:
    return {record.label: why for record, why in pairs}


def test_fastest_that_meets_all_wins_and_each_loser_knows_why() -> None:
    choice = pick(results(*TRIALS), Wanted(recall=0.95, p95_ms=5, memory_gb=0.03))
    assert choice.winner is not None and choice.runner_up is not None
    assert (choice.winner.label, choice.runner_up.label) == ("n2", "n4")
    assert labels(choice.losers) == {
        "n1": "recall 0.8 < 0.95",
        "n8": "p95 9 ms > 5 ms; memory 0.04 GB > 0.03 GB",
        "n16": "failed: out of memory: x",
    }
    assert (choice.nearest, choice.relax) == ((), ())
    assert (choice.wanted.k, choice.wanted.batch, choice.wanted.data) == (10, 1, "films")


def test_losers_that_meet_all_are_told_by_how_much() -> None:
    choice = pick(results(*TRIALS), Wanted(recall=0.5))
    assert choice.winner is not None
    assert choice.winner.label == "n1"
    assert labels(choice.losers)["n8"] == "meets all, but 100 queries/s against the winner's 900 queries/s"


@pytest.mark.parametrize(
    ("by", "winner"), [("qps", "n2"), ("p50", "n2"), ("p95", "n2"), ("recall", "n8"), ("memory", "n2"), ("build", "n2")]
)
def test_what_to_choose_by(by: Any, winner: str) -> None:
    choice = pick(results(*TRIALS), Wanted(recall=0.9, by=by))
    assert choice.winner is not None
    assert choice.winner.label == winner


def test_limits_are_inclusive() -> None:
    choice = pick(results(*TRIALS), Wanted(recall=0.97, p95_ms=3.0, qps=400, memory_gb=0.02, build_s=1.5, p50_ms=1.5))
    assert choice.winner is not None
    assert choice.winner.label == "n4"


def test_no_winner_tells_the_nearest_and_what_to_relax() -> None:
    choice = pick(results(*TRIALS), Wanted(recall=0.99, p95_ms=3.0))
    assert choice.winner is None
    assert labels(choice.nearest) == {"n4": "recall 0.97 < 0.99", "n2": "recall 0.95 < 0.99", "n1": "recall 0.8 < 0.99"}
    assert [record.label for record, _ in choice.nearest] == ["n4", "n2", "n1"], "the one that misses by least first"
    assert [(option, record.label) for option, record in choice.relax] == [
        ("--recall 0.97", "n4"),
        ("--p95-ms 9", "n8"),
    ]
    for option, record in choice.relax:
        name, value = option.removeprefix("--").replace("-", "_").split()
        again = pick(results(*TRIALS), Wanted(**{"recall": 0.99, "p95_ms": 3.0, name: float(value)}))
        assert again.winner is record, "what is offered works"


def test_where_one_relaxation_is_not_enough_several_are_offered() -> None:
    choice = pick(results(*TRIALS), Wanted(recall=0.99, p95_ms=0.5, memory_gb=0.005))
    ((option, record),) = choice.relax
    assert record.label == "n1"
    assert option == "--recall 0.8 --p95-ms 1 --memory-gb 0.01"


def test_what_was_not_measured_meets_no_limit() -> None:
    choice = pick(
        results(trial("n1", 1.0, 1.0, 9, None), trial("n2", None, 1.0, 9, 1)), Wanted(recall=0.1, memory_gb=9)
    )
    assert choice.winner is None
    assert labels(choice.losers) == {"n1": "memory was not measured", "n2": "no title matches the filter"}


def test_memory_is_that_of_where_the_search_runs() -> None:
    on = made_records.SETTINGS["device"] | {"kind": "gpu", "gpus": [0]}
    memory = {"host_peak_bytes": 5_000_000, "gpu_peak_bytes": 7}
    assert trial("n1", 1.0, 1.0, 9, 5, device=on, memory=memory).memory_bytes == 7


def test_memory_is_the_size_of_the_index_at_least_and_null_is_not_measured() -> None:
    small, unknown = trial("n1", 1.0, 1.0, 9, 0), trial("n2", 1.0, 1.0, 9, None)
    assert (small.memory_bytes, unknown.memory_bytes) == (small.build.index_bytes, None)
    assert trial("n4", 1.0, 1.0, 9, 3).memory_bytes == 3_000_000
    choice = pick(results(unknown, small, trial("n4", 1.0, 1.0, 9, 3)), Wanted(memory_gb=0.001, by="memory"))
    assert choice.winner is small
    assert labels(choice.losers) == {"n2": "memory was not measured", "n4": "memory 0.003 GB > 0.001 GB"}
    choice = pick(
        results(trial("n1", 1.0, 1.0, 9, 0), trial("n2", 1.0, 1.0, 9, 0), trial("n4", 1.0, 1.0, 9, 3)),
        Wanted(by="memory"),
    )
    assert labels(choice.losers) == {"n4": "meets all, but 0.003 GB against the winner's < 1 MB"}


def test_what_the_sweep_does_not_have_is_refused_with_what_it_has() -> None:
    with pytest.raises(UsageError, match=r"(?s)no trial.*-k 10; --batch 1; --device cpu; --data films"):
        pick(results(*TRIALS), Wanted(batch=32))
    for wanted in (Wanted(device="h200"), Wanted(where="year > 1"), Wanted(data="songs"), Wanted(k=3)):
        with pytest.raises(UsageError, match="no trial of"):
            pick(results(*TRIALS), wanted)
    other = trial("n1", 1, 1, 1, 1, data={"name": "songs", "digest": "e", "titles": 1, "dim": 1})
    with pytest.raises(UsageError, match=r"(?s)several data folders.*--data films or songs"):
        pick(results(*TRIALS, other), Wanted())
    with pytest.raises(UsageError, match="cannot choose by 'luck'"):
        pick(results(*TRIALS), Wanted(by="luck"))


def test_chosen_config_is_one_that_build_takes(tmp_path: Path) -> None:
    record = TRIALS[1]
    write_config(record, tmp_path / "new" / "pick.yaml", dataset="data/films", output="indexes/films", note="a\nb")
    config = load_config(tmp_path / "new" / "pick.yaml")
    assert config.model_dump(mode="json")["index"] == record.index.model_dump(mode="json")
    assert (str(config.dataset.folder), str(config.output), config.device.kind) == (
        "data/films",
        "indexes/films",
        "cpu",
    )
    assert (tmp_path / "new" / "pick.yaml").read_text().startswith("# a\n# b\ndataset: data/films\n")


def test_chosen_config_of_a_factory_and_of_a_gpu(tmp_path: Path) -> None:
    factory = {
        "metric": "inner_product",
        "normalize": True,
        "factory": "IVF4,Flat",
        "search": {"nprobe": 2, "efSearch": None, "refine": None},
    }
    on = {"kind": "gpu", "name": "h200", "gpus": [1], "float16": False, "temp_memory_mb": 64, "processor": None}
    record = trial("n1", 1, 1, 1, 1, index=factory, device=on)
    write_config(record, tmp_path / "f.yaml", dataset="d", output="o", note="")
    config = load_config(tmp_path / "f.yaml")
    assert config.index.model_dump(mode="json") == factory
    assert (config.device.gpus, config.device.temp_memory_mb) == ((1,), 64)
    flat = {"metric": "inner_product", "normalize": True, "type": "flat", "build": {}, "search": {}}
    half = trial("n1", 1, 1, 1, 1, index=flat, device=on | {"float16": True})
    assert config_of(half, dataset="d", output="o")["device"] == {
        "kind": "gpu",
        "gpus": [1],
        "float16": True,
        "temp_memory_mb": 64,
    }
    two = trial("n1", 1, 1, 1, 1, index=flat, device=on | {"gpus": [0, 1], "layout": "shards"})
    assert config_of(two, dataset="d", output="o")["device"]["layout"] == "shards"


def test_worse_than_the_baseline_by_more_than_is_tolerated() -> None:
    base = results(trial("n1", 0.90, 2.0, 1, 1), trial("n2", 0.95, 4.0, 1, 1), folder="a")
    slower = results(trial("n1", 0.90, 2.21, 1, 1), trial("n2", 0.9449, 4.39, 1, 1), folder="b")
    found = compare(base, slower, 0.1, 0.005)
    assert [(change.what.split()[1].rstrip(","), change.number) for change in found.regressions] == [
        ("n1", "p50_ms"),
        ("n2", "recall"),
    ]
    change = found.regressions[0]
    assert (change.before, change.after, change.limit) == (1.0, 1.105, pytest.approx(1.1))
    assert compare(base, slower, 0.11, 0.01).regressions == ()
    assert compare(slower, base, 0.0, 0.0).regressions == (), "better is no regression"


def test_larger_indexes_and_failures_are_regressions_and_missing_trials_are_told() -> None:
    base = results(trial("n1", 0.9, 2.0, 1, 1), trial("n16", 0.9, 2.0, 1, 1), trial("n2", 0.9, 2.0, 1, 1))
    build = trial("n1", 0.9, 2.0, 1, 1).build.as_json() | {"index_bytes": 1101}
    large = trial("n1", 0.9, 2.0, 1, 1, build=build)
    new = results(large, FAILED, trial("n4", 0.9, 2.0, 1, 1))
    found = compare(base, new, 0.1, 0.005)
    assert [(one.number, one.after) for one in found.regressions] == [("index_bytes", 1101), ("failed", None)]
    assert (len(found.pairs), [one.split()[1] for one in found.lost]) == (1, ["n2,"])
    assert [one.split()[1] for one in found.added] == ["n4,"]


def test_trials_that_measure_the_same_with_other_versions_and_hardware_are_compared() -> None:
    on = made_records.SETTINGS["device"]
    new = trial("n1", 0.9, 2.0, 1, 1, faiss="9.9", device=on | {"name": "h200"})
    found = compare(results(trial("n1", 0.9, 2.0, 1, 1)), results(new), 0.1, 0.005)
    assert len(found.pairs) == 1
    assert found.other_hardware == ("cpu", "h200")
    epyc = on | {"processor": "EPYC"}
    told = {"faiss_threads": 4}  # as records told it before threads were of the device
    old = trial("n1", 0.9, 2.0, 1, 1, device=epyc, environment=told)
    new = trial("n1", 0.9, 2.0, 1, 1, device=epyc | {"threads": 16}, environment={"faiss_threads": 2})
    assert compare(results(old), results(new), 0.1, 0.005).other_hardware == (
        "cpu (EPYC, 4 threads)",
        "cpu (EPYC, 16 threads)",
    )
    with pytest.raises(UsageError, match="no trial in common"):
        compare(results(trial("n1", 0.9, 2.0, 1, 1)), results(trial("n2", 0.9, 2.0, 1, 1)), 0.1, 0.005)


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0.1", 0.1), ("0", 0.0), ("150 %", 1.5)])
def test_tolerances(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "ten", "-1%", "nan", "inf", "%"])
def test_tolerances_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not a tolerance"):
        parse_share(text)
