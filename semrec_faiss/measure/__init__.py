"""How good, how fast, how big."""
