"""SQL that squeezes ASCII titles as `spelling` does, all of them at once; others, few, are squeezed in Python."""

from __future__ import annotations

from semrec_faiss.data.folder.field_types import ROW
from semrec_faiss.data.titles.spelling import BRACKETED, YEAR_AT_END

IS_ASCII = "strlen(title) = length(title)"


def squeezed_ascii(text: str) -> str:
    """Return the SQL of what `spelling.squeezed` makes of an ASCII text, which is SQL, too."""
    whole = f"regexp_replace(lower(replace({text}, '&', ' and ')), '[^a-z0-9]+', '', 'g')"
    return f"coalesce(nullif({whole}, ''), lower({_stripped(text)}))"


def _stripped(text: str) -> str:
    return rf"regexp_replace({text}, '^\s+|\s+$', '', 'g')"


_BEFORE_YEAR = _stripped(f"regexp_replace(title, '{YEAR_AT_END.pattern}', '')")
_WHOLES = f"SELECT {ROW}, coalesce(nullif({_BEFORE_YEAR}, ''), title) AS whole FROM titles WHERE {IS_ASCII}"
_BRACKETS = f"regexp_extract_all(whole, '{BRACKETED.pattern}', 1)"
_NAMES = (
    f"CASE WHEN contains(whole, '(') THEN list_concat([whole, split_part(whole, '(', 1)], {_BRACKETS}) ELSE [whole] END"
)
NAMES_OF_ASCII = (  # one step after the other: in one, DuckDB would make the same whole four times
    f"SELECT {ROW}, {squeezed_ascii('one')} AS name FROM (SELECT {ROW}, unnest({_NAMES}) AS one FROM ({_WHOLES}))"
)
"""A row and a name for each name that `TitleParts` gives of an ASCII title, squeezed; in brackets "aka" stays."""
