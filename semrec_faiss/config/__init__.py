"""A YAML file of settings to frozen models in which nothing is left to guess.

`schema` and `index_types` hold every key with its default; `reading` reads a file, joins what `--set` changes and
raises one ConfigError that tells every mistake with file, line and the nearest known key. Sweep files, the questions
of `semrec compare` and price lists are read by the same functions.
"""
