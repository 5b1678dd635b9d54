"""What becomes of an index in shards: built, changed, proven, and what is left over removed.

`building` has each shard built where it will be served and publishes all together, last; `kept` tells which are there
already, of a build that did not end. `updating` gives each shard its part of a change, which `changing` makes beside
the old one, and where one has grown too large `dividing` evens all out. `verifying` proves each where it lies,
`remains` removes shards that no generation lists, and `gathering` waits for tasks.
"""
