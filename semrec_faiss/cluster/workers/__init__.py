"""Large work divided among workers of a cluster, with the results that one machine would have.

`blocks` gives every block to whoever is free, and again where a worker is lost. `lists` makes every user's list, in
parts, and `embedding` vectors of texts. `learning` makes vectors of ratings.
"""
