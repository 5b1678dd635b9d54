"""The Triton kernels, which `index/fused/one_pass` and its neighbours launch.

`queries` makes queries ready, `scoring` finds the chunks' maxima, `codes` finds them by int8 codes, `selecting` lists
what to look at again, and `ranking` rescores, ranks and proves; `gathering` lists a filter's titles. All of them run in
Triton's interpreter too, which is how they are tested without a GPU. `compiling` records them.
"""

ARITHMETIC = {"enable_fp_fusion": True}
"""What every kernel is launched with: products are rounded once they are added, not before (fused multiply-add).

Triton did so without being told before 3.10. Times were measured and registers counted with it.
"""
