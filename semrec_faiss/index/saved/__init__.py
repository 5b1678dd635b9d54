"""A saved index, opened: its files are checked by their digests and mapped.

`saved_index.py` opens a generation and what is searched in it; `titles.py` and `users.py` are its titles and its users.
`verifying.py` proves that it is what was built. Nothing here is read into memory that can stay on the disk.
"""
