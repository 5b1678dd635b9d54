"""`semrec memory`: predicted memory by part, how many titles fit, and whether the prediction holds.

The prediction is `index/memory`'s; with `--measure` an index of that size is built and searched in a process of its
own.
"""
