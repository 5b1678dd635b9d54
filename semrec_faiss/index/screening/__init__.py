"""Leaving most titles out by a few principal directions, with a proof, before the rest are compared exactly.

Vectors of texts are not round: half their directions hold nearly all of their length. `spectrum` finds out how far that
goes and chooses how many directions to keep, `bounds` writes what is kept, `screen` searches by it on a CPU.
"""
