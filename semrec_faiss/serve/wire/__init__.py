"""What goes over the wire.

`questions.py` is what may be asked and `problems.py` what may go wrong, as types. `messages.py` reads requests and
writes replies; `arrow.py` has vectors and answers as Arrow, and `arrow_messages.py` looks at a stream first. Nothing
here knows of an index.
"""
