"""Vectors of benchmarks in and out: the HDF5 of ann-benchmarks, fbin and ibin.

What such a file searches become titles, what it asks become users. `formats` reads and writes the files, `importing`
makes a data folder of one; its neighbours are held against exact ones by `measure/quality`.
"""
