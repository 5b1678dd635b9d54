"""Questions over HTTP: an ASGI app with JSON, Arrow and a page, for a load balancer to stand before.

`questions` is what may be asked, `answering` asks the index, and `app` takes requests apart and hands replies back.
`serving` owns the generation in use and puts a new one in its place; `server` runs it all until a signal ends it.
"""
