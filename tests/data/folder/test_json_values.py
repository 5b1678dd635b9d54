"""Values of JSON that say values of types that JSON has not: what passes is what DuckDB makes of it, exactly."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest

from semrec_faiss.data.folder.json_values import is_said_in_json, says

SAID: list[tuple[str, Any, str]] = [
    ("DATE", "2000-02-29", "2000-02-29"),
    ("TIME", "23:59:59.000001", "23:59:59.000001"),
    ("TIME_NS", "01:02:03.123456789", "01:02:03.123456789"),
    ("TIMESTAMP", "2020-01-31T12:00:00.5", "2020-01-31 12:00:00.5"),
    ("TIMESTAMP", "2020-01-31", "2020-01-31 00:00:00"),
    ("TIMESTAMP_S", "2020-01-31 12:00:01", "2020-01-31 12:00:01"),
    ("TIMESTAMP_MS", "2020-01-31 12:00:01.123", "2020-01-31 12:00:01.123"),
    ("TIMESTAMP_NS", "2020-01-31 12:00:00.123456789", "2020-01-31 12:00:00.123456789"),
    ("TIMESTAMP WITH TIME ZONE", "2020-01-31T12:00:00+02:00", "2020-01-31 10:00:00+00"),
    ("TIMESTAMP WITH TIME ZONE", "2020-01-31 12:00:00Z", "2020-01-31 12:00:00+00"),
    ("TIMESTAMPTZ_NS", "2020-01-31 12:00:00.123456789+00", "2020-01-31 12:00:00.123456789+00"),
    ("UUID", "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000a"),
    ("FLOAT", 0.1, "0.1"),
    ("FLOAT", 3, "3.0"),
    ("TINYINT", -128, "-128"),
    ("UINTEGER", 4294967295, "4294967295"),
    ("UBIGINT", 18446744073709551615, "18446744073709551615"),
    ("HUGEINT", 1 << 100, str(1 << 100)),
    ("DECIMAL(10,2)", 1.1, "1.10"),
    ("DECIMAL(10,2)", -99999999.99, "-99999999.99"),
    ("DECIMAL(4,0)", 7.0, "7"),
    ("DECIMAL(38,2)", 1e20, "100000000000000000000.00"),
    ("INTEGER[]", [1, None, 2], "[1, NULL, 2]"),
    ("DATE[]", ["2020-01-01"], "['2020-01-01']"),
]

UNSAID: list[tuple[str, Any]] = [
    *(("DATE", value) for value in ("1800-02-29", "20200101", "2020-W01-1", "01/02/2020", "NaT", "", 5, True)),
    *(
        ("TIMESTAMP", value)
        for value in ("2020-01-31 12:00:00+00", "2020-01-31 12:00:00.1234567", "2020-01-31 25:00:00")
    ),
    *(("TIMESTAMP WITH TIME ZONE", value) for value in ("2020-01-31 12:00:00", "2020-01-31")),
    *(("TIME", value) for value in ("24:00:00", "01:02", 1)),
    *(("UUID", value) for value in ("a", "0" * 32, 1)),
    *(("FLOAT", value) for value in (1e39, 10**400, True, "1")),
    *(("TINYINT", value) for value in (128, -129, 1.0, True, "1")),
    *(("UBIGINT", value) for value in (-1, 1 << 64)),
    *(("DECIMAL(10,2)", value) for value in (1.005, 100000000.0, 10**400, "1.10", True)),
    *(("INTEGER[]", value) for value in (1, [1.5], ["1"], [[1]])),
]


@pytest.mark.parametrize(("kind", "value", "meant"), SAID)
def test_what_a_value_says(kind: str, value: Any, meant: str) -> None:
    assert is_said_in_json(kind) and says(value, kind)
    structure = {"field": [kind[:-2]] if kind.endswith("[]") else kind}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        made = connection.execute(
            "SELECT typeof(entry.field), entry.field::VARCHAR FROM (SELECT from_json(?, ?) AS entry)",
            [json.dumps({"field": value}), json.dumps(structure)],
        ).fetchall()
    assert made == [(kind, meant if kind != "DATE[]" else "[2020-01-01]")]


@pytest.mark.parametrize(("kind", "value"), UNSAID)
def test_what_says_none(kind: str, value: Any) -> None:
    assert is_said_in_json(kind) and not says(value, kind)


@pytest.mark.parametrize("kind", ["STRUCT(a BIGINT)", "MAP(VARCHAR, BIGINT)", "INTERVAL", "STRUCT(a BIGINT)[]"])
def test_types_that_only_tables_have(kind: str) -> None:
    assert not is_said_in_json(kind)
