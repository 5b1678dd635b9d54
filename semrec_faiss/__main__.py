"""``python -m semrec_faiss``: the same as ``semrec``."""

from semrec_faiss.cli.start import run

run()
