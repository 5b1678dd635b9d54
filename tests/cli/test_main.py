"""The command as a whole: help without heavy imports, exit codes, errors without a traceback."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import click
import pytest
from conftest import HANG_SECONDS, Semrec, run_python

from semrec_faiss.cli.main import COMMANDS, LazyGroup, cli
from semrec_faiss.cli.process.exit import exit_code_of

ROOT = Path(__file__).resolve().parents[2]


def semrec(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "semrec_faiss", *arguments, cwd=cwd)


def all_commands() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        if isinstance(command, click.Group):
            found += [(f"{name} {inner}", command.commands[inner]) for inner in command.commands]
        else:
            found.append((name, command))
    return found


def test_help_and_import_load_nothing_heavy() -> None:
    code = (
        "import sys, semrec_faiss, semrec_faiss.cli.main as m\n"
        "try: m.cli.main(['--help'], standalone_mode=True)\n"
        "except SystemExit: pass\n"
        "heavy = {'faiss', 'torch', 'duckdb', 'numpy', 'pydantic', 'rich', 'pandas'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))"
    )
    result = run_python("-c", code)
    assert result.stdout.splitlines()[-1] == "HEAVY []"
    assert "similar" in result.stdout


def test_what_answers_a_question_loads_no_tables() -> None:
    """Each takes a tenth of a command's time or more."""
    code = (
        "import sys, semrec_faiss.search.recommender\n"
        "print(sorted({'torch', 'duckdb', 'pyarrow', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    result = run_python("-c", code)
    assert result.stdout == "[]\n"


def test_help_lists_every_command() -> None:
    result = semrec("--help")
    assert result.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("group", ["dataset", "bench", "serve"])
def test_the_help_of_a_group_tells_whole_sentences(group: str) -> None:
    command = cli.get_command(click.Context(cli), group)
    assert isinstance(command, click.Group)
    told = " ".join(command.get_help(click.Context(command)).split())
    for name, inner in command.commands.items():
        assert f" {name} {inner.get_short_help_str(10_000)}" in told


@pytest.mark.parametrize(("name", "command"), all_commands())
def test_help_says_nothing_of_limits_that_there_are_not(name: str, command: click.Command) -> None:
    assert "None" not in command.get_help(click.Context(command)), name


@pytest.mark.parametrize(("name", "command"), all_commands())
def test_an_empty_path_is_refused(name: str, command: click.Command) -> None:
    """A variable of the shell that is not set leaves one: it is not the present folder."""
    paths = [param for param in command.params if isinstance(param.type, click.Path)]
    for param in paths:
        with pytest.raises(click.BadParameter, match=r"the path is empty; write \. for the present folder"):
            param.type.convert("", param, None)


@pytest.mark.parametrize(("name", "command"), all_commands())
def test_every_command_has_help_with_an_example(name: str, command: click.Command) -> None:
    assert command.help
    assert command.epilog
    assert command.epilog.startswith(f"Example: semrec {name}")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name} has no help"


def test_one_line_help_says_what_the_command_says() -> None:
    for name, (_, _, text) in COMMANDS.items():
        assert text.endswith("."), name
        assert len(text) <= 80, name


def test_unknown_command_is_exit_code_2_with_the_nearest() -> None:
    result = semrec("similiar")
    assert result.returncode == 2
    assert "No such command 'similiar'" in result.stderr
    assert "similar" in result.stderr.replace("'similiar'", "")
    assert result.stdout == ""


def test_version() -> None:
    from semrec_faiss import __version__

    result = semrec("--version")
    assert (result.returncode, result.stdout) == (0, f"semrec, version {__version__}\n")


def test_missing_index_is_exit_code_4_without_a_traceback(tmp_path: Path) -> None:
    result = semrec("similar", str(tmp_path / "none"), "Toy Story")
    assert result.returncode == 4
    assert "does not exist" in result.stderr
    assert "fix: semrec build" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", [["serve"], ["bench", "serve"]])
def test_an_extra_that_is_not_installed_is_told_with_its_line(tmp_path: Path, command: list[str]) -> None:
    """Once a fault of `bench serve`: it was told as a mistake in semrec."""
    code = "import sys; sys.modules['msgspec'] = None; import runpy;"
    code += " runpy.run_module('semrec_faiss', run_name='__main__')"
    done = run_python("-c", code, *command, str(tmp_path))
    assert done.returncode == 7, done.stderr
    assert done.stderr == "error: msgspec is not installed\n  fix: pip install 'semrec-faiss[serve]'\n"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["front", "back"])
def test_debug_shows_the_traceback(tmp_path: Path, place: str) -> None:
    arguments = ["similar", str(tmp_path / "none"), "Toy Story"]
    result = semrec(*(["--debug", *arguments] if place == "front" else [*arguments, "--debug"]))
    assert result.returncode == 4
    assert "Traceback" in result.stderr


def test_an_error_of_ours_is_exit_code_1_and_asks_for_a_report(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise ZeroDivisionError("division by zero")

    assert exit_code_of(broken, debug=False) == 1
    capfd.readouterr()
    assert exit_code_of(broken, debug=False, as_json=True) == 1
    document = json.loads(capfd.readouterr().out)
    assert (document["exit_code"], document["detail"]) == (1, "ZeroDivisionError: division by zero")
    assert document["fix"].startswith("this is a mistake in semrec")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (MemoryError("Unable to allocate 3.00 TiB"), 6, "out of memory: Unable to allocate 3.00 TiB"),
        (MemoryError(), 6, "out of memory: this machine's memory does not suffice"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), 2, "bytes that are no UTF-8"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 300), 2, "is too long for a name"),
        (OSError(errno.ENOSPC, "No space left on device"), 8, "would not take what was to be written: No space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/a/file"), 8, "would not take /a/file: Disk quota exceeded"),
    ],
)
def test_what_a_person_can_mend_asks_for_no_report(
    capfd: pytest.CaptureFixture[str], error: Exception, code: int, told: str
) -> None:
    def broken() -> None:
        raise error

    assert exit_code_of(broken, debug=False) == code
    heard = capfd.readouterr().err
    assert told in heard
    assert "a mistake in semrec" not in heard


def test_ctrl_c_while_semrec_still_imports_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    ended = subprocess.run(
        [sys.executable, "-m", "semrec_faiss", "--help"], env=environment, capture_output=True, encoding="utf-8"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "\ninterrupted\n")


def test_lazy_group_imports_a_command_only_when_asked() -> None:
    assert isinstance(cli, LazyGroup)
    assert cli.list_commands(click.Context(cli)) == list(COMMANDS)
    assert cli.get_command(click.Context(cli), "nothing") is None


@pytest.mark.slow
def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    command = f"{sys.executable} -m semrec_faiss doctor --json | head -c 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8")
    assert result.stdout == "{"
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


@pytest.mark.parametrize("ending", ["> /dev/full", "| true; exit ${PIPESTATUS[0]}"])
def test_an_error_of_json_that_nobody_can_read_is_told_on_stderr(tmp_path: Path, ending: str) -> None:
    """Once a traceback, and the exit code of success."""
    command = f"{sys.executable} -m semrec_faiss info {tmp_path}/none --json {ending}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8")
    assert result.returncode == 4
    first, fix = result.stderr.splitlines()
    assert first == f"error: index {tmp_path}/none does not exist"
    assert fix.startswith("  fix: semrec build")


def test_bytes_that_are_no_text_are_told_with_question_marks() -> None:
    """Once a crash of Python's own, while it printed a traceback."""
    code = (
        "from semrec_faiss.cli.process.exit import exit_code_of\n"
        "from semrec_faiss.errors import NotFoundError\n"
        "def work(): raise NotFoundError('caf\\udce9 is not there')\n"
        "raise SystemExit(exit_code_of(work, debug=False, as_json=True))"
    )
    result = run_python("-c", code)
    assert result.returncode == 4
    assert json.loads(result.stdout)["detail"] == "caf? is not there"


@pytest.mark.slow
def test_a_row_of_a_table_that_is_piped_is_a_line() -> None:
    """What reads it takes lines, and COLUMNS, which shells may export, is of their terminal."""
    checks = json.loads(semrec("doctor", "--json").stdout)["checks"]
    told = run_python("-m", "semrec_faiss", "doctor", COLUMNS="40").stdout.splitlines()
    assert [line.split()[1] for line in told] == [check["name"].split()[0] for check in checks]
    for line, check in zip(told, checks, strict=True):
        if check["name"] != "memory":  # of which a little more is taken meanwhile
            assert " ".join(check["found"].split()) in " ".join(line.split())
    code = (
        "from semrec_faiss.cli.printing import print_table\n"
        "print_table(['what', 'n'], [['ab ' * 200 + 'end', '1'], ['two\\nlines', '22']], right=(1,))"
    )
    rows = run_python("-c", code, COLUMNS="40").stdout.splitlines()
    assert [row.split()[-1] for row in rows] == ["n", "1", "22"]
    assert len(rows[1]) == len(rows[2]) == 607
    assert rows[2].split() == ["two", "lines", "22"]


@pytest.mark.parametrize("command", ["--help", "doctor", "dataset synth --help"])
def test_a_closed_output_is_no_error(command: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m semrec_faiss {command} >&-"], capture_output=True, encoding="utf-8"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_error_output_keeps_the_exit_code(tmp_path: Path) -> None:
    command = f"{sys.executable} -m semrec_faiss info {tmp_path / 'none'} 2>&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout) == (4, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize(
    ("told", "code"),
    [("info none", 4), ("info none --json", 4), ("info", 2), ("indeed", 2), ("info none >/dev/full", 4)],
)
def test_a_full_error_output_keeps_the_exit_code(tmp_path: Path, told: str, code: int) -> None:
    """Once a fault: it ended with 1 and without a word; `semrec serve` whose log's disk was full did not start."""
    command = f"{sys.executable} -m semrec_faiss {told} 2>/dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8", cwd=tmp_path)
    assert done.returncode == code
    assert "--json" not in told or json.loads(done.stdout)["exit_code"] == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_notes_that_nobody_takes_stop_no_work() -> None:
    program = """
        import sys, warnings
        from semrec_faiss.cli import main, start
        main.cli.invoke = lambda _: [warnings.warn("a note", RuntimeWarning), print("a result")]
        sys.argv[1:] = ["info"]
        start.run()
    """
    command = ["bash", "-c", f"{sys.executable} -c '{textwrap.dedent(program)}' 2>/dev/full"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout) == (0, "a result\n")


def test_a_command_leaves_no_handlers_in_the_process_that_ran_it() -> None:
    """Once a fault: whoever ran commands in a process of his own could not end it by SIGTERM as before."""

    def handlers() -> tuple[object, ...]:
        return signal.getsignal(signal.SIGTERM), warnings.showwarning, signal.getsignal(signal.SIGINT)

    during: list[object] = []
    before = handlers()
    assert exit_code_of(lambda: during.extend(handlers()), debug=False) == 0
    assert handlers() == before
    assert during[1] != before[1]
    assert during[0] != before[0] or before[0] != signal.SIG_DFL
    assert during[2] != before[2]


def test_a_file_that_ends_too_early_is_no_interruption(capfd: pytest.CaptureFixture[str]) -> None:
    """Click takes EOFError, as of compiled code that was cut short, for Ctrl-D; once it was told as `interrupted`."""

    @click.command()
    def early() -> None:
        raise EOFError("marshal data too short")

    assert exit_code_of(lambda: early.main([], standalone_mode=False), debug=False) == 1
    told = capfd.readouterr().err
    assert "error: EOFError: marshal data too short" in told
    assert "interrupted" not in told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_until_a_library_is_loaded(number: signal.Signals, code: int) -> None:
    """Once a fault: DuckDB, interrupted while it was loaded, aborted, or was told as a mistake in semrec."""
    program = f"""
        import enum, signal, sys
        from semrec_faiss.cli.process.exit import exit_code_of
        keep = enum.EnumType.__setattr__
        def interrupted(cls, name, value):
            caller = sys._getframe(1)
            if caller.f_code.co_name == "_call_with_frames_removed":  # C++ that loads a library makes an enum
                print("while loading", file=sys.stderr)
                enum.EnumType.__setattr__ = keep
                signal.raise_signal({int(number)})
            keep(cls, name, value)
        def work():
            enum.EnumType.__setattr__ = interrupted
            import duckdb
            assert enum.EnumType.__setattr__ is keep
            while True:
                pass
        sys.exit(exit_code_of(work, debug=False))
    """
    done = run_python("-c", textwrap.dedent(program), seconds=HANG_SECONDS)
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert (done.returncode, done.stderr) == (code, f"while loading\n\n{word}\n")


def test_a_pipe_that_is_closed_early_is_no_failure() -> None:
    """Once a fault: ``semrec … | head -1`` ended with 1, which click does by itself."""
    program = "import click; from semrec_faiss.cli import main; main.cli.get_command = lambda *_: click.Command(" + (
        "'info', callback=lambda: [click.echo('line ' * 20) for _ in range(20_000)]); main.run()"
    )
    shell = f'{sys.executable} -c "{program}" info | head -1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, encoding="utf-8", timeout=HANG_SECONDS)
    assert done.stdout.splitlines() == ["line " * 20, "0"], done.stderr
    assert done.stderr == ""


# Once a fault: click repeats values whole, of which a line kept a thousand characters.
@pytest.mark.parametrize(
    "words",
    [
        ["{}"],
        ["similar", "index", "title", "--{}"],
        ["similar", "index", "title", "--{}=3"],
        ["similar", "index", "title", "{}"],
        ["bench", "search", "--type", "{}"],
        ["bench", "search", "--type={}"],
        ["build", "--dataset", "s3://{}"],
        ["evaluate", "index", "--by", "{}"],
    ],
)
def test_long_values_are_told_by_their_beginning(semrec: Semrec, words: list[str]) -> None:
    for value in ("x" * 400, "it's " * 400):
        ended = semrec(*(word.format(value) for word in words), "--json")
        assert (ended.code, len(ended.err) < 600) == (2, True), ended.err
        assert value[:40] in ended.err and "…' (" in ended.err.replace('…" (', "…' (") and " characters)" in ended.err
        assert len(json.loads(ended.out)["detail"]) < 300
