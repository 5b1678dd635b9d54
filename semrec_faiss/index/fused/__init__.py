"""Exact top-k on an NVIDIA GPU in Triton, with a bound on its error that lets each answer prove itself.

`searcher` is the door, `plan` sizes the work, `queries` brings a batch to the GPU, `one_pass` and `batch` run the
kernels, and what they could not prove goes to `full_scan`. Filters and exclusions are applied inside the kernels, so a
filtered search takes about as long as one without; the titles of filters that come back are copied together, in
`filters`. `several` takes several GPUs.
"""
