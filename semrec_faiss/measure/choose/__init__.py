"""From a sweep's records to a decision.

`pick` names the best index for what is required and why every other lost; `regression` holds a sweep against an
earlier one. `tune` needs no sweep: it bisects one search setting of one index.
"""
