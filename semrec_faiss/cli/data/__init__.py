"""`semrec dataset`: data folders. `texts` and `learning` make vectors, `exchange` imports and exports."""
