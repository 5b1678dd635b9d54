"""How many functions of ours stand between `semrec similar` and FAISS: nine at most, so that a reader can follow."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import semrec_faiss
from semrec_faiss.cli.main import cli
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index

OURS = str(Path(semrec_faiss.__file__).parent)
IN_ITS_PLACE = str(Path(OURS, "index", "cpu", "products.py"))
"""Where numpy takes FAISS's place for a flat index on a CPU."""


def between(frame: FrameType) -> list[str] | None:
    """Return our functions between the command and ``frame``, nearest first; None where another command asks."""
    found = []
    caller = frame.f_back
    while caller is not None:
        code = caller.f_code
        if code.co_filename == str(Path(OURS, "cli", "asking", "search.py")) and code.co_name == "similar":
            return found
        if code.co_filename.startswith(OURS) and code.co_filename != IN_ITS_PLACE:
            found.append(f"{Path(code.co_filename).stem}.{code.co_name}")
        caller = caller.f_back
    return None


@pytest.mark.filterwarnings("ignore:.*few to train")
@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "ivf_pq", "hnsw"])
def test_nine_functions_at_most(kind: str, tmp_path: Path, make_folder: Callable[..., Any]) -> None:
    made = make_folder(tmp_path / "data", titles=300)
    lists = {"build": {"nlist": 8}, "search": {"nprobe": 2}}
    settings: dict[str, dict[str, Any]] = {
        "ivf_flat": lists,
        "ivf_pq": lists | {"build": {"nlist": 8, "M": 4, "nbits": 4}},
    }
    index = {"type": kind, **settings.get(kind, {})}
    output = str(tmp_path / "index")
    build_index(config_from_dict({"dataset": str(made.root), "output": output, "index": index, "device": "cpu"}))
    ways: set[tuple[str, ...]] = set()

    def watch(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        is_faiss = "search" in code.co_name and Path(code.co_filename).parent.name == "faiss"
        if event == "call" and (is_faiss or code.co_filename == IN_ITS_PLACE):
            way = between(frame)
            if way is not None:
                ways.add(tuple(way))

    words = ["similar", output, "m00003", "-k", "5", "--json"]
    sys.setprofile(watch)
    try:
        cli.main(args=words, prog_name="semrec", standalone_mode=False)
    finally:
        sys.setprofile(None)
    assert ways, "FAISS was asked"
    assert max(map(len, ways)) <= 9, max(ways, key=len)
