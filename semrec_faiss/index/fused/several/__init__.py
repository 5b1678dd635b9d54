"""Type fused on several GPUs of one host.

`several_gpus` gives each a share of the titles, or of the queries; `shards` puts what they find together, and `turns`
divides large batches into blocks of which two are under way at once.
"""
