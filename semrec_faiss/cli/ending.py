"""How a command that measures ends: what it found is saved, printed, and the file named; and how a benchmark runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from semrec_faiss.cli.printing import print_json, progress_bars, say

if TYPE_CHECKING:
    from semrec_faiss.measure.bench.record import BenchResults
    from semrec_faiss.measure.documents.fields import Part
    from semrec_faiss.progress import Progress

Found = TypeVar("Found", bound="Part")
Results = TypeVar("Results", bound="BenchResults")


def tell(found: Found, show: Callable[[Found], None], *, as_json: bool, path: Path | None = None) -> None:
    """Save what was found to ``path``, and print it, as JSON or by ``show``.

    Raises:
        StorageError: it cannot be written.
    """
    from semrec_faiss.measure.documents.results import save_results

    document = found.as_json()
    if path is not None:
        save_results(document, path)
    if as_json:
        print_json(document)
    else:
        show(found)
    if path is not None:
        say(f"wrote {path}")


def run_bench(
    bench: Callable[[Progress], Results], show: Callable[[Results], None], out: Path, *, as_json: bool
) -> Results:
    """Run a benchmark, and tell what it found into a file of its own name in ``out``.

    Raises:
        UsageError: ``out`` cannot be a folder, or another process measures into it, which is said before anything is
            measured.
        SemrecError: the benchmark's own.
    """
    from semrec_faiss.places import check_new_folder
    from semrec_faiss.storage import one_run_into

    check_new_folder(out, "--out")
    with one_run_into(out):
        with progress_bars() as progress:
            results = bench(progress)
        tell(results, show, as_json=as_json, path=out / results.file_name)
    return results
