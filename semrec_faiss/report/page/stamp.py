"""The stamp of a results file as rows of a report: when, with what and on what it was measured."""

from __future__ import annotations

from semrec_faiss.measure.documents.stamp import Git, Stamp
from semrec_faiss.report.page.document import Value


def stamp_rows(told: Stamp) -> list[list[Value]]:
    """Return a stamp, a row for each thing told."""
    git = told.git or Git(commit=None, dirty=None)
    cores = f"{told.cpu.usable_cores} of {told.cpu.cores} cores"
    blas: list[list[Value]] = [["BLAS", _blas(told)]] if told.blas else []
    return [
        ["date", told.date],
        ["command", told.command],
        ["commit", f"{git.commit or 'unknown'}{', with changes' if git.dirty else ''}"],
        ["versions", ", ".join(f"{name} {value}" for name, value in told.versions.items() if value)],
        ["system", told.os],
        ["processor", f"{told.cpu.model}, {cores}, {told.faiss_threads} FAISS threads"],
        *blas,
        ["GPUs", ", ".join(f"{gpu.name}, driver {gpu.driver}" for gpu in told.gpus) or "none"],
    ]


def _blas(told: Stamp) -> str:
    known = {library: blas for library, blas in (told.blas or {}).items() if blas is not None}
    return "; ".join(f"{library} {blas.name} {blas.version}, {blas.architecture}" for library, blas in known.items())
