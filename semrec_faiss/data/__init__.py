"""What is searched, and for whom: vectors, titles and users, read from a data folder or made.

A data folder is laid out by `folder`; `titles` knows its titles, `users` its users, `check` looks at all of it before
a build. The other rooms make data folders: from texts, from what people did, from other people's files, or from a
seed.
"""
