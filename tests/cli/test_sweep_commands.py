"""sweep, pick, tune, report, check-regression, dataset import and export, as they are typed."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import made_records
import pytest
import yaml
from conftest import Semrec

from semrec_faiss.cli.main import cli
from semrec_faiss.cli.measure.live import drawn
from semrec_faiss.cli.measure.sweep import _picture, _say_if_disturbed
from semrec_faiss.cli.process.exit import exit_code_of
from semrec_faiss.config.reading import load_config
from semrec_faiss.measure.sweep.run import State


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Any]) -> Path:
    """A folder with data and a sweep file, and after the first test that asks for them its results."""
    folder = tmp_path_factory.mktemp("sweep")
    data = make_folder(folder / "films", titles=250, dim=16, users=15)
    values = {
        "name": "tiny",
        "dataset": str(data.root),
        "results": str(folder / "results"),
        "queries": {"titles": 15, "users": 10},
        "k": 5,
        "batch": [1, 5],
        "repeats": 2,
        "warmup": 0,
        "grid": [
            {"type": ["flat", "ivf_flat"], "device": "cpu"},
            {"type": "ivf_flat", "device": "cpu", "build": {"nlist": 5}, "search": {"nprobe": [1, 5, 9]}},
        ],
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def swept(place: Path) -> Path:
    """The results of the sweep."""
    results = place / "results" / "tiny"
    if not results.is_dir():
        code = exit_code_of(
            lambda: cli.main(["sweep", str(place / "sweep.yaml")], "semrec", standalone_mode=False), debug=False
        )
        assert code == 0
    return results


def test_dry_run_shows_trials_memory_time_and_what_is_invalid(semrec: Semrec, place: Path, tmp_path: Path) -> None:
    values = yaml.safe_load((place / "sweep.yaml").read_text(encoding="utf-8"))
    sweep = tmp_path / "sweep.yaml"  # whose results no other test has made
    sweep.write_text(yaml.safe_dump(values | {"results": str(tmp_path / "results")}), encoding="utf-8")
    ran = semrec("sweep", sweep, "--dry-run")
    assert ran.code == 0
    assert "nprobe 9 is more than the 5 lists" in ran.out
    assert "nprobe 16 is more than the 6 lists" in ran.out
    assert "6 trials, 6 of them to do; about" in ran.out
    assert ran.out.splitlines()[0].split()[-2:] == ["host", "memory"], "of no trial on a GPU its memory is told"
    assert not (tmp_path / "results").exists()
    document = json.loads(semrec("sweep", sweep, "--dry-run", "--json").out)
    assert [trial["state"] for trial in document["trials"]] == ["to do"] * 6
    flat = document["trials"][0]
    assert flat["predicted_host_peak_bytes"] >= 235 * 16 * 4
    assert flat["predicted_gpu_peak_bytes"] is None
    assert len(document["invalid"]) == 2


@pytest.mark.slow
def test_sweep_prints_the_frontier_and_goes_on_where_it_was(semrec: Semrec, place: Path, swept: Path) -> None:
    ran = semrec("sweep", place / "sweep.yaml")
    assert ran.code == 0
    assert "films, k 5, batch 1, the frontier:" in ran.out
    assert "6 trials: 0 done now, 6 in all" in ran.out
    assert "now try: semrec pick" in ran.err
    document = json.loads(semrec("sweep", place / "sweep.yaml", "--json").out)
    assert [record["status"] for record in document["trials"]] == ["measured"] * 6
    assert "measured" in semrec("sweep", place / "sweep.yaml", "--dry-run").out


@pytest.mark.slow
def test_options_take_the_place_of_the_files_keys(semrec: Semrec, place: Path, make_folder: Any) -> None:
    other = make_folder(place / "others", titles=120, dim=16, users=12, seed=9).root
    options = ["--dataset", other, "--name", "odd", "--results", place / "elsewhere", "--slice", "genres"]
    settings = ["--set", "batch=3", "--set", "grid=[{type: flat, device: cpu}]"]
    ran = semrec("sweep", place / "sweep.yaml", *options, *settings, "--json")
    assert ran.code == 0, ran.err
    (record,) = json.loads(ran.out)["trials"]
    assert (record["data"]["name"], record["batch"], record["slice"]) == ("others", 3, "genres")
    assert (place / "elsewhere" / "odd" / "trials.jsonl").is_file()


@pytest.mark.parametrize(("count", "told"), [(1, "during one trial,"), (2, "during 2 trials,")])
def test_trials_that_other_programs_disturbed_are_counted(
    count: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = made_records.measured("flat", 1.0, 1.0).model_copy(update={"others_used_cores": 1.84})
    _say_if_disturbed([record] * count)
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_a_winner_that_other_programs_disturbed_is_told_as_such(semrec: Semrec, swept: Path, tmp_path: Path) -> None:
    for cores, note in (
        (0.0, ""),
        (1.84, "note: other programs kept 1.8 cores busy during the winner's trial, whose times are longer for it"),
    ):
        busy = tmp_path / f"busy-{cores}"
        shutil.copytree(swept, busy)
        lines = [json.loads(line) for line in (swept / "trials.jsonl").read_text(encoding="utf-8").splitlines()]
        changed = [
            line
            | {
                "others_used_cores": cores,
                "not_measured": {
                    name: why for name, why in line["not_measured"].items() if name != "others_used_cores"
                },
            }
            for line in lines
        ]
        (busy / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed), encoding="utf-8")
        ran = semrec("pick", busy)
        assert ran.code == 0, ran.err
        assert ran.err.startswith(note)
        assert ("other programs" in ran.err) is bool(note)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["sweep", "nope.yaml"], 4, "config file nope.yaml does not exist"),
        (["sweep", "{place}/sweep.yaml", "--set", "repeats=one"], 2, "--set: repeats: should be a valid integer"),
        (["sweep", "{place}/sweep.yaml", "--name", "../up"], 2, "name: '../up' cannot be the name of a folder"),
        (["sweep", "{place}/sweep.yaml", "--dataset", "nope"], 4, "there is no data folder nope"),
        (["sweep", "{place}/sweep.yaml", "--set", "queries.users=99"], 2, "has vectors of 15 users"),
        (["sweep", "{place}/sweep.yaml", "--name", "bad", "--slice", "colour"], 2, "no field 'colour'"),
        (["pick", "nope"], 4, "nope holds no sweep"),
        (["pick", "{place}/results/tiny", "--batch", "7"], 2, "--batch 1 or 5"),
        (["report", "nope"], 4, "nope holds no sweep"),
        (["report"], 2, "give the results of one sweep, or --compare A B"),
        (["report", "{place}/results/tiny", "--compare", "a", "b"], 2, "give the results of one sweep"),
        (["check-regression", "nope", "{place}/results/tiny"], 4, "nope holds no sweep"),
        (["check-regression", "{place}/results/tiny", "{place}/results/tiny", "--tolerance", "ten"], 2, "'ten' is no"),
        (["tune", "configs/flat.yaml", "--recall", "0.9"], 2, "flat has no search setting to tune"),
        (["tune", "configs/hnsw.yaml", "--recall", "0.9", "--titles", "0"], 2, "at least one title or user"),
        (["tune", "configs/hnsw.yaml", "--recall", "0.9", "--titles", "9999"], 2, "at most half can be asked"),
        (["tune", "configs/hnsw.yaml", "--recall", "0"], 2, "--recall"),
        (["tune", "configs/hnsw.yaml", "--recall", "0.5", "--batch", "2147483648"], 2, "--batch"),
        (["dataset", "import", "nope.hdf5", "out"], 4, "there is no file nope.hdf5"),
        (["dataset", "export", "nope", "out"], 4, "there is no data folder nope"),
    ],
)
def test_mistakes_end_with_their_exit_code_and_a_message(
    semrec: Semrec,
    repo: Path,
    place: Path,
    swept: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(repo)
    ran = semrec(*(argument.format(place=place) for argument in arguments))
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_pick_writes_a_config_that_build_takes(semrec: Semrec, swept: Path, tmp_path: Path) -> None:
    ran = semrec("pick", swept, "--recall", "0.95", "--out", tmp_path / "pick.yaml")
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "films, k 5, batch 1, by qps:"
    assert "winner" in ran.out
    config = load_config(tmp_path / "pick.yaml", [f"output={tmp_path / 'index'}"])
    assert config.dataset.folder is not None
    built = semrec("build", tmp_path / "pick.yaml", "--output", tmp_path / "index")
    assert built.code == 0, built.err
    document = json.loads(semrec("pick", swept, "--recall", "0.95", "--out", tmp_path / "pick.yaml", "--json").out)
    assert document["winner"]["recall"] >= 0.95
    assert {loser["why"].split()[0] for loser in document["losers"]} <= {"recall", "meets"}


@pytest.mark.parametrize(
    "command", [["pick", "{swept}"], ["tune", "configs/hnsw.yaml", "--recall", "0.5"], ["evaluate", "no-index"]]
)
@pytest.mark.parametrize("out", [".", "{place}", "{file}/x.yaml"])
def test_out_that_no_file_can_be_is_refused_first(
    semrec: Semrec,
    repo: Path,
    swept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    out: str,
) -> None:
    monkeypatch.chdir(repo)
    (tmp_path / "file").touch()
    words = [word.format(swept=swept, place=tmp_path, file=tmp_path / "file") for word in (*command, "--out", out)]
    ran = semrec(*words)
    assert (ran.code, ran.out) == (2, "")
    assert "is a directory; --out is the file to write" in ran.err or "file is a file" in ran.err


def test_pick_tells_that_trials_have_no_record(semrec: Semrec, swept: Path, tmp_path: Path) -> None:
    shutil.copytree(swept, tmp_path / "less", ignore=shutil.ignore_patterns(".cache"))
    ledger = tmp_path / "less" / "trials.jsonl"
    before = semrec("pick", tmp_path / "less", "--recall", "0.5")
    assert "have no record" not in before.err
    kept = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(kept[1:]))
    assert f"1 of {len(kept)} trials have no record" in semrec("pick", tmp_path / "less", "--recall", "0.5").err


def test_a_key_that_stands_twice_in_a_record_is_refused(semrec: Semrec, swept: Path, tmp_path: Path) -> None:
    shutil.copytree(swept, tmp_path / "twice", ignore=shutil.ignore_patterns(".cache"))
    ledger = tmp_path / "twice" / "trials.jsonl"
    ledger.write_text(ledger.read_text().replace('"status":', '"status":"failed","status":', 1))
    ran = semrec("pick", tmp_path / "twice", "--recall", "0.5")
    assert ran.code == 3
    assert "trials.jsonl:1" in ran.err


def test_pick_without_a_winner_ends_with_4_and_writes_nothing(semrec: Semrec, swept: Path, tmp_path: Path) -> None:
    ran = semrec("pick", swept, "--recall", "0.95", "--p95-ms", "0", "--out", tmp_path / "pick.yaml")
    assert ran.code == 4
    assert "nothing that was measured meets this; nearest:" in ran.out
    assert "with --p95-ms " in ran.out
    assert not (tmp_path / "pick.yaml").exists()


@pytest.mark.slow
def test_report_writes_page_pictures_and_table(semrec: Semrec, swept: Path, tmp_path: Path) -> None:
    ran = semrec("report", swept, "--out", tmp_path)
    assert ran.code == 0
    assert [Path(line).name for line in ran.out.splitlines()] == [
        "report.html",
        "summary.csv",
        "latency-films.png",
        "throughput-films.png",
    ]
    compared = semrec("report", "--compare", swept, swept, "--out", tmp_path, "--json")
    assert json.loads(compared.out) == {"written": [str(tmp_path / "compare.html")]}


def test_check_regression_ends_with_1_when_something_got_worse(semrec: Semrec, swept: Path, tmp_path: Path) -> None:
    same = semrec("check-regression", swept, swept)
    assert (same.code, same.out) == (0, "6 trials compared, 0 numbers worse by over 10%\n")
    shutil.copytree(swept, tmp_path / "slower", ignore=shutil.ignore_patterns(".cache"))
    ledger = tmp_path / "slower" / "trials.jsonl"
    records = [json.loads(line) for line in ledger.read_text().splitlines()]
    slow, fewer = records[0]["latency"], records[1]["quality"]
    slow |= {name: slow[name] * 1.5 for name in ("mean_ms", "p50_ms", "p95_ms", "p99_ms")}
    slow |= {"qps": slow["qps"] / 1.5, "times_ms": [1.5 * time for time in slow["times_ms"]]}
    fewer |= {name: fewer[name] - 0.1 for name in ("recall", "recall_titles", "recall_users")}
    ledger.write_text("".join(json.dumps(record) + "\n" for record in records))
    worse = semrec("check-regression", swept, tmp_path / "slower")
    assert worse.code == 1
    assert "6 trials compared, 2 numbers worse by over 10%" in worse.out
    assert "p50_ms" in worse.out
    document = json.loads(semrec("check-regression", swept, tmp_path / "slower", "--tolerance", "60%", "--json").out)
    assert [change["number"] for change in document["regressions"]] == ["recall"]


def test_tune_finds_a_setting_and_writes_it(
    semrec: Semrec, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "ivf.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "dataset": str(place / "films"),
                "output": "x",
                "device": "cpu",
                "index": {"type": "ivf_flat", "build": {"nlist": 5}},
            }
        )
    )
    ran = semrec("tune", config, "--recall", "0.9", "--titles", "30", "-k", "5", "--out", tmp_path / "tuned.yaml")
    assert ran.code == 0, ran.err
    assert "is the least that finds 0.9" in ran.out
    nprobe = load_config(tmp_path / "tuned.yaml").index.search.nprobe
    assert f"index.search.nprobe={nprobe} is the least" in ran.out
    again = semrec(
        "tune", tmp_path / "tuned.yaml", "--recall", "0.9", "--titles", "30", "--out", tmp_path / "tuned.yaml"
    )
    assert again.code == 0, again.err
    slow = semrec("tune", config, "--recall", "0.9", "--titles", "30", "--p95-ms", "0", "--json")
    assert slow.code == 4
    assert json.loads(slow.out)["fits"] is False
    monkeypatch.setattr("semrec_faiss.measure.choose.as_config.new_file", _on_a_full_disk)
    full = semrec("tune", config, "--recall", "0.9", "--titles", "30", "--out", tmp_path / "b.yaml", "--json")
    assert (full.code, json.loads(full.out)["exit_code"]) == (8, 8)  # once a fault: its result was printed before


def test_files_of_other_content_are_not_replaced(semrec: Semrec, place: Path, swept: Path, tmp_path: Path) -> None:
    """Once a fault: a config with its owner's remarks, say, or whatever --out named by mistake, was gone."""
    config = tmp_path / "mine.yaml"
    config.write_text("# thought about for long\nindex: {type: hnsw}\n", encoding="utf-8")
    films = place / "films"
    for command, content in (
        (("tune", config, "--dataset", films, "--recall", "0.5", "--out"), "a config by semrec tune or semrec pick"),
        (("pick", swept, "--recall", "0.95", "--out"), "a config by semrec tune or semrec pick"),
        (("evaluate", tmp_path / "index", "--out"), "a JSON object"),
    ):
        ran = semrec(*command, config)
        assert (ran.code, ran.out) == (2, "")
        told = f"error: {config} holds something else than {content}\n  fix: name another --out, or remove it\n"
        assert ran.err == told
    for name, content in (("mine.parquet", "Parquet"), ("mine.arrow", "Arrow IPC")):
        config.rename(config := tmp_path / name)
        assert f"{name} holds something else than {content}\n" in semrec("dataset", "export", films, config).err
    assert config.read_text(encoding="utf-8").startswith("# thought")


def _on_a_full_disk(path: Path) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_export_and_import(semrec: Semrec, place: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    ran = semrec("dataset", "export", place / "films", tmp_path / "a.hdf5", "-k", "5")
    assert ran.code == 0
    assert "250 titles of 16 dimensions, 15 users to ask, 5 neighbours each" in ran.out
    back = semrec("dataset", "import", tmp_path / "a.hdf5", tmp_path / "back", "--json")
    assert json.loads(back.out)["agreement"] == 1.0
    again = semrec("dataset", "import", tmp_path / "a.hdf5", tmp_path / "back")
    assert again.code == 2
    assert "--overwrite" in again.err


def test_progress_tells_the_trial_the_frontier_and_the_time_left() -> None:
    from rich.console import Console

    record = made_records.measured("flat on cpu", 1.0, 0.25)
    state = State(40, 3, "films: ivf_flat nprobe=2", ("training", 1, 2), [record], 125.0)
    console = Console(width=100, file=io.StringIO())
    console.print(drawn(state, _picture(state)))
    text = console.file.getvalue()
    assert "trial 4 of 40, about 2 min left" in text
    assert "films: ivf_flat nprobe=2 · training 1/2" in text
    assert "flat on cpu" in text
    assert "0.250" in text
