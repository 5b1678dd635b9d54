"""The tables of results/README hold what the JSON beside it holds, rounded to the digits that they show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

RESULTS = Path(__file__).resolve().parent.parent / "results"
PAGE = (RESULTS / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def measured(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def rows(header: str) -> Iterator[list[str]]:
    """The cells of each row of the table whose first line begins so."""
    (lines,) = re.findall(rf"^{re.escape(header)}.*\n\|[-:|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    for line in lines.splitlines():
        yield [cell.strip() for cell in line.strip("|").split("|")]


def shows(cells: list[str], *values: float) -> bool:
    """Whether the numbers in these cells are ``values``, each rounded to the digits that are shown."""
    numbers = NUMBER.findall(" ".join(cells))
    assert len(numbers) == len(values), (cells, values)
    for number, value in zip(numbers, values, strict=True):
        digits = len(number.partition(".")[2])
        assert float(number.replace(",", "")) == pytest.approx(value, rel=0, abs=0.5001 * 10**-digits), (cells, values)
    return True


def medians(record: Any, *names: str) -> list[float]:
    return [record[name]["median_ms"] for name in names]


def test_searches_on_a_cpu() -> None:
    found = measured("bench-search-cpu")
    for row, search, floor in zip(
        rows("| queries | raw FAISS"), found["search"], found["floor"]["batches"], strict=True
    ):
        times = medians(search, "raw_faiss", "recommender")
        assert shows(row, search["queries"], *times, search["recommender"]["ratio"], floor["limit_ms"])
    found = measured("bench-search-cpu-xeon")["faiss_defaults"]["batches"]
    for row, batch in zip(rows("| queries | FAISS as it comes"), found, strict=True):
        times = medians(batch, "faiss_defaults", "raw_faiss", "ours")
        assert shows(row, batch["queries"], *times, batch["ratio"], batch["ratio_to_best"])


def test_type_fused() -> None:
    found = measured("bench-gpu-h200")["search"]
    for row, search in zip(rows("| titles | queries | reads | limit | fused |"), found, strict=True):
        fused, faiss, torch = medians(search, "fused", "faiss_float32", "torch_float16")
        ratios = search["fused_to_limit"], faiss, faiss / fused, torch
        assert row[2] == search["reads"]
        assert shows(
            [*row[:2], *row[3:]],
            search["titles"],
            search["queries"],
            search["limit_ms"],
            fused,
            *ratios,
            search["unproven"],
        )
    for row, search in zip(
        rows("| titles | queries | limit | fused | by"), measured("bench-gpu-h200-text")["search"], strict=True
    ):
        times = medians(search, "fused", "screened", "numpy", "screened_numpy", "faiss_float32")
        assert shows([*row[:5], *row[6:]], search["titles"], search["queries"], search["limit_ms"], *times)


def test_filters_on_a_gpu() -> None:
    masked = measured("bench-gpu-h200")["masked"]
    found = {(one["titles"], one["queries"]): one for one in masked if one["share"] == 0.01}
    for row in rows("| titles, 1 % allowed | queries"):
        one = found[int(row[0].replace(",", "")), int(row[1].replace(",", ""))]
        kernels = medians(one, "first_filtered_kernels", "filtered_kernels")
        assert shows([*row[2:4], *row[5:]], *kernels, *medians(one, "first_filtered", "filtered"), one["masked_ms"])


def test_several_gpus() -> None:
    search = measured("bench-gpu-h200-x2")["search"]
    found = {(one["titles"], one["queries"]): one for one in search}
    for row in rows("| titles × queries | one | two: shards"):
        titles, queries = (
            part.split()[0] for part in row[0].replace("4 M", "4000000").replace("1 M", "1000000").split("×")
        )
        one = found[int(titles.replace(",", "")), int(queries.replace(",", ""))]
        times = one["users" if "users" in row[0] else "fused"]
        speedups = [
            value
            for layout in ("shards", "replicas")
            for value in (times[layout]["median_ms"], times[layout]["speedup"])
        ]
        assert shows(row[1:4], times["one_gpu"]["median_ms"], *speedups), row
    for row in rows("| | asked | two H200s | two H200s, by a script"):
        assert row[2].strip("*") in PAGE.partition("What was asked, and reached on two GPUs")[0]


def test_a_hundred_million_titles() -> None:
    files = "bench-gpu-h200-float16", "bench-gpu-h200-float16-text"
    found = [one for name in files for one in measured(name)["catalogues"][0]["search"]]
    for row, one in zip(rows("| 100,000,000 titles | queries"), found, strict=True):
        (taken,) = medians(one, "numpy")
        limit = one["limit_ms"]
        assert shows([row[1], *row[3:7]], one["queries"], limit, taken, taken / limit, one["repeated"])


def test_what_callers_wait_for() -> None:
    of_fused = "h200-fused", "h200-fused-second", "h200-fused-third", "h100-80gb-hbm3-fused"
    files = [measured(f"bench-answers-{name}") for name in (*of_fused, "h200-flat")]
    table = list(rows("| question | asked | first H200"))
    batches = "rows_and_scores", "one_genre", "to_arrow", "results", "titles", "as_json_bytes"
    with_search = table.pop(6)
    sums = [sum(one["batches"][key]["p50_ms"] for key in ("rows_and_scores", "to_arrow")) for one in files]
    assert shows([*with_search[2:3], *with_search[4:]], *sums)
    asked = [[one["questions"][key]["whole"] for one in files] for key in files[0]["questions"]]
    for row, found in zip(table, [*asked, *([one["batches"][key] for one in files] for key in batches)], strict=False):
        assert shows([*row[2:3], *row[4:]], *(one["p50_ms"] for one in found)), row
        assert shows([row[3]], found[0]["p99_ms"])
    assert shows([*table[9][2:3], *table[9][4:]], *(median(one["every_user"]["export_s"]) for one in files))
    for row, threads, part in zip(
        table[11:],
        ("threads", "threads", "threads_on_two_cores", "threads_on_two_cores", "threads_alone"),
        ("users_per_second", "p99_ms", "users_per_second", "p99_ms", "users_per_second"),
        strict=True,
    ):
        assert shows([*row[2:3], *row[4:]], *(one[threads][part] for one in files if one.get(threads)))


def test_answers_over_http() -> None:
    files = [measured(f"bench-serve-{name}") for name in ("cpu", "h200", "h100-80gb-hbm3-6-workers")]
    parts = ("fixed_body", "similar", "at_half_the_most", "at_nine_tenths_of_the_most", "alone", "as_one_types")
    for row, part in zip(rows("| | two cores: a second"), (*parts, "users_as_arrow"), strict=True):
        shown = [one[part][key] for one in files for key in ("requests_per_second", "p50_ms", "p99_ms")]
        assert shows(row[1:], *shown)


def test_changes() -> None:
    names = "cpu-flat", "h100-80gb-hbm3-flat", "h100-80gb-hbm3-fused"
    for row, name in zip(rows("| | one query: without"), names, strict=True):
        searches = measured(f"bench-update-{name}")["searches"]
        shown = [
            [*medians(searches[size], "without", "with_changes"), searches[size]["ratio"]] for size in ("1", "100")
        ]
        assert shows(row[1:], *shown[0], *shown[1])


def test_how_good_lists_are() -> None:
    seeds = [measured(f"learned/evaluate-learned-seed-{seed}") for seed in (7, 11)]
    protocols = [[one["methods"] for one in seeds]]
    protocols += [[one["beside"][key]["methods"] for one in seeds] for key in ("global_time", "new_users")]
    for row, both in zip(rows("| protocol | learned |"), protocols, strict=False):
        for cell, method in zip(row[1:], ("recommender", "liked_together", "most_popular"), strict=False):
            assert shows([cell], *(one[method]["at_10"]["ndcg"]["mean"] for one in both))
    others = [measured(f"learned/beside-others-seed-{seed}")["methods"] for seed in (7, 11)]
    methods = "semrec", "ials", "liked_together", "most_popular", "sasrec"
    for row, method in zip(rows("| method | ndcg | hit rate"), methods, strict=True):
        shown = [one[method][metric]["mean"] for metric in ("ndcg", "hit_rate") for one in others]
        assert shows(row[1:3], *shown)
    for row, run in zip(rows("| interactions | users |"), measured("bench-learn-cpu")["runs"], strict=True):
        assert shows(row, run["interactions"], run["users"], run["cpu_seconds"], run["peak_bytes"] / 1e9)
