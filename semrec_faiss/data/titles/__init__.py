"""The titles of an index: their ids, spellings and metadata, in the order of their vectors.

`catalog` holds them in a DuckDB table that can reach no file and no network; `finder` turns what a person types into
a title or the nearest ones. `filters` turns a WHERE clause into the rows that it matches.
"""
