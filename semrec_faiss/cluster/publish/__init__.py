"""What becomes of an index in shards: built, changed, proven, and what is left over removed.

`building` has each shard built where it will be served and publishes all together, last. `updating` divides a change
among shards, and `changing` has each take its part beside the old one. `verifying` proves each where it lies, and
`remains` removes shards that no generation lists.
"""
