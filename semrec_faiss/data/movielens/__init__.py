"""A MovieLens download, zip or folder, read into titles, ratings and users.

Ratings pass through DuckDB out of core; a row that cannot be used is an error with file and line, and none is dropped
silently. `data/convert_movielens` makes the data folder of what is read here, with `data/text` for the vectors.
"""
