"""What is searched, and for whom: vectors, titles and users, read from a data folder or made."""
