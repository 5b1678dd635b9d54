"""The Triton kernels, which `index/fused/one_pass` and its neighbours launch.

`scoring` makes queries ready and finds the chunks' maxima, `codes` finds them by int8 codes, `selecting` lists what to
look at again, and `ranking` rescores, ranks and proves. All of them run in Triton's interpreter too, which is how they
are tested without a GPU.
"""
