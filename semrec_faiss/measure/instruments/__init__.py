"""What measures: clocks, memory counters, the hardware's limits and the stamp.

`timing` warms up, repeats and pairs, and every time that the project tells passes through it. Memory is counted in
processes of their own where a peak would otherwise be someone else's.
"""
