"""Vectors to something that can be searched and saved.

`build` makes an index of a data folder and publishes it through `generations`; `saved` opens one. `vector_index` is
the one class that calls FAISS to search, on a CPU or a GPU, and gives rows and scores in a fixed order; which titles
they are it does not know.
"""
