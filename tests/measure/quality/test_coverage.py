"""Coverage and recall by popularity or slice, on cases computed by hand."""

from __future__ import annotations

import numpy as np

from semrec_faiss.measure.quality.coverage import coverage, found_of_truth, recall_by_decile, recall_by_slice

NONE = -np.inf


def test_coverage_counts_titles_once_and_no_gaps() -> None:
    assert coverage(np.array([[0, 1, 2], [2, 1, -1]]), 10) == 0.3
    assert coverage(np.array([[-1, -1]]), 10) == 0.0


def test_found_titles_and_those_that_a_found_one_ties_with() -> None:
    truth_rows = np.array([[5, 6, 7], [5, 6, -1]])
    truth_scores = np.array([[0.9, 0.8, 0.8], [0.9, 0.8, NONE]], np.float32)
    rows = np.array([[5, 1, 2], [9, 5, -1]])
    scores = np.array([[0.9, 0.8, 0.1], [0.7, 0.9, NONE]], np.float32)
    found = found_of_truth(rows, scores, truth_rows, truth_scores)
    assert found.tolist() == [[True, True, False], [True, False, False]], "one tie stands in for one title"


def test_recall_by_decile() -> None:
    deciles = np.array([1, 1, 2, 10])
    truth_rows = np.array([[0, 1, 2], [0, 3, -1]])
    found = np.array([[True, False, True], [True, False, False]])
    rows = recall_by_decile(found, truth_rows, deciles)
    assert rows[0] == {"decile": 1, "places": 3, "recall": 0.666667}
    assert rows[1] == {"decile": 2, "places": 1, "recall": 1.0}
    assert rows[4] == {"decile": 5, "places": 0, "recall": None}
    assert rows[9] == {"decile": 10, "places": 1, "recall": 0.0}


def test_recall_by_slice_counts_a_title_in_each_of_its_slices() -> None:
    slices = {"Drama": np.array([True, True, False]), "War": np.array([True, False, False]), "None": np.zeros(3, bool)}
    found = np.array([[True, False]])
    assert recall_by_slice(found, np.array([[0, 1]]), slices) == [
        {"value": "Drama", "places": 2, "recall": 0.5},
        {"value": "War", "places": 1, "recall": 1.0},
        {"value": "None", "places": 0, "recall": None},
    ]
