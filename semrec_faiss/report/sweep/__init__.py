"""The report of a sweep: recall against time, memory and building, and what each index misses.

`rows` flattens the ledger, the other files draw one part of the page each; `two_sweeps` sets one sweep beside
another.
"""
