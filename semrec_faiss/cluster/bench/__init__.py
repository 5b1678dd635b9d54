"""``semrec bench cluster``: what shards and workers cost and bring, beside one process.

`run` builds the same titles in one piece and in shards, and asks both in turns. `record` is what it writes. Where no
cluster is named, one of two nodes is made on this machine.
"""
