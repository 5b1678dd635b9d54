"""A search that may not return every title.

A `Restriction` is the mask that a batch shares and the rows that single queries exclude. `topk` finds k allowed rows
whenever k exist, by one of four strategies that `strategy` chooses by their cost, and a `TopK` accounts for how.
"""
