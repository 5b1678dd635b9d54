"""What this machine can do: its devices, their memory and drivers, and its processor's arithmetic.

`device.py` chooses where an index is searched, and `on_gpu.py` copies FAISS's there and frees them; `gpu_memory.py`
counts what a GPU has left; `gpu_drivers.py` holds a driver against the CUDA that FAISS and torch are built for.
`kernels.py` says which BLAS kernels numpy and FAISS run, and names better ones.
"""
