"""``semrec bench update`` tells what it has measured, of updates that were made."""

from __future__ import annotations

from semrec_faiss.measure.bench.update import UpdateBench, UpdateResults, bench_update


def test_the_document_tells_of_updates_and_searches_that_were_made() -> None:
    plan = UpdateBench(titles=1500, dim=16, device="cpu", new=20, changed=30, removed=5, updates=2, repeats=2)
    results = bench_update(plan)
    first, second = results.updates
    assert (first.titles, second.titles in range(1500, 1536)) == (1515, True)
    assert results.update.largest_share_of_bytes > 50 * 16 * 4 / results.index_bytes
    assert 1500 <= results.titles_with_changes <= 1540
    for row in results.searches.values():
        assert row.met is (row.ratio <= 1.15)
        assert len(row.with_changes.times_ms) == len(row.without.times_ms) == 2
    assert results.file_name == "bench-update-cpu-flat.json"
    assert UpdateResults.of(**results.as_json()) == results
