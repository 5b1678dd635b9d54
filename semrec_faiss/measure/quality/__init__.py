"""What is right, and how near an answer comes to it.

`truth` computes exact neighbours and caches them by what they were computed from; `metrics` are plain functions from
arrays to one value per query, ties credited. `held_out_metrics` and `coverage` judge lists as recommendations.
"""
