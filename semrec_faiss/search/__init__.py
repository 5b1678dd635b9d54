"""A question to ranked titles.

A `Recommender` turns titles, users or texts into query vectors, a `Wish` says how many titles are wanted and which,
and a `Searcher` runs it: a filter becomes a mask, `restricted/topk` finds k allowed titles whenever k exist. Rows
become titles and records in `answers`, at the very end.
"""
