"""Vectors to something searchable and saved."""
