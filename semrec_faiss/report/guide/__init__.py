"""The report of `semrec compare`: criteria, five tests, parity, memory, cost, and what ran where.

It is drawn from the results file alone, so a page can be made again on any machine.
"""
