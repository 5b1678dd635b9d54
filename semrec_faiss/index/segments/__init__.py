"""What updates have brought since an index was built: new titles and users, and which old ones are no more.

Everything that was ever written has a place: those of the base first, then each segment's. What is left of them, in
order, are the rows, as an index built anew would have them. Above this room there are only rows: titles, users and
vectors of a base with segments look like those of one without.
"""
