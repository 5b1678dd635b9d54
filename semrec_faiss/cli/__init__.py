"""The command line: one file a command group; a body parses, makes one call, prints.

`main` imports a command's file when it is called, so `semrec --help` loads neither FAISS nor DuckDB. `exit` turns an
error into a message and an exit code, `printing` sends results to stdout and all else to stderr. Commands that make an
index and look after it lie in `index`, those that measure in `measure` and `bench`, those of data folders in `data`,
the others here.
"""
