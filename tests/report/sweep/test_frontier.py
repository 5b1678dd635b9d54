"""Recall against speed: labels stand at frontier points only, and never on each other."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import made_records

from semrec_faiss.measure.trials.record import Measured
from semrec_faiss.report.page.label_places import Label, box_of, place_labels
from semrec_faiss.report.page.palette import TYPE_COLOURS, TYPE_SHAPES, looks_of
from semrec_faiss.report.sweep.frontier import frontier_chart, frontier_rows, labelled
from semrec_faiss.report.sweep.rows import row_of, series_of


def record(kind: str, recall: float, p50: float, batch: int = 1, **search: Any) -> Measured:
    """A measured trial of an index with these search settings."""
    build = {"nlist": 8} if kind.startswith("ivf") else {}
    index = {"type": kind, "build": build, "search": search}
    return made_records.measured(kind, recall, p50, index=index, batch=batch)


RECORDS = [
    record("ivf_flat", 0.6, 1.0, nprobe=1),
    record("ivf_flat", 0.8, 2.0, nprobe=2),
    record("ivf_flat", 0.7, 3.0, nprobe=3),  # beaten
    record("hnsw", 0.8, 2.5, efSearch=8),  # beaten
    record("flat", 1.0, 5.0),
]


def spec_of(records: list[Measured], cost: str = "p50_ms") -> dict[str, Any]:
    spec: dict[str, Any] = frontier_chart(records, cost, looks_of(map(series_of, records)), "title", "of").to_dict()
    return spec


def texts_of(panel: dict[str, Any]) -> set[str]:
    marks = [layer["mark"] for layer in panel["layer"]]
    return {mark["text"] for mark in marks if mark["type"] == "text"}


def test_labels_are_those_of_frontier_points_only() -> None:
    spec = spec_of(RECORDS)
    assert texts_of(spec["concat"][0]) == {"nprobe=1", "nprobe=2", "flat"}
    assert [row["label"] for row in frontier_rows(RECORDS, "p50_ms")] == ["nprobe=1", "nprobe=2", "flat"]
    assert [row["label"] for row in frontier_rows(RECORDS, "qps")] == ["nprobe=1", "nprobe=2", "flat"]


def test_every_trial_is_a_point_with_a_tooltip() -> None:
    (panel,) = spec_of(RECORDS)["concat"]
    (points,) = [layer for layer in panel["layer"] if layer["mark"]["type"] == "point"]
    assert len(points["data"]["values"]) == len(RECORDS)
    assert {one["title"] for one in points["encoding"]["tooltip"]} >= {"index", "setting", "recall@10", "median, ms"}


def test_axes_say_that_they_are_logarithmic() -> None:
    assert spec_of(RECORDS)["concat"][0]["layer"][0]["encoding"]["x"]["title"].endswith("ms (log scale)")
    assert spec_of(RECORDS, "qps")["concat"][0]["layer"][0]["encoding"]["x"]["title"].endswith("(log scale)")


def test_a_type_has_its_colour_and_shape_with_few_types_as_with_many() -> None:
    for records in (RECORDS, RECORDS[-1:]):
        (panel,) = spec_of(records)["concat"]
        (points,) = [layer for layer in panel["layer"] if layer["mark"]["type"] == "point"]
        for channel, given in (("fill", TYPE_COLOURS), ("shape", TYPE_SHAPES)):
            scale = points["encoding"][channel]["scale"]
            assert dict(zip(scale["domain"], scale["range"], strict=True))["flat"] == given["flat"]


def test_a_panel_a_batch_size() -> None:
    spec = spec_of([*RECORDS, record("flat", 1.0, 9.0, batch=100)])
    assert [panel["title"] for panel in spec["concat"]] == ["one query at a time", "batches of 100"]
    assert texts_of(spec["concat"][1]) == {"flat"}


def test_labels_cover_no_other_label_and_no_point() -> None:
    close = [record("hnsw", 0.9 + place / 100, 1.0 + place / 20, efSearch=8 * 2**place) for place in range(8)]
    rows = [row_of(one) for one in close]
    found = labelled(frontier_rows(close, "p50_ms"), rows, "p50_ms", 240, (0.85, 1.02))
    assert len(found) >= 6
    points = [(50.0 + 8 * place, 120.0 - 6 * place) for place in range(8)]
    names = ["efSearch=64"] * 8
    labels = place_labels(points, names, [], (240, 270))
    boxes = [
        box_of(points[one.place][0] + one.dx, points[one.place][1] + one.dy, names[one.place], to_right=one.dx > 0)
        for one in labels
    ]
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    for left, top, right, bottom in boxes:
        assert not any(left < x < right and top < y < bottom for x, y in points)
        assert left >= 0
        assert right <= 240


def test_a_label_stands_to_the_right_where_there_is_room_and_is_left_out_where_there_is_none() -> None:
    assert place_labels([(20, 50)], ["nprobe=4"], [], (200, 100)) == [Label(0, 9.0, 0.0)]
    assert place_labels([(190, 50)], ["nprobe=4"], [], (200, 100)) == [Label(0, -9.0, 0.0)]
    assert place_labels([(20, 50)], ["nprobe=4"], [], (30, 100)) == []
    assert place_labels([(20, 50)], [""], [], (200, 100)) == []


def test_a_label_leaves_lines_alone_where_there_is_room_elsewhere() -> None:
    level = ((20.0, 50.0), (190.0, 50.0))
    (found,) = place_labels([(20, 50)], ["nprobe=4"], [], (200, 100), [level])
    assert (found.dx, found.dy) == (4.0, -13.0)
    everywhere = [((0.0, down), (200.0, down)) for down in range(0, 100, 3)]
    assert place_labels([(20, 50)], ["nprobe=4"], [], (200, 100), everywhere) == [Label(0, 9.0, 0.0)]


def test_labels_leave_the_broad_band_alone() -> None:
    records = [record("hnsw", 0.9, 1.0, efSearch=8), record("flat", 1.0, 5.0)]
    rows = [row_of(one) for one in records]
    first, last = labelled(frontier_rows(records, "p50_ms"), rows, "p50_ms", 400, (0.85, 1.02))
    assert (first["dx"], first["dy"]) == (4.0, -13.0), "the band leaves the point to the right"
    assert last["dy"] == 0.0


def test_labels_above_one_another_do_not_touch() -> None:
    points = [(50.0, 50.0), (52.0, 61.0)]
    above, below = (
        box_of(x + one.dx, y + one.dy, "efSearch=8", to_right=one.dx > 0)
        for one, (x, y) in zip(place_labels(points, ["efSearch=8"] * 2, [], (200, 200)), points, strict=True)
    )
    assert below[1] - above[3] >= 1.5 or below[0] >= above[2] or below[2] <= above[0] or above[1] - below[3] >= 1.5
