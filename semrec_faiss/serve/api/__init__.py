"""The routes of the service.

`app.py` takes requests apart, lets them in by their keys and hands replies back; `handlers.py` says what answers each.
`openapi.py` is the document of both, and `page.py` the page that a browser gets.
"""
