"""A log that nobody reads holds up nobody; what of it is lost is counted."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import HANG_SECONDS

from semrec_faiss.serve.log import MOST_BYTES

PIPE_BYTES = 1 << 16

TOLD = re.compile(r"WARNING: (\d+) lines of this log are lost: they were not read in time\n")

PRINTS = """
import sys
from semrec_faiss.serve.log import write_stderr_in_a_thread
write_stderr_in_a_thread()
for number in range(int(sys.argv[1])):
    print(f"{number:06d}" + "." * 993, file=sys.stderr)
print("printed", flush=True)
sys.stdin.readline()
print("the last", file=sys.stderr)
"""


def test_lines_that_nobody_reads_are_counted_and_the_others_whole() -> None:
    count = 2 * (MOST_BYTES + PIPE_BYTES) // 1000
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "printed\n"
    printed = [f"{number:06d}" + "." * 993 + "\n" for number in range(count)]
    place = lost = 0
    while place < count:
        line = process.stderr.readline()
        if (told := TOLD.fullmatch(line)) is not None:
            lost += int(told[1])
            place += int(told[1])
        else:
            assert line == printed[place]
            place += 1
    assert 0 < lost <= count - MOST_BYTES // 1000
    assert process.communicate("go on\n", timeout=HANG_SECONDS)[1] == "the last\n"
    assert process.returncode == 0


TOGETHER = """
import sys
from semrec_faiss.serve.log import write_stderr_in_a_thread
write_stderr_in_a_thread()
for _ in range(10):
    sys.stderr.write((sys.argv[1] * 299 + "\\n") * 100)
print("printed", flush=True)
sys.stdin.readline()
"""


def test_lines_of_several_processes_stay_whole() -> None:
    """Workers write to one pipe, which cuts what does not fit where it is full, and takes another's next."""
    reads, writes = os.pipe()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": writes}
    processes = [subprocess.Popen([sys.executable, "-c", TOGETHER, name], **pipes) for name in "ab"]
    os.close(writes)
    for process in processes:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"printed\n"
    said = b""
    while said.count(b"\n") < 2000:
        said += os.read(reads, 1000)
    for process in processes:
        process.communicate(b"go on\n", timeout=HANG_SECONDS)
    os.close(reads)
    assert Counter(said.splitlines()) == {b"a" * 299: 1000, b"b" * 299: 1000}


def test_a_process_ends_though_nobody_reads_what_it_prints() -> None:
    command = [sys.executable, "-c", PRINTS, str(2 * PIPE_BYTES // 1000)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(HANG_SECONDS) == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_whose_log_nobody_reads_answers_and_ends(workers: str, index: Path) -> None:
    flags = ["--port", "0", "--workers", workers]
    command = [sys.executable, "-m", "semrec_faiss", "serve", str(index), *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, bufsize=0)
    try:
        _asked_much(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_SECONDS) == 0
    finally:
        process.kill()


def _asked_much(process: subprocess.Popen[bytes]) -> None:
    """Ask for more lines than the pipe takes."""
    assert process.stderr is not None
    said = b""
    while (found := re.search(rb"listening at http://127\.0\.0\.1:(\d+)\n", said)) is None:
        said += process.stderr.read(1)
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=HANG_SECONDS / 5)
    for _ in range(3 * PIPE_BYTES // 300):
        connection.request("GET", "/" + 200 * "x", headers={"X-Request-Id": 64 * "x"})
        assert connection.getresponse().read()
