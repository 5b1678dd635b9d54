"""An open index, and the way from one generation to the next.

`opened` answers the questions of one generation; `living_index` is what a `Recommender` is besides its questions:
opened, refreshed, updated, closed. `following` is the thread that looks for newer generations.
"""
