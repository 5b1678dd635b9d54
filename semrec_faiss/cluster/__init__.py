"""Past one machine, on Ray: an index in shards, asked as one, and lists and vectors made by many workers.

A shard is an ordinary index of some of the titles that an actor serves where it lies; a `ClusterRecommender` asks all
of them for k and merges exactly, so that answers are those of one index. `publish` builds and changes such an index,
`workers` divides large work, `bench` says what both cost; all this is thin over what one machine does.
"""
