"""Queries on their way to a GPU: what a batch is given as, how it is sent, and made ready there."""
