"""The command line: one file a command group; a body parses, makes one call, prints.

`main` imports a command's file when it is called, so `semrec --help` loads neither FAISS nor DuckDB. `printing` sends
results to stdout and all else to stderr; `process` turns an error into a message and an exit code. Commands that ask an
index lie in `asking`, those that make one and look after it in `index`, those that measure in `measure` and `bench`,
those of data folders in `data`, the others here.
"""
