"""A data folder or tables become a generation of an index.

`run.py` opens and checks what is built from, has FAISS's index trained and filled, and writes the generation.
`from_tables.py` does it for arrays and frames in memory.
"""
