"""A data folder or tables become a generation of an index.

`source.py` opens and checks what is built from, `vectors.py` and `users.py` write what is made of it, and `run.py`
publishes the generation. `from_tables.py` does it for arrays and frames in memory.
"""
