"""Many callers, one batch.

`batcher` owns a device, makes one search at a time, of all that waits, and gives each caller its own. `asked` is what
a caller asks, `joined` makes one search of several, and a `turn` is what a caller waits on.
"""
