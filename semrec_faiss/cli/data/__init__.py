"""`semrec dataset`: data folders; `exchange` holds what imports and exports."""
