"""The process: README's examples, the page in a browser, ten swaps and a SIGTERM under load, a damaged generation."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HANG_SECONDS, until

import semrec_faiss
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.errors import UsageError
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.generations.directory import IndexDirectory
from semrec_faiss.serve.settings import ServeConfig
from semrec_faiss.serve.workers.supervising import run

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "semrec_faiss" / "serve" / "README.md"


def build(data: Path, index: Path) -> None:
    build_index(config_from_dict({"dataset": str(data), "output": str(index), "device": "cpu"}))


class Process:
    """``semrec serve`` on a free port."""

    def __init__(
        self,
        index: Path,
        *flags: str,
        context: ssl.SSLContext | None = None,
        under: tuple[str, ...] = (),
        program: str | None = None,
    ) -> None:
        self.context = context
        self.index = index
        patient = ("--grace-seconds", str(HANG_SECONDS), "--deadline-ms", str(1000 * HANG_SECONDS))
        runs = ["-m", "semrec_faiss"] if program is None else ["-c", program]
        command = [*under, sys.executable, *runs, "serve", str(index), "--port", "0", "--no-access-log"]
        command += [*patient, *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8", cwd=ROOT)
        assert self.process.stderr is not None
        self.said: list[str] = []
        found = None
        while found is None:
            self.said.append(self.process.stderr.readline())
            assert self.said[-1], "".join(self.said)
            found = re.search(r"127\.0\.0\.1:(\d+)", self.said[-1])
        self.port = int(found[1])
        self._reader = threading.Thread(target=lambda: self.said.extend(self.process.stderr or ()), daemon=True)
        self._reader.start()
        self.until(lambda: self.ask("GET", "/readyz")[0] == 200)

    def ask(self, method: str, path: str, question: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG_SECONDS)
        if self.context is not None:
            connection = http.client.HTTPSConnection("localhost", self.port, timeout=HANG_SECONDS, context=self.context)
        with contextlib.closing(connection):
            connection.request(method, path, None if question is None else json.dumps(question))
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())

    def until(self, holds: Any) -> None:
        until(holds, lambda: "".join(self.said))

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(HANG_SECONDS)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The demo index, served."""
    index = tmp_path_factory.mktemp("served") / "demo"
    build(ROOT / "data" / "demo", index)
    process = Process(index)
    yield process
    assert process.end() == 0


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("language", "runner", "needs", "holds"),
    [
        ("bash", ["bash", "-c"], "curl", "Toy Story 2 (1999)"),
        ("py", [sys.executable, "-c"], sys.executable, "user_002"),
        ("js", ["node", "--input-type=module", "-e"], "node", "Aliens (1986)"),
    ],
)
def test_the_readmes_examples_run(demo: Process, language: str, runner: list[str], needs: str, holds: str) -> None:
    if shutil.which(needs) is None:
        pytest.skip(f"{needs} is not installed")
    (example,) = examples(language)
    text = example.replace("127.0.0.1:8080", f"127.0.0.1:{demo.port}")
    result = subprocess.run([*runner, text], capture_output=True, encoding="utf-8", timeout=HANG_SECONDS)
    assert result.returncode == 0, result.stderr
    assert holds in result.stdout


async def _one_caller(port: int, counts: Counter[str], worlds: dict[str, str], stop: asyncio.Event) -> None:
    """Ask on a connection until the server closes it; every answer must be whole and of one generation."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"titles": ["m00001", "m00002"], "k": 5}'
    head = b"POST /v1/similar HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
    while not stop.is_set():
        writer.write(head + body)
        told = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(re.search(r"content-length: (\d+)", told)[1])
        document = json.loads(await reader.readexactly(length))
        if " 200 " not in told.splitlines()[0]:
            counts[told.splitlines()[0]] += 1
        else:
            generation = re.search(r"semrec-generation: (\S+)", told)[1]
            words = {one["title"].split()[0] for answer in document["answers"] for one in answer["results"]}
            words |= {answer["query"]["title"].split()[0] for answer in document["answers"]}
            counts["answered" if words == {worlds[generation]} else "mixed"] += 1
        if "connection: close" in told:
            break
    writer.close()


def test_ten_swaps_and_a_sigterm_under_load_fail_and_mix_nothing(tmp_path: Path, make_folder: Any) -> None:
    for word in ("Film", "Movie"):
        make_folder(tmp_path / word, word=word, seed=len(word))
    index = tmp_path / "index"
    build(tmp_path / "Film", index)
    build(tmp_path / "Movie", index)
    worlds = {"gen-000001": "Film", "gen-000002": "Movie"}
    process = Process(index, "--watch-seconds", "0.05")
    counts: Counter[str] = Counter()
    seen: list[str] = []

    async def load() -> int:
        stop = asyncio.Event()
        callers = [asyncio.create_task(_one_caller(process.port, counts, worlds, stop)) for _ in range(16)]
        for number in range(10):
            wanted = "gen-000001" if number % 2 == 0 else "gen-000002"
            await asyncio.to_thread(IndexDirectory(index).rollback, wanted)
            is_taken = lambda: process.ask("GET", "/readyz")[1]["generation"] == wanted  # noqa: B023, E731 - at once
            await asyncio.to_thread(process.until, is_taken)
            seen.append(wanted)
        code = await asyncio.to_thread(process.end)
        await asyncio.wait_for(asyncio.gather(*callers), HANG_SECONDS)
        return code

    code = asyncio.run(load())
    assert len(seen) == 10
    assert code == 0
    assert set(counts) == {"answered"}, counts
    assert counts["answered"] > 100


def test_a_damaged_generation_is_refused_and_told(tmp_path: Path, data: Path) -> None:
    index = tmp_path / "index"
    build(data, index)
    process = Process(index, "--watch-seconds", "0.05")
    try:
        build(data, tmp_path / "other")
        build(data, tmp_path / "other")
        broken = tmp_path / "other" / "gen-000002"
        file = broken / "records.jsonl"
        content = bytearray(file.read_bytes())
        content[100] ^= 1
        file.write_bytes(content)
        shutil.move(broken, index / "gen-000002")
        shutil.copy(tmp_path / "other" / "CURRENT", index / "CURRENT.new")
        (index / "CURRENT.new").replace(index / "CURRENT")
        process.until(lambda: process.ask("GET", "/readyz")[1]["refused"] is not None)
        status, ready = process.ask("GET", "/readyz")
        assert (status, ready["generation"], ready["refused"]["generation"]) == (200, "gen-000001", "gen-000002")
        assert "records.jsonl" in ready["refused"]["reason"]
        assert process.ask("POST", "/v1/similar", {"title": "m00001"})[0] == 200
        build(data, index)
        process.until(lambda: process.ask("GET", "/readyz")[1]["generation"] == "gen-000003")
        assert process.ask("GET", "/readyz")[1]["refused"] is None
    finally:
        assert process.end() == 0


def test_the_page_in_a_browser(demo: Process, tmp_path: Path) -> None:
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser_path is None:
        pytest.skip("no Chromium")
    from playwright.sync_api import expect, sync_playwright

    address = f"http://127.0.0.1:{demo.port}/"
    expect.set_options(timeout=1000 * HANG_SECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox"], timeout=1000 * HANG_SECONDS
        )
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(1000 * HANG_SECONDS)
        page = context.new_page()
        asked: list[str] = []
        wrong: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        page.get_by_role("combobox", name="Title").press_sequentially("toy story")
        expect(page.get_by_role("option").first).to_have_text("Toy Story (1995)")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        results = page.locator("#results > li")
        expect(results).to_have_count(10)
        expect(page.get_by_role("heading", level=2, name="Like Toy Story (1995)")).to_be_visible()
        expect(page.locator("#account")).to_contain_text("exact · gen-000001")
        expect(page.locator("#curl")).to_contain_text('"title":"film_')
        page.get_by_label("Genre").fill("family")  # any is taken, and those seen are offered
        page.keyboard.press("Enter")
        expect(page.locator("#curl")).to_contain_text('"genres":["family"]')
        expect(page.locator("#results")).to_have_attribute("aria-busy", "false")  # or what is opened next is replaced
        assert "Family" in page.locator("#genres option").evaluate_all("all => all.map((one) => one.value)")
        expect(results.first).to_contain_text("Family")
        results.first.get_by_role("button", name="Why").click()
        expect(results.first.locator(".why")).to_contain_text("similarity")
        expect(results.first.get_by_role("button", expanded=True)).to_have_text("Why")
        scores = page.evaluate("[0.0022708, 0.5, 0.71591, 12.3456, 1234.5, 0].map(digits)")
        assert scores == ["0.00227", "0.500", "0.716", "12.3", "1,235", "0.00"]  # once 0.002 for a whole list
        before = results.first.inner_text()
        results.first.get_by_role("button", name="Like", exact=False).first.press("Enter")
        expect(page.get_by_role("heading", level=2, name="For your taste")).to_be_visible()
        expect(page.locator("#taste li")).to_have_count(1)
        expect(page.locator("#heading")).to_be_focused()  # as what was liked is gone from the list
        expect(page.get_by_role("combobox", name="Title")).to_have_value("")
        expect(results.first).not_to_have_text(before)
        before = results.first.inner_text()
        results.first.get_by_role("button", name="Dislike").press("Enter")
        expect(page.locator("#taste li").last).to_contain_text("− ")
        expect(results.first).not_to_have_text(before)
        _a_genre_that_there_is_not(page)
        wrong.clear()  # the browser tells of the 400
        page.get_by_label("From year").fill("199x")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Expected `int | null`")
        wrong.clear()  # the browser tells of the 422
        _why_nothing_matches(page)
        page.get_by_label("Diversity").press("ArrowRight")
        expect(page.locator("#curl")).to_contain_text('"diversity":0.1')
        page.get_by_label("API key").fill("semrec_secret")
        page.keyboard.press("Enter")
        expect(page.locator("#curl")).to_contain_text("Bearer $KEY")
        expect(results).to_have_count(10)
        page.screenshot(path=str(tmp_path / "wide.png"))
        for left in (1, 0):  # once a fault: a dislike alone could not be forgotten
            page.get_by_role("button", name="Forget").first.click()
            expect(page.locator("#taste li")).to_have_count(left)
        expect(page.locator("#account")).to_have_text("Nothing asked.")
        page.get_by_label("Diversity").press("ArrowLeft")
        page.get_by_label("or a user").fill("user_001")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=2, name="For user_001")).to_be_visible()
        expect(page.locator("#curl")).not_to_contain_text("semrec_secret")
        build(ROOT / "data" / "demo", demo.index)  # a swap under the open page
        demo.until(lambda: demo.ask("GET", "/readyz")[1]["generation"] == "gen-000002")
        page.get_by_label("Genre").fill("Drama")
        page.keyboard.press("Enter")
        expect(page.locator("#account")).to_contain_text("exact · gen-000002")
        expect(page.locator("#about")).to_contain_text("gen-000002")
        expect(page.get_by_role("heading", level=2, name="For user_001")).to_be_visible()
        expect(results.first).to_contain_text("Drama")
        assert wrong == []
        page.get_by_role("combobox", name="Title").fill("no such title")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("no title answers")
        expect(page.get_by_role("heading", level=2, name="No answer")).to_be_visible()
        _may_have_meant(page)
        dark = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        dark.set_default_timeout(1000 * HANG_SECONDS)
        dark.goto(address)
        dark.get_by_role("combobox", name="Title").fill("Alien (1979)")
        dark.keyboard.press("Enter")
        expect(dark.locator("#results > li")).to_have_count(10)
        assert dark.evaluate("document.documentElement.scrollWidth") <= 390
        expect(dark.locator("#results > li").first).to_be_in_viewport()
        dark.screenshot(path=str(tmp_path / "narrow-dark.png"), full_page=True)
        _filters_on_a_narrow_screen(dark)
        title = "X" * 180  # once a fault: one without blanks made the page wider than the screen
        dark.evaluate("title => fill([row({rank: 1, media_id: 'x', title, score: 0.5, genres: [title]})])", title)
        dark.get_by_role("button", name="Like", exact=False).first.click()
        assert dark.evaluate("document.documentElement.scrollWidth") <= 390
        heat = {"title": "Heat (1995)", "points": 0.002, "share": None}
        told = {"rank": 2, "of": 9, "score": -0.0031, "contributions": [heat]}
        dark.route("**/v1/explain", lambda route: route.fulfill(json=told))
        dark.get_by_label("or a user").fill("user_001")
        dark.keyboard.press("Enter")
        expect(dark.locator("#results > li")).to_have_count(10)
        dark.get_by_role("button", name="Why").first.click()
        expect(dark.locator(".why").first).to_contain_text("Heat (1995) (0.00200)")  # no share of a score below 0
        browser.close()
    assert all(url.startswith(address) for url in asked)


def _why_nothing_matches(page: Any) -> None:
    """Once a fault: it was told to all but the page."""
    from playwright.sync_api import expect

    notes = page.get_by_label("Why nothing matches").get_by_role("listitem")
    page.get_by_label("From year").fill("2090")
    page.keyboard.press("Enter")
    expect(notes).to_have_text(["no title's year is from 2090 on; year goes from 1902 to 2025"])
    expect(page.locator("#account")).to_contain_text("Nothing matches")
    page.get_by_label("From year").fill("")
    page.keyboard.press("Enter")
    expect(notes).to_have_count(0)
    expect(page.locator("#results > li")).to_have_count(10)


def _filters_on_a_narrow_screen(page: Any) -> None:
    """They are folded, so that the answer is in sight, and what is set is told; a wide screen always shows them."""
    from playwright.sync_api import expect

    fold = page.locator("summary")
    expect(page.get_by_label("Genre")).to_be_hidden()
    page.evaluate("scrollTo(0, 0)")
    expect(page.locator("#results > li").first).to_be_in_viewport()  # once below everything that can be set
    fold.click()
    for label, text in (("Genre", "Horror"), ("From year", "1980")):
        page.get_by_label(label).fill(text)
        page.keyboard.press("Enter")
    expect(fold).to_have_text("Filters, diversity, key · Horror · 1980–…")
    fold.click()
    expect(page.get_by_label("Genre")).to_be_hidden()
    page.set_viewport_size({"width": 1280, "height": 844})
    expect(page.get_by_label("Genre")).to_be_visible()
    expect(fold).to_be_hidden()
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_label("Genre").fill("")
    page.get_by_label("From year").fill("")
    page.keyboard.press("Enter")
    expect(fold).to_have_text("Filters, diversity, key")
    expect(page.locator("#results > li")).to_have_count(10)


def _a_genre_that_there_is_not(page: Any) -> None:
    """It is told with a button for the nearest one, and all that there are are no part of what is wrong."""
    from playwright.sync_api import expect

    page.get_by_label("Genre").fill("Famly")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("no title has the genre 'Famly'")
    expect(page.locator("#fix")).to_contain_text("genres: Action, Adventure")
    page.get_by_label("What you may have meant").get_by_role("button", name="Family").click()
    expect(page.get_by_label("Genre")).to_have_value("Family")
    expect(page.locator("#results > li")).to_have_count(10)
    expect(page.locator("#fix")).to_have_text("")


def test_the_page_asks_for_no_genres_years_and_users_where_there_are_none(tmp_path: Path) -> None:
    """They were asked for, and each was then refused; a title of two lines left half of itself above the buttons."""
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser_path is None:
        pytest.skip("no Chromium")
    from playwright.sync_api import expect, sync_playwright

    titles = ["Line one\nline two", "Line one\nline too", *(f"Song {row}" for row in range(10))]
    metadata = {"media_id": [f"s{row}" for row in range(12)], "title": titles}
    semrec_faiss.build(np.eye(12, 8, dtype=np.float32) + 1, metadata, output=tmp_path / "index")
    process = Process(tmp_path / "index")
    expect.set_options(timeout=1000 * HANG_SECONDS)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=browser_path, args=["--no-sandbox"], timeout=1000 * HANG_SECONDS
            )
            for width in (390, 1280):
                _page_of_titles_alone(browser.new_page(viewport={"width": width, "height": 900}), process.port)
            browser.close()
    finally:
        assert process.end() == 0


def _page_of_titles_alone(page: Any, port: int) -> None:
    from playwright.sync_api import expect

    page.set_default_timeout(1000 * HANG_SECONDS)
    page.goto(f"http://127.0.0.1:{port}/")
    expect(page.locator("#about")).to_contain_text("12 titles")
    if page.locator("summary").is_visible():
        page.locator("summary").click()
    for hidden in ("#only", "#genre", "#from", "#to", "#user"):
        expect(page.locator(hidden)).to_be_hidden()
    expect(page.get_by_label("Diversity")).to_be_visible()
    page.get_by_role("combobox", name="Title").fill("line one lien two")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text(
        "no title answers to 'line one lien two'; the nearest are:", use_inner_text=True
    )
    choices = page.get_by_label("What you may have meant").get_by_role("button")
    expect(choices).to_have_text(["Line one line two", "Line one line too"])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def _may_have_meant(page: Any) -> None:
    """Near misses are offered while one types, and by what is wrong, to a mouse and to a keyboard."""
    from playwright.sync_api import expect

    title, choices = page.get_by_role("combobox", name="Title"), page.get_by_label("What you may have meant")
    title.fill("")
    title.press_sequentially("toy stroy")
    offered = page.get_by_role("listbox", name="Titles that look like it").get_by_role("option")
    expect(offered).to_have_count(5)
    expect(offered.first).to_have_text("Toy Story (1995)")
    page.keyboard.press("Escape")
    expect(page.get_by_role("option")).to_have_count(0)
    page.keyboard.press("ArrowDown")  # once a fault: what Escape had put away came back by typing alone
    expect(offered.first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2, name="Like Toy Story (1995)")).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option")).to_have_count(0)  # what was typed before is settled
    page.evaluate("offer({titles: ['a', 'b'].map((media_id) => ({media_id, title: 'Emma'}))})")
    expect(page.get_by_role("option")).to_have_text(["Emma [a]", "Emma [b]"])  # once alike
    page.evaluate("settle()")
    expect(choices.get_by_role("button")).to_have_count(0)
    title.fill("toy stroy")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("no title answers to 'toy stroy'; the nearest are:")
    expect(choices.get_by_role("button")).to_have_count(5)
    expect(page.get_by_role("option")).to_have_count(0)  # nothing is offered for what was asked already
    choices.get_by_role("button", name="Toy Story 2 (1999)").click()
    expect(page.get_by_role("heading", level=2, name="Like Toy Story 2 (1999)")).to_be_visible()
    expect(title).to_have_value("Toy Story 2 (1999)")
    expect(page.get_by_role("alert")).to_have_text("")
    title.fill("the mummy")  # there are two: the button knows which
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("2 titles answer to 'the mummy':")
    choices.get_by_role("button").last.press("Enter")
    expect(page.get_by_role("heading", level=2, name="Like The Mummy (1999)")).to_be_visible()
    expect(page.locator("#curl")).to_contain_text('"title":"film_0625"')
    expect(page.locator("#heading")).to_be_focused()  # as the button is gone
    page.get_by_label("or a user").fill("user_0001")
    page.keyboard.press("Enter")
    expect(page.get_by_text("ids look like 'user_001'")).to_be_visible()
    choices.get_by_role("button", name="user_001").click()
    expect(page.get_by_role("heading", level=2, name="For user_001")).to_be_visible()


@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_too_much_is_told_and_not_cut_off(demo: Process, chunked: bool) -> None:
    """Once a fault: a caller that writes all before it reads saw the connection reset, and no reply."""
    most = 16 << 20
    body = (b" " * (1 << 16) for _ in range(257)) if chunked else b" " * (most + 1)
    connection = http.client.HTTPConnection("127.0.0.1", demo.port, timeout=HANG_SECONDS)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/similar", body, encode_chunked=chunked, headers=CHUNKED if chunked else {})
        reply = connection.getresponse()
        problem = json.loads(reply.read())
    assert (reply.status, reply.headers["connection"], problem["status"]) == (413, "close", 413)
    assert f"at most {most}" in problem["detail"] and problem["fix"]


CHUNKED = {"transfer-encoding": "chunked"}


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="no prlimit to run it by")
def test_idle_connections_leave_room_for_others(index: Path) -> None:
    """Once a fault: where a process opens few files by habit, whoever came after so many was cut off."""
    process = Process(index, under=("prlimit", "--nofile=128:1024"))
    with contextlib.ExitStack() as idle:
        for _ in range(300):
            idle.enter_context(socket.create_connection(("127.0.0.1", process.port), HANG_SECONDS))
        assert process.ask("POST", "/v1/similar", {"title": "m00001"})[0] == 200
    assert process.end() == 0, "".join(process.said)


def test_a_user_who_may_only_read_the_index_serves_it(tmp_path: Path, data: Path) -> None:
    index = tmp_path / "index"
    build(data, index)
    under: tuple[str, ...] = ()
    if os.getuid() == 0:  # what root may beyond other users is taken away
        under = ("setpriv", "--bounding-set=-all")
        if shutil.which("setpriv") is None or subprocess.run([*under, "true"], capture_output=True).returncode:
            pytest.skip("nobody to run it as")
    files = [index, *index.rglob("*")]
    for path in files:
        path.chmod(0o555 if path.is_dir() else 0o444)
        if under:
            os.chown(path, 65534, 65534)
    before = {path: path.stat().st_mtime_ns for path in files}
    try:
        process = Process(index, under=under)
        assert process.ask("POST", "/v1/similar", {"title": "m00001", "genres": ["Crime"]})[0] == 200
        assert process.ask("POST", "/v1/recommend", {"user": "user_001"})[0] == 200
        assert process.end() == 0
        assert {path: path.stat().st_mtime_ns for path in [index, *index.rglob("*")]} == before
    finally:
        for path in files:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_schemathesis_finds_nothing(demo: Process, tmp_path: Path) -> None:
    """All checks; what fits a schema may still name a title that is not there, or hold SQL that is none (400)."""
    config = tmp_path / "schemathesis.toml"
    config.write_text("[checks]\npositive_data_acceptance.expected-statuses = [200, 400, 403, 404, 422, 501, 503]\n")
    document = demo.ask("GET", "/openapi.json")[1]
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        found = operation.get("parameters", [])  # without the deadline, by which any may be too late
        operation["parameters"] = [one for one in found if one["name"] != "Deadline-Ms"]
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    address = ["openapi.json", "--url", f"http://127.0.0.1:{demo.port}"]
    options = ["--checks", "all", "--phases", "coverage,fuzzing", "-n", "25", "--seed", "7"]  # as many on any machine
    result = subprocess.run(
        [*command, "--config-file", str(config), "run", *address, *options],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        timeout=2 * HANG_SECONDS,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"(\d+) generated, \1 passed", result.stdout), result.stdout


def test_sighup_takes_what_is_published_and_tls_is_spoken(tmp_path: Path, data: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    index, key, certificate = tmp_path / "index", tmp_path / "key.pem", tmp_path / "cert.pem"
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    for pair, says in (
        ((certificate, tmp_path / "none.pem"), "none.pem cannot be read: No such file or directory"),
        ((tmp_path, key), "cannot be read: Is a directory"),
        ((key, certificate), "key.pem and .*cert.pem are no certificate and its key"),
    ):
        with pytest.raises(UsageError, match=says):  # once "a mistake in semrec"
            run(ServeConfig(index=index, tls_certificate=pair[0], tls_key=pair[1]), print)
    build(data, index)
    flags = ("--watch-seconds", "0", "--tls-certificate", str(certificate), "--tls-key", str(key))
    process = Process(index, *flags, context=ssl.create_default_context(cafile=str(certificate)))
    try:
        build(data, index)
        assert process.ask("GET", "/readyz")[1]["generation"] == "gen-000001"
        process.process.send_signal(signal.SIGHUP)
        process.until(lambda: process.ask("GET", "/readyz")[1]["generation"] == "gen-000002")
    finally:
        assert process.end() == 0


HANGS = """
import sys, time
from semrec_faiss.serve.asking.serving import Serving
opened = Serving._opened
def hanging(self):
    if self.current is None:
        return opened(self)
    print("another is opened", file=sys.stderr, flush=True)
    time.sleep(1e6)
Serving._opened = hanging
import semrec_faiss.__main__
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_an_end_waits_for_no_generation_that_is_being_opened(signals: int, data: Path, tmp_path: Path) -> None:
    """Once a fault: it waited as long as that took, whatever the grace, and a second signal changed nothing."""
    build(data, tmp_path / "index")
    grace = ("--grace-seconds", "1" if signals == 1 else "1000")
    process = Process(tmp_path / "index", "--watch-seconds", "0.1", *grace, program=HANGS)
    try:
        build(data, tmp_path / "index")
        process.until(lambda: any("another is opened" in line for line in process.said))
        for _ in range(signals):
            process.process.send_signal(signal.SIGTERM)
            if signals == 2:
                process.until(lambda: any("draining" in line for line in process.said))
        assert process.process.wait(HANG_SECONDS) == 0, "".join(process.said)
        process._reader.join(HANG_SECONDS)
        assert "ending with work that nobody waits for" in "".join(process.said)
    finally:
        process.process.kill()
