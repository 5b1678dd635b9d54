"""Exact search on a CPU where numpy is faster than FAISS, and the order of what is nearly tied.

`exact.py` searches one query and settles near ties; `products.py` searches batches by the faster of two products.
`few.py` multiplies batches by few titles' columns. `lists.py` settles which inverted lists are visited before FAISS
searches them, the same in any batch.
"""
