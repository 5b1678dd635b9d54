"""Filters that would take all memory or time are refused soon, and fields of several types say how to ask for them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import HANG_SECONDS, until

from semrec_faiss.data.titles import catalog as catalog_module
from semrec_faiss.data.titles.catalog import Catalog
from semrec_faiss.data.titles.filters.limits import FILTER_THREAD, MOST_CHARACTERS, MOST_STEPS, MOST_WORDS, within_time
from semrec_faiss.data.titles.filters.matching import matching_rows
from semrec_faiss.deadline import TooLateError, due_at
from semrec_faiss.errors import UsageError

TITLES = 12_000


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    path = tmp_path_factory.mktemp("limits") / "metadata.jsonl"
    entries = [
        {"media_id": f"film-{row:032d}", "title": f"Film {row}", "year": 1900 + row % 100, "genres": ["Drama"]}
        | {"director": "Ali" if row else 7, "big": 2**63 + row, "crew": {"lead": f"Name {row % 3}"}}
        for row in range(TITLES)
    ]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return Catalog.read(path)


def nested(name: str, times: int, arguments: str = "") -> str:
    text = "title"
    for _ in range(times):
        text = f"{name}({text}{arguments})"
    return f"{text} = 'x'"


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (nested("replace", 10, ", 'm', 'mmmmmmmmmm'"), "texts 10,000,000,000 times as long"),
        (nested("replace", 2, ", 'm', title"), "texts 4,096 times as long"),
        (nested("hex", 30), "texts 1,073,741,824 times as long"),
        (
            "len(list_transform(genres, lambda x: list_transform([x || x], lambda y: "
            + "||".join("y" * 80)
            + "))) > 1",
            "texts 160 times as long",
        ),
        (" OR ".join(f"year = {year}" for year in range(50_000)), f"at most {MOST_WORDS:,} are allowed"),
        (f"media_id IN ({','.join(repr(f'film-{row}') for row in range(300_000))})", f"at most {MOST_CHARACTERS:,}"),
        (f"year IN ({','.join(map(str, range(100_000)))})", f"at most {MOST_WORDS:,} are allowed"),
        (" OR ".join(f"year = {year}" for year in range(2_000)), f"at most {MOST_STEPS:,} are allowed"),
        ("NOT " * 5_000 + "true", "deeper than 1,000 levels"),
        ("(" * 90_000 + "true" + ")" * 90_000, "deeper than 1,000 levels"),
        ("(" * 10_000, r"leaves 10,000 of its 10,000 '\(' open"),
        ("[" * 600 + "year]", r"leaves 599 of its 600 '\[' open"),
    ],
)
def test_what_would_take_all_memory_or_time_is_refused_with_the_limit(catalog: Catalog, where: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        matching_rows(catalog, where)


def test_a_list_of_ten_thousand_ids_and_a_sum_of_many_numbers_are_answered(catalog: Catalog) -> None:
    ids = ", ".join(f"'film-{row:032d}'" for row in range(1, 20_000, 2))
    assert matching_rows(catalog, f"media_id IN ({ids})").tolist() == list(range(1, TITLES, 2))
    assert len(matching_rows(catalog, f"{' + '.join(['1'] * 300)} = 300")) == TITLES
    assert len(matching_rows(catalog, "replace(title, 'Film', 'A film of this number:') LIKE 'A film%'")) == TITLES


def test_a_filter_is_interrupted_at_its_deadline(catalog: Catalog) -> None:
    cursor = catalog.cursor()
    sql = "SELECT count(*) FROM range(100000) a, range(100000) b WHERE a.range * b.range % 7 = 3"
    with pytest.raises(UsageError, match=r"longer than 0\.2 s"):
        within_time(cursor, lambda: cursor.execute(sql).fetchall(), 0.2)
    assert within_time(cursor, lambda: 7) == 7


ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3"


def no_filter_runs() -> bool:
    return not any(thread.name == FILTER_THREAD for thread in threading.enumerate())


def test_a_filter_that_nobody_waits_for_any_more_is_ended_and_no_other_is(catalog: Catalog) -> None:
    """Once a fault: it ran on for 10 s. Here it begins after the interruption, which it would have outlived."""
    cursor, other, may_begin = catalog.cursor(), catalog.cursor(), threading.Event()

    def late() -> Any:
        assert may_begin.wait(HANG_SECONDS)
        return cursor.execute(ENDLESS).fetchall()

    with due_at(time.monotonic() + 0.05), pytest.raises(TooLateError, match="had not ended when its time was up"):
        within_time(cursor, late)
    may_begin.set()
    counted = within_time(other, lambda: other.execute(ENDLESS.replace("1000000", "7000")).fetchall())
    ones = sum(a * b % 7 == 3 for a in range(7) for b in range(7))
    assert counted == [(ones * 1_000_000,)]
    until(no_filter_runs)
    assert cursor.execute("SELECT 7").fetchall() == [(7,)]


def test_a_filter_does_not_begin_when_its_time_is_up(catalog: Catalog) -> None:
    with due_at(time.monotonic() - 1), pytest.raises(TooLateError, match="had not begun"):
        matching_rows(catalog, "true")
    with due_at(time.monotonic() + HANG_SECONDS):
        assert len(matching_rows(catalog, "true")) == TITLES
        with pytest.raises(UsageError, match=r"longer than 0\.1 s"):  # which comes first
            within_time(catalog.cursor(), lambda: time.sleep(0.3), 0.1)
    until(no_filter_runs)


def test_memory_is_limited_and_what_takes_more_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The limit is DuckDB's own, made small here: the table of a long list does not fit beside the titles."""
    assert catalog_module.FILTER_BYTES == 2 << 30
    path = tmp_path / "metadata.jsonl"
    path.write_text("".join(json.dumps({"media_id": row, "title": "Film"}) + "\n" for row in range(4_000)))
    where = f"media_id IN ({', '.join(repr(str(row)) for row in range(1, 8_000, 2))})"
    for limit, fits in ((256 << 20, True), (1 << 16, False)):
        monkeypatch.setattr(catalog_module, "FILTER_BYTES", limit)
        small = Catalog.read(path)
        (held,) = small.cursor().execute("SELECT current_setting('memory_limit')").fetchall()[0]
        assert held.endswith("MiB" if fits else "iB")
        if fits:
            assert 256 <= float(held.split()[0]) < 300
            assert matching_rows(small, where).tolist() == list(range(1, 4_000, 2))
            continue
        with pytest.raises(UsageError, match="takes more memory than the 2 GiB that are allowed") as told:
            matching_rows(small, where)
        assert told.value.fix == "compare with shorter texts"


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    path = tmp_path_factory.mktemp("long") / "metadata.jsonl"
    entries = [{"media_id": str(row), "title": "Film", "text": "a" * 20_000} for row in range(50)]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return Catalog.read(path)


@pytest.mark.parametrize(
    "where",
    [
        f"text LIKE '%{'a' * 101}_b%'",
        f"text ILIKE '%{'_' * 101}b%'",
        f"text NOT LIKE '%{'_' * 101}b%'",
        f"text GLOB '*{'?' * 101}b*'",
        "text LIKE text || '_'",
        "text LIKE '%' || text",
        f"text LIKE '%{'_' * 101}b%' ESCAPE '$'",
        "text ~ '(a?){300}a{300}b'",
        "regexp_matches(text, 'a{9999999999}')",
        f"text SIMILAR TO '{'_' * 101}'",
        f"text || text LIKE '%{'a' * 60}_b'",
    ],
)
def test_patterns_that_long_texts_are_held_against_for_minutes_are_refused(long: Catalog, where: str) -> None:
    with pytest.raises(UsageError, match=r"texts of up to [24]0,000 characters against a pattern with a piece of"):
        matching_rows(long, where)


@pytest.mark.parametrize(
    "where",
    [
        f"text LIKE '%{'a%' * 400}b'",
        f"text ILIKE '%{'a_%' * 400}'",
        "text GLOB '*a*a*b'",
        f"text LIKE '%{'a' * 500}%'",
        "text LIKE '%b%'",
        "text LIKE text || '%'",
        "text LIKE text || text || 'b%'",
        "text ~ '(a*)*b'",
    ],
)
def test_patterns_of_many_pieces_are_answered_soon(long: Catalog, where: str) -> None:
    found = 0 if "b" in where.rsplit("LIKE", maxsplit=1)[-1] else 50
    assert len(matching_rows(long, where)) == found


def test_the_distance_of_long_texts_is_refused_and_that_of_their_beginnings_is_not(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_text(json.dumps({"media_id": "a", "title": "Film", "text": "ab " * 3000}), encoding="utf-8")
    long = Catalog.read(path)
    with pytest.raises(UsageError, match="texts of up to 9,000 characters; the limit is 1,000"):
        matching_rows(long, "levenshtein(text, 'abc') > 3")
    assert matching_rows(long, "levenshtein(left(text, 200), 'abc') > 3").tolist() == [0]
    assert matching_rows(long, "levenshtein(title, 'Fill') = 1").tolist() == [0]


@pytest.mark.slow
def test_ctrl_c_ends_a_filter_at_once(tmp_path: Path) -> None:
    """DuckDB itself hears of it only after a block of titles, which takes 15 s and more here."""
    metadata = tmp_path / "metadata.jsonl"
    entry = {"title": "Film", "text": "ab " * 333}
    metadata.write_text(
        "".join(json.dumps({"media_id": row, **entry}) + "\n" for row in range(20_000)), encoding="utf-8"
    )
    program = f"""
        import sys
        from pathlib import Path
        from semrec_faiss.data.titles.filters import limits
        from semrec_faiss.cli.process.exit import end_at_once_if_interrupted, exit_code_of
        from semrec_faiss.data.titles.catalog import Catalog
        from semrec_faiss.data.titles.filters.matching import matching_rows
        limits.SECONDS = {HANG_SECONDS}
        catalog = Catalog.read(Path({str(metadata)!r}))
        where = " OR ".join(f"levenshtein(text, left(text, {{n}}) || 'x') > 5000" for n in range(900, 960))
        def work():
            print("asking", flush=True)
            matching_rows(catalog, where)
        code = exit_code_of(work, debug=False)
        end_at_once_if_interrupted(code)
        sys.exit(code)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "asking\n"
        process = psutil.Process(child.pid)
        before = process.cpu_times().user
        until(lambda: process.cpu_times().user > before + 1)  # DuckDB is at work
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=HANG_SECONDS)
    assert (child.returncode, errors) == (130, "\ninterrupted\n"), "and not the deadline's error"


@pytest.mark.parametrize(
    "where",
    [
        "director LIKE 'Ali%'",
        "director = 'Ali'",
        "director::VARCHAR = 'Ali'",
        "director IN ('Ali', 'Bo')",
        "lower(director) = 'ali'",
        "big > 5",
        '"BIG" BETWEEN 1 AND 2',
        "crew.lead = 'Name 1'",
        "contains(director, 'Ali')",
    ],
)
def test_a_field_of_several_types_is_not_compared_as_it_is(catalog: Catalog, where: str) -> None:
    with pytest.raises(UsageError, match="kept as JSON text") as told:
        matching_rows(catalog, where)
    assert "->>'$'" in str(told.value.fix)


def test_the_lines_of_each_kind_are_named(catalog: Catalog) -> None:
    with pytest.raises(UsageError, match="'director' holds a whole number on line 1, text on line 2"):
        matching_rows(catalog, "director LIKE 'Ali%'")
    with pytest.raises(UsageError, match="a whole number beyond 64 bits on line 1"):
        matching_rows(catalog, "big > 5")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("director->>'$' LIKE 'Ali%'", range(1, TITLES)),
        ("TRY_CAST(director->>'$' AS DOUBLE) > 5", [0]),
        (f"TRY_CAST(big->>'$' AS HUGEINT) = {2**63 + 3}", [3]),
        ("crew->>'$.lead' = 'Name 1'", range(1, TITLES, 3)),
        ("director IS NULL", []),
    ],
)
def test_the_way_that_the_message_shows_finds_them(catalog: Catalog, where: str, expected: list[int]) -> None:
    assert matching_rows(catalog, where).tolist() == list(expected)
