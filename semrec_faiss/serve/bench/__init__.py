"""``semrec bench serve``: what a server takes.

`process.py` starts one, `load.py` asks it from many connections, and `run.py` puts the rates beside each other.
`swaps.py` changes its generation meanwhile; `record.py` is what is written.
"""
