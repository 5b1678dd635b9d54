"""Questions over HTTP: an ASGI app with JSON, Arrow and a page, for a load balancer to stand before.

`wire` is what goes over it, `asking` owns the index and asks it, and `api` takes requests apart and hands replies back.
`server.py` runs it all until a signal ends it, by `settings.py` and `keys.py`; `connection.py` bears what callers do;
`metrics.py` counts, and `log.py` writes the log.
"""
