"""Flips bits of an HDF5 file and imports it; run by test_formats.py.

    python flip_hdf5.py FOLDER TIMES

Prints how often the file was read, and how often refused with an error of ours; anything else ends the program.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np

from semrec_faiss.data.exchange.importing import write_data_folder
from semrec_faiss.data.exchange.opening import open_ann_file
from semrec_faiss.errors import SemrecError


def main() -> None:
    """Make the file, flip, import, count."""
    folder, times = Path(sys.argv[1]), int(sys.argv[2])
    rng = np.random.default_rng(3)
    with h5py.File(folder / "whole.hdf5", "w") as file:
        file.attrs["distance"] = "angular"
        file.create_dataset("train", data=rng.normal(size=(60, 8)).astype("f4"), chunks=(20, 8), compression="gzip")
        file["test"] = rng.normal(size=(10, 8)).astype("f4")
        file["neighbors"] = rng.integers(0, 60, (10, 3)).astype("i4")
    whole = (folder / "whole.hdf5").read_bytes()
    # What is not zero: most of the rest is room that nothing reads.
    places = np.flatnonzero(np.frombuffer(whole, np.uint8))
    counts = {"read": 0, "refused": 0}
    for number in range(times):
        broken = bytearray(whole)
        for place in rng.choice(places, 1 + number % 4):
            broken[place] ^= 1 << int(rng.integers(8))
        (folder / "broken.hdf5").write_bytes(broken)
        try:
            with open_ann_file(folder / "broken.hdf5") as found:
                write_data_folder(found, folder / "out", name="broken.hdf5", overwrite=True)
            counts["read"] += 1
        except SemrecError:
            counts["refused"] += 1
        shutil.rmtree(folder / "out", ignore_errors=True)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
