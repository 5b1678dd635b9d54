"""What whole commands cost: the time from start to end and the most memory, each in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

from semrec_faiss.data.folder.layout import DataFolder, find_data_folder, open_vectors
from semrec_faiss.errors import NotFoundError, SemrecError
from semrec_faiss.measure.bench.search_record import BuildPeak, Footprints, Peak, Processes, ReadPeak
from semrec_faiss.measure.documents.results import NotMeasured
from semrec_faiss.measure.documents.times import Times
from semrec_faiss.measure.instruments.processes import (
    importing_libraries,
    peak_bytes_of_process,
    reading_as_float32,
    semrec,
    time_process,
)
from semrec_faiss.measure.trials.tested_index import ON_CPU
from semrec_faiss.progress import Progress
from semrec_faiss.search.recommender import Recommender

_NO_PEAK = NotMeasured("this system does not count a process's peak memory")
_NO_DATA = NotMeasured("the data folder that the index was built from is not there")


def process_times(recommender: Recommender, path: Path, runs: int, progress: Progress) -> Processes:
    """Time ``semrec --help`` and ``semrec similar`` as whole processes; files are in the disk cache by then.

    Args:
        recommender: the index, opened.
        path: where it lies.
        runs: how often each is run.
        progress: told the runs done.
    """
    similar = ["similar", str(path.absolute()), "--set", "device.kind=cpu", "--", title_of(recommender)]
    commands = {"help": ["--help"], "similar_cpu": similar}
    if recommender.index.device.gpus:
        commands["similar_gpu"] = ["device.kind=gpu" if part == "device.kind=cpu" else part for part in similar]
    times: dict[str, Times | NotMeasured] = {"similar_gpu": ON_CPU}
    for name, command in commands.items():
        timing = time_process(semrec(*command), repeats=runs, what=f"semrec {command[0]}", progress=progress)
        times[name] = timing.told()
    return Processes.of(**times)


def title_of(recommender: Recommender) -> str:
    """Return a title that names one row and no other, or its media_id where several carry that title."""
    record = recommender.catalog.records([recommender.index.count // 2])[0]
    try:
        recommender.catalog.find(record["title"])
    except NotFoundError:
        return str(record["media_id"])
    return str(record["title"])


def memory_peaks(recommender: Recommender, scratch: Path, progress: Progress) -> Footprints:
    """Measure the peak memory of building a flat index from the titles, and of reading the users' vectors.

    Beside them stands what the libraries alone take, which a GPU build of FAISS makes several times as much.

    Args:
        recommender: the index, opened; its data folder is read again.
        scratch: an empty folder for the flat index.
        progress: told the steps.
    """
    folder = _data_folder(recommender)
    if isinstance(folder, NotMeasured):
        return Footprints.of(build_flat=folder, read_users=folder)
    peaks: dict[str, object] = {}
    for step, (name, peak_of) in enumerate({"build_flat": _building, "read_users": _reading_users}.items()):
        progress("peak memory", step, 2)
        peaks[name] = peak_of(recommender, folder, scratch)
    progress("peak memory", 2, 2)
    libraries = peak_bytes_of_process(importing_libraries())
    return Footprints.of(**peaks, libraries=_NO_PEAK if libraries is None else Peak(peak_bytes=libraries))


def _data_folder(recommender: Recommender) -> DataFolder | NotMeasured:
    dataset = recommender.saved.generation.manifest.config.dataset.folder
    try:
        folder = find_data_folder(dataset or "")
        open_vectors(folder.media_vectors, expect_rows=recommender.index.count, expect_dim=recommender.index.dim)
    except SemrecError:
        return _NO_DATA
    return folder


def _building(recommender: Recommender, folder: DataFolder, scratch: Path) -> BuildPeak | NotMeasured:
    """Run ``semrec build`` on the titles alone."""
    data = scratch / "titles-alone"
    (data / "media").mkdir(parents=True)
    for path in (folder.media_vectors, folder.metadata):
        (data / "media" / path.name).symlink_to(path.resolve())
    places = {"dataset": str(data), "output": str(scratch / "flat-index")}
    config = {"index": {"type": "flat"}, "device": {"kind": recommender.index.device.kind}} | places
    config_path = scratch / "flat.yaml"
    config_path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    peak = peak_bytes_of_process(semrec("build", str(config_path)))
    if peak is None:
        return _NO_PEAK
    vector_bytes = recommender.index.count * recommender.index.dim * 4
    return BuildPeak(vector_bytes=vector_bytes, peak_bytes=peak)


def _reading_users(_: Recommender, folder: DataFolder, __: Path) -> ReadPeak | NotMeasured:
    if folder.user_vectors is None:
        return NotMeasured("the data folder has no users")
    peak = peak_bytes_of_process(reading_as_float32(folder.user_vectors.absolute()))
    if peak is None:
        return _NO_PEAK
    dtype = open_vectors(folder.user_vectors).dtype.name
    return ReadPeak(dtype=dtype, file_bytes=folder.user_vectors.stat().st_size, peak_bytes=peak)
