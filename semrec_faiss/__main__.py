"""``python -m semrec_faiss``: the same as ``semrec``."""

from semrec_faiss.cli.main import run

run()
