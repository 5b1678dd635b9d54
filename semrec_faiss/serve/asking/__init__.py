"""The index behind the routes.

`serving.py` owns the generation in use and puts a new one in its place; `served.py` is one, `measuring.py` tells how
quick it is. `answering.py` asks it, `plain.py` what is one plain search, `together.py` searches at once what several
callers wait for, `afar.py` asks shards for it, and `waiting.py` writes their replies.
"""
