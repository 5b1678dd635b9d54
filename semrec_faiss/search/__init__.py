"""A question to ranked titles."""
