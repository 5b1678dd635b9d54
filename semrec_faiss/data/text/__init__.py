"""Texts to vectors by sentence-transformers, and the record of which model made them.

`embed` writes a data folder's vectors block by block and goes on where it was interrupted; `encoder` loads a model
from a folder, an installed package or a hub. `provenance` is why `semrec search` can refuse any other model.
"""
