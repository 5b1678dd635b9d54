"""Who may ask, and what a service may be told."""

from __future__ import annotations

import io
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Semrec, run_python

import semrec_faiss
from semrec_faiss.errors import ConfigError, NotFoundError, UsageError
from semrec_faiss.serve.keys import Keys, add_key
from semrec_faiss.serve.log import log, set_up_log
from semrec_faiss.serve.settings import ServeConfig, read_settings
from tests.serve.conftest import build


def test_keys_let_in_by_role_and_stand_nowhere(index: Path, new_asker: Any, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    reader, admin = add_key(path, "website"), add_key(path, "ops", "admin")
    assert reader not in path.read_text() and path.stat().st_mode & 0o777 == 0o600
    asker = new_asker(index, keys=path)
    asker.load()
    log = io.StringIO()
    asker.service.app.rules = replace(asker.service.app.rules, log_to=log)
    question = {"title": "m00001"}

    def status(key: str | None, path: str = "/v1/similar") -> int:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return int(asker.post(path, question, headers=headers).status_code)

    assert [status(None), status("semrec_wrong"), status(reader), status(admin)] == [401, 401, 200, 200]
    assert [status(None, "/v1/reload"), status(reader, "/v1/reload"), status(admin, "/v1/reload")] == [401, 403, 200]
    assert asker.get("/metrics").status_code == 401
    assert asker.get("/readyz").status_code == asker.get("/").status_code == 200
    asker.service.app.write_log()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["key"] for line in lines[:4]] == [None, None, "website", "ops"]
    assert not any(key in log.getvalue() for key in (reader, admin))


@pytest.mark.parametrize(
    ("given", "detail"),
    [
        ({}, "a key is needed"),
        ({"authorization": "Bearer semrec_wrong"}, "the key is none that this service knows"),
        ({"authorization": "semrec_wrong"}, "the header Authorization is not of the form Bearer KEY"),
        ({"authorization": "Basic c2VtcmVjOng="}, "the header Authorization is not of the form Bearer KEY"),
    ],
)
def test_who_is_not_let_in_is_told_what_is_wrong_with_the_key(
    given: dict[str, str], detail: str, index: Path, new_asker: Any, tmp_path: Path
) -> None:
    """Once a fault: who showed a key that was deleted, or left out Bearer, was told that a key is needed."""
    add_key(tmp_path / "keys.txt", "website")
    reply = new_asker(index, keys=tmp_path / "keys.txt").get("/v1/index", headers=given)
    assert (reply.status_code, reply.json()["detail"]) == (401, detail)
    assert "semrec_wrong" not in reply.text


def test_without_keys_only_this_machine_asks_and_nobody_reloads(asker: Any) -> None:
    foreign = asker.post("/v1/similar", {"title": "m00001"}, headers={"host": "evil.example"})
    assert foreign.status_code == 403
    assert asker.post("/v1/reload", {}).status_code == 403


def test_a_file_of_keys_is_held_to_its_form(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    with pytest.raises(NotFoundError, match="no file of keys"):
        Keys.read(path)
    add_key(path, "one")
    with pytest.raises(UsageError, match="has a key of one"):
        add_key(path, "one")
    with pytest.raises(UsageError, match="no name"):
        add_key(path, "a b")
    path.write_text("# ours\nnonsense\n")
    with pytest.raises(ConfigError, match=r"keys.txt:2 is not NAME"):
        Keys.read(path)


def test_a_key_more_leaves_what_the_file_says_and_who_may_read_it(tmp_path: Path) -> None:
    """Once a fault: comments were gone, and a service of another user could not read the file any more."""
    path = tmp_path / "keys.txt"
    add_key(path, "one")
    path.write_text("# ours\n\n" + path.read_text().rstrip("\n"))
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12346)
    before = path.stat()
    second = add_key(path, "two", "admin")
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    comment, blank, first, last = path.read_text().splitlines()
    assert (comment, blank, first.split()[0], last.split()[:2]) == ("# ours", "", "one", ["two", "admin"])
    holder = Keys.read(path).holder(second)
    assert holder is not None and holder.name == "two"


def test_keys_that_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    """Once a fault: of two, one was printed and in no file."""
    path = tmp_path / "keys.txt"
    names = [f"caller-{number}" for number in range(12)]
    with ThreadPoolExecutor(len(names)) as threads:
        keys = list(threads.map(lambda name: add_key(path, name), names))
    read = Keys.read(path)
    assert [holder.name for key in keys if (holder := read.holder(key))] == names
    assert list(tmp_path.iterdir()) == [path]


def test_a_reload_that_is_refused_is_not_the_callers_mistake_and_reads_the_keys_again(
    data: Path, new_asker: Any, tmp_path: Path
) -> None:
    """Once faults: a missing index was a 404; and a key that was taken back was let in while the index was refused."""
    reader, admin = add_key(tmp_path / "keys.txt", "website"), add_key(tmp_path / "keys.txt", "ops", "admin")
    build(data, tmp_path / "index")
    asker = new_asker(tmp_path / "index", keys=tmp_path / "keys.txt")
    asker.load()

    def asked(key: str, path: str) -> Any:
        return asker.post(path, {"title": "m00001"}, headers={"authorization": f"Bearer {key}"})

    (tmp_path / "index").rename(tmp_path / "away")
    lines = (tmp_path / "keys.txt").read_text().splitlines(keepends=True)
    (tmp_path / "keys.txt").write_text(lines[1])
    refused = asked(admin, "/v1/reload")
    assert (refused.status_code, refused.json()["detail"]) == (503, "index INDEX does not exist")
    assert refused.json()["fix"].startswith("for whoever runs the service: semrec build")
    assert [asked(reader, "/v1/similar").status_code, asked(admin, "/v1/similar").status_code] == [401, 200]


def test_a_reload_reads_the_keys_again_and_a_mistake_in_them_changes_nothing(
    index: Path, new_asker: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a fault: a key that was taken back was let in until SIGHUP came, though several workers read them."""
    path = tmp_path / "keys.txt"
    reader, admin = add_key(path, "website"), add_key(path, "ops", "admin")
    asker = new_asker(index, keys=path)
    asker.load()

    def status(key: str, path: str) -> int:
        question = {"title": "m00001"}
        return int(asker.post(path, question, headers={"authorization": f"Bearer {key}"}).status_code)

    whole = path.read_text()
    path.write_text("nonsense\n")
    assert [status(admin, "/v1/reload"), status(reader, "/v1/similar")] == [200, 200]
    [record] = [one for one in caplog.records if "keys" in one.getMessage()]
    assert record.getMessage().startswith("those keys that were read before stay: ") and record.exc_info is None
    path.write_text(whole.splitlines()[1] + "\n")
    assert [status(reader, "/v1/similar"), status(admin, "/v1/reload")] == [200, 200]
    assert status(reader, "/v1/similar") == 401


def test_the_command_prints_a_key_once(tmp_path: Path, semrec: Semrec) -> None:
    path = tmp_path / "keys.txt"
    result = semrec("serve", "keys", "add", "ops", "--keys", path, "--role", "admin")
    assert result.code == 0
    found = Keys.read(path).holder(result.out.strip())
    assert found is not None and (found.name, found.may("read"), found.may("admin")) == ("ops", True, True)
    assert Keys.read(path).holder(result.out.strip() + "x") is None


@pytest.mark.parametrize("command", ["list", "ad"])
def test_another_command_of_keys_is_told_to_be_unknown(command: str, semrec: Semrec) -> None:
    """Once a fault: it was a mistake in semrec, as keys looked for the command run, which only serve has."""
    result = semrec("serve", "keys", command, "--keys", "keys.txt")
    assert (result.code, f"No such command '{command}'" in result.err) == (2, True)


def test_a_file_and_flags_over_it(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("index: a\nport: 1234\nlimits:\n  max_k: 7\n  deadline_ms: 50\n")
    config = read_settings(path, {"port": 99, "max_k": 9, "host": None, "cors": ()})
    assert (str(config.index), config.port, config.limits.max_k, config.limits.deadline_ms) == ("a", 99, 9, 50)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("index: a\nprot: 1\n", r"serve.yaml:2: unknown key 'prot'; did you mean 'port'"),
        ("index: a\nlimits:\n  max_kk: 1\n", r"serve.yaml:3: unknown key 'limits.max_kk'; did you mean 'max_k'"),
        ("index: a\nport: 70000\n", r"serve.yaml:2: port: .*less than or equal to 65535, not 70000"),
        ("index: a\nhost: 0.0.0.0\n", "needs keys"),
        ("index: a\ntls_key: b\n", "go together"),
        ("index: a\ncors: ['*']\n", "needs keys"),
        ("index: a\nlimits: 3\n", r"serve.yaml:2: limits"),
        ("index: a\ncors: [shop.example]\n", r"serve.yaml:2: cors.0: 'shop.example' is no origin"),
        ("index: a\ncors: ['https://shop.example/']\n", "is no origin"),
        ("index: a\ncors: ['https://Shop.example']\n", "is no origin"),
        ("index: a\ncors: ['https://*.shop.example']\n", "is no origin"),
        ("index: a\ncors: ['https://shop.example:443']\n", "is no origin"),
        ("index: a\ncors: ['https://shop.example:65536']\n", "is no origin"),
        ("index: a\ncors: ['https://b\u00fccher.example']\n", "is no origin"),
        ("index: a\ncors: ['https://me@shop.example']\n", "is no origin"),
    ],
)
def test_mistakes_are_told_as_in_every_config(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_settings(path, {})


def test_origins_as_browsers_name_them() -> None:
    named = ("https://xn--bcher-kva.example", "http://localhost:3000", "http://[::1]:8080", "http://127.0.0.1")
    others = ("https://shop.example:80", "chrome-extension://abcdefgh", "capacitor://localhost")
    assert read_settings(None, {"index": "a", "cors": (*named, *others)}).cors == (*named, *others)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"port": 70_000}, "\n  --port: port: should be less than or equal to 65535, not 70000"),
        ({"max_k": 0}, "\n  --max-k: limits.max_k: should be greater than or equal to 1, not 0"),
        ({"threads": 9}, r"\n  .*serve.yaml:2: port: should be"),
    ],
)
def test_mistakes_of_flags_are_told_by_their_names(flags: dict[str, int], said: str, tmp_path: Path) -> None:
    """Once a fault: what stood on the command line was said to stand in a config."""
    path = tmp_path / "serve.yaml"
    path.write_text("index: a\nport: 70001\nlimits:\n" if "threads" in flags else "index: a\nlimits:\n")
    with pytest.raises(ConfigError, match=said):
        read_settings(path, flags)


def test_an_index_must_be_named_and_there(tmp_path: Path, semrec: Semrec) -> None:
    with pytest.raises(UsageError, match="no index is named"):
        read_settings(None, {})
    assert semrec("serve", tmp_path / "none").code == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--set", "index.search.nprobe=4"), 2, "unknown key 'index.search.nprobe'"),
        (("--set", "dataset=x"), 2, "is fixed when the index is built"),
        (("--set", "device.kind=gpu", "--set", "device.gpus=[99]"), 6, "GPU 99 was asked for"),
        pytest.param(("--ray", "auto"), 2, "is not in shards", marks=pytest.mark.ray),
    ],
)
def test_settings_that_the_index_cannot_be_served_with_are_told_before_it_listens(
    flags: tuple[str, ...], code: int, said: str, index: Path
) -> None:
    ended = run_python("-m", "semrec_faiss", "serve", index, "--port", "0", *flags)
    assert ended.returncode == code
    assert ended.stderr.startswith("error: ") and said in ended.stderr


def test_the_texts_to_run_it_by_agree_with_what_the_service_is_told(tmp_path: Path) -> None:
    text = (Path(semrec_faiss.__file__).parent / "serve" / "README.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(yaml|nginx|ini)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    (tmp_path / "serve.yaml").write_text(blocks["yaml"])
    config = read_settings(tmp_path / "serve.yaml", {})
    told = {"index", "host", "keys"}
    assert config.model_dump(exclude=told) == ServeConfig(index=config.index).model_dump(exclude=told)
    assert f"client_max_body_size {config.limits.max_body_mb}m;" in blocks["nginx"]
    patience = [int(found) for found in re.findall(r"(?:TimeoutStopSec=|--stop-timeout )(\d+)", text)]
    assert len(patience) == 2 and min(patience) > config.grace_seconds


def test_the_log_begins_at_the_level_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    names = ("debug", "info", "warning", "error")
    with caplog.at_level("DEBUG", log.name):  # which puts back afterwards what was
        for first, level in enumerate(names):
            caplog.clear()
            set_up_log(ServeConfig(index=Path("a"), log_level=level))
            for name in names:
                getattr(log, name)("said")
            assert [record.levelname.lower() for record in caplog.records] == list(names[first:])


def test_cors_is_for_those_who_are_named(index: Path, new_asker: Any) -> None:
    asker = new_asker(index, cors=("https://shop.example",))
    asker.load()
    for origin, allowed in (("https://shop.example", "https://shop.example"), ("https://other.example", None)):
        reply = asker.post("/v1/similar", {"title": "m00001"}, headers={"origin": origin})
        assert reply.headers.get("access-control-allow-origin") == allowed
