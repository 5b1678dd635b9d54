"""What a question may return, in the caller's words.

`filter.py` turns a WHERE clause and the shorthands into a mask over rows, and keeps it for the next question.
`field_filters.py` reads filters on any field: `--any-of`, `--range`, `--max-per`.
`missing.py` says why nothing matches: the conditions that no title satisfies, and what titles have instead.
"""
