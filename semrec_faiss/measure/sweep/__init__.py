"""`semrec sweep` over indexes: a grid of settings to trials, each measured once.

`grid` and `plan` say what is measured, in an order that builds each index once; `run` skips what the ledger holds and
hands the rest to a `process` of its own, so that a crash costs one trial. `work` takes the measurements there, with
`measure/trials/tested_index` for the times.
"""
