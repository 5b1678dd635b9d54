"""Developers' benchmarks: what our own code costs beside raw FAISS and beside the machine's limits.

Both sides take turns in one process, so that a machine that drifts slows both. `promises` holds limits on speed and
memory; each bench says whether they were kept.
"""
