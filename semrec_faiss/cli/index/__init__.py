"""Commands that make an index and look after it: its `generations`, `update`, `bundle` to copy it elsewhere, `warm`."""
