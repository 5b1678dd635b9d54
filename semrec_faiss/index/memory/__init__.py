"""How much memory an index takes, said before it is built.

`stored_bytes` counts what each FAISS index type stores a title; `prediction` adds what training and a search need
besides, on a CPU or a GPU, as `parts`. `measure/memory` holds the prediction against a process that does it.
"""
