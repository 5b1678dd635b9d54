"""The five tests of the deployment guide, CPU beside GPU: similar titles, users, batches, filters, memory.

`run` asks them all and writes one document; `gpu_and_cpu` opens both devices and asks them the same. `parity` proves
that both give the answers that float64 arithmetic gives, and `cost` works out what searches cost on rented machines.
"""
