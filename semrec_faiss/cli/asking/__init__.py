"""Commands that ask an index, and how its answers and lists are printed."""
