"""``semrec bench gpu``: type fused on one GPU and on several, beside FAISS, cuVS, torch and the hardware's limit.

`one` and `several` measure, each with its record; `float16` does it for catalogues that are made on the GPU itself.
`filtered` is what `one` asks by filters. `peers` are what it is measured beside, `vectors` what is made up for it,
and `gpu_clock` tells the time.
"""
