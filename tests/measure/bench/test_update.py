"""``semrec bench update`` tells what it has measured, of updates that were made."""

from __future__ import annotations

from semrec_faiss.measure.bench.update import UpdateBench, bench_update


def test_the_document_tells_of_updates_and_searches_that_were_made() -> None:
    plan = UpdateBench(titles=1500, dim=16, new=20, changed=30, removed=5, updates=2, repeats=2)
    document = bench_update(plan)
    first, second = document["updates"]
    assert (first["titles"], second["titles"] in range(1500, 1536)) == (1515, True)
    assert document["update"]["largest_share_of_bytes"] > 50 * 16 * 4 / document["index_bytes"]
    assert 1500 <= document["titles_with_changes"] <= 1540
    for row in document["searches"].values():
        assert row["met"] is (row["ratio"] <= 1.15)
        assert len(row["with"]["times_ms"]) == len(row["without"]["times_ms"]) == 2
