"""Where the demo's data folder is: inside an installed package, or in the source tree."""

from __future__ import annotations

from pathlib import Path

from semrec_faiss.errors import NotFoundError


def or_demos(path: Path) -> Path:
    """Return ``path``; where nothing is there and it names the demo's data as in a checkout, what came with semrec.

    So ``data/demo`` and what is in it can be named wherever semrec is installed.
    """
    if path.parts[:2] != ("data", "demo") or path.exists():
        return path
    return demo_folder().joinpath(*path.parts[2:])


def demo_folder() -> Path:
    """Return the data folder of the demo's films.

    Raises:
        NotFoundError: this installation came without it.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "demo_data", package.parent / "data" / "demo"):
        if (folder / "media" / "metadata.jsonl").is_file():
            return folder
    raise NotFoundError(
        "the demo's data folder did not come with this installation", fix="pip install --force-reinstall semrec-faiss"
    )
