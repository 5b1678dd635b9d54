"""How the process of a command ends: at once, with everything said and done that was to be."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import HANG_SECONDS


def _ended(command: str, *, code: int = 0) -> str:
    """Run ``semrec`` with ``command`` as the whole of what it does; return what it printed."""
    whole = f"""
import sys
from semrec_faiss.cli import main, start

def command():
{textwrap.indent(textwrap.dedent(command), "    ")}
    sys.exit({code})

main.run = command
start.run()
"""
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, encoding="utf-8", timeout=HANG_SECONDS)
    assert (done.returncode, done.stderr) == (code, "")
    return done.stdout


@pytest.mark.parametrize("code", [0, 3])
def test_all_that_was_printed_comes_out_and_the_code_is_kept(code: int) -> None:
    assert _ended("print('a line ' * 20_000, end='')", code=code) == "a line " * 20_000


def test_what_is_registered_for_the_end_is_done(tmp_path: Path) -> None:
    told = _ended(f"""
        import atexit, tempfile
        global kept
        kept = tempfile.TemporaryDirectory(dir={str(tmp_path)!r})
        atexit.register(lambda: print("registered"))
    """)
    assert told == "registered\n"
    assert not list(tmp_path.iterdir()), "a temporary folder is left behind"


def test_nothing_is_freed_piece_by_piece() -> None:
    told = _ended("""
        global held
        class Held:
            def __del__(self):
                print("freed")
        held = Held()
    """)
    assert told == ""


def test_threads_that_are_at_work_end_first() -> None:
    told = _ended("""
        import threading, time
        from concurrent.futures import ThreadPoolExecutor
        begun = threading.Event()
        def work():
            begun.set()
            time.sleep(0.3)
            print("done")
        ThreadPoolExecutor(1).submit(work)
        begun.wait()
    """)
    assert told == "done\n"


def test_an_error_of_another_kind_is_told_by_the_interpreter() -> None:
    program = "from semrec_faiss.cli import main, start; main.run = lambda: 1 / 0; start.run()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", timeout=HANG_SECONDS)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
