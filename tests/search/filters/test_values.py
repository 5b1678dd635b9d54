"""Values and bounds of fields of any type, held against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import duckdb
import numpy as np
import pytest

from semrec_faiss.errors import UsageError
from semrec_faiss.search.filters.values import bounded, one_of

HELD: dict[str, list[Any]] = {
    "TINYINT": [-128, -1, 0, 1, 127],
    "BIGINT": [-(2**63), 0, 2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1],
    "UBIGINT": [0, 2**53 + 1, 2**64 - 1],
    "HUGEINT": [-(2**127), 0, 2**127 - 1],
    "UHUGEINT": [0, 2**127, 2**128 - 1],
    "DOUBLE": [-0.1, 0.0, 0.1, 5.0, 5.5, 1e300],
    "DECIMAL(5,2)": ["-999.99", "0.00", "5.00", "5.01", "999.99"],
    "DECIMAL(38,0)": ["-99999999999999999999999999999999999999", "7"],
}
ASKED = ["5", "5.0", "5.005", "0.1", "-0.1", "1e3", "-1e3", "127.5", "9007199254740993", "9007199254740993.5"]
ASKED += ["1e400", "-1e400", "inf", "1e-400"]
ASKED += [str(value) for values in HELD.values() for value in values]


def found(kind: str, clause: str, values: list[Any]) -> list[Fraction]:
    rows = ", ".join(f"({number}, '{value}'::{kind})" for number, value in enumerate(values))
    sql = f'SELECT n FROM (VALUES {rows}, (-1, NULL)) AS titles(n, "x") WHERE {clause} ORDER BY n'
    return [Fraction(values[number]) for (number,) in duckdb.sql(sql).fetchall()]


@pytest.mark.parametrize("kind", HELD)
def test_numbers_are_compared_exactly(kind: str) -> None:
    values = HELD[kind]
    held = [Fraction(value) for value in values]
    for text in ASKED:
        # A DOUBLE is compared with the DOUBLE that is nearest, so that 0.1 means what is stored of 0.1.
        infinite = abs(float(text)) == np.inf
        asked = Fraction(float(text) if kind == "DOUBLE" and not infinite else 0 if infinite else text)
        above = [value for value in held if (value >= asked if not infinite else float(text) < 0)]
        below = [value for value in held if (value <= asked if not infinite else float(text) > 0)]
        assert found(kind, bounded('"x"', ">=", text, kind, "x"), values) == above, text
        assert found(kind, bounded('"x"', "<=", text, kind, "x"), values) == below, text
        equal = [] if infinite else [value for value in held if value == asked]
        assert found(kind, one_of('"x"', [text, "77"], kind, "x"), values) == equal, text


@pytest.mark.parametrize(
    ("kind", "stored", "asked", "holds"),
    [
        ("FLOAT", "0.1", ["0.1"], True),
        ("BOOLEAN", "true", ["True"], True),
        ("DATE", "2020-01-01", ["2020-01-01"], True),
        ("TIMESTAMP", "2020-01-01", ["2020-01-01"], True),
        ("UUID", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"], True),
        ("DOUBLE[]", "[1, 5]", ["5"], True),
        ("DECIMAL(4,1)[]", "[1, 5]", ["5.00"], True),
        ("BIGINT[]", "[1, 5]", ["5.5"], False),
        ("VARCHAR", "5.0", ["5"], False),
        ("VARCHAR[]", "[ab, c]", ["c"], True),
        ("JSON", '"a"', ["a"], True),
    ],
)
def test_other_types_and_lists(kind: str, stored: str, asked: list[str], holds: bool) -> None:
    clause = one_of('"x"', asked, kind, "x")
    assert duckdb.sql(f"SELECT {clause} FROM (SELECT '{stored}'::{kind} AS x)").fetchall() == [(holds,)]


def test_a_float_bound_means_what_a_float_holds() -> None:
    for sign in (">=", "<="):
        assert duckdb.sql(
            f"SELECT {bounded('x', sign, '0.1', 'FLOAT', 'x')} FROM (SELECT 0.1::FLOAT AS x)"
        ).fetchall() == [(True,)]


def test_what_is_no_number_is_refused() -> None:
    for text in ("abc", "nan", "", "１x", "1_0"):
        with pytest.raises(UsageError, match="is not a number"):
            one_of("x", ["5", text], "BIGINT", "x")
