"""Many callers, one batch.

`batcher` owns a device, makes one search at a time, of all that waits, and gives each caller its own. A `turn` is what
a caller waits on.
"""
