"""Several processes at one address: workers that answer, and on a GPU one owner of the device, which searches.

`supervising` starts a `child` for each, hands signals on, and starts again who has fallen, or hangs, which `hanging`
tells, as `restarting` says. The `owner` makes all searches, which a worker's `remote` asks of it over a connection that
`doors` makes, by the messages of `frames`, and answers by `replies`. `serving` maps titles and vectors in a worker
whose searches are made there.
"""
