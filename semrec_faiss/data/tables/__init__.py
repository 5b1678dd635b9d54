"""Tables as their owners have them: Parquet, Arrow, CSV, JSON lines, saved datasets; in, and out again.

`source` finds the files and `files` reads them in record batches; `columns` says which column plays which part,
guessing what is obvious; `vectors` takes vectors out of a column; `importing` makes a data folder of all that and
`exporting` the table again. `histories` makes users of what people did, and `since` what an update adds to them.
`gathered` does the same for tables in memory, and writes nothing.
"""
