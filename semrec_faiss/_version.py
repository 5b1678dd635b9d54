"""The version of this package, where the lowest room can read it."""

__version__ = "0.1.0"
