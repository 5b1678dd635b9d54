"""The routes of the service.

`app.py` takes requests apart, lets them in by their keys and hands replies back; `bodies.py` reads what they bring,
`handlers.py` says what answers each, and `deadlines.py` for how long that is waited for. `openapi.py` is the document
of all, of what `replies.py` tells of replies and, by `descriptions.py`, of what docstrings say; `page.py` is the page
that a browser gets.
"""
