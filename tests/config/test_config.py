"""The config file: every mistake told at once and in its place, and nothing but our own errors whatever it holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from semrec_faiss.config.index_types import FactoryIndex, FlatIndex, IvfPqIndex
from semrec_faiss.config.profile import Profile
from semrec_faiss.config.reading import config_from_dict, load_config
from semrec_faiss.config.schema import Config, known_keys
from semrec_faiss.config.yaml_source import YamlSource
from semrec_faiss.errors import ConfigError, NotFoundError, SemrecError, UsageError

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a config file and return its path."""

    def to_file(text: str | bytes) -> Path:
        path = tmp_path / "some.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return to_file


def mistakes_of(path: Path, *overrides: str) -> list[str]:
    """The lines of the error that ``path`` gives, without the first, which counts them."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    head, *lines = str(caught.value).splitlines()
    assert int(re.match(r"(\d+) mistake", head)[1]) == len(lines)
    assert str(path) in head
    return [line.strip() for line in lines]


# --- what is read ---------------------------------------------------------------------------------------------------


def test_defaults_are_a_flat_index_that_normalises_on_whatever_device_there_is() -> None:
    config = config_from_dict({})
    assert isinstance(config.index, FlatIndex)
    assert config.index.normalize is True
    assert config.index.metric == "inner_product"
    assert (config.device.kind, config.device.gpus, config.device.float16) == ("auto", (0,), False)
    assert config.device.temp_memory_mb is None
    assert (config.dataset.folder, config.output) == (None, None)


def test_every_key_is_read(write: Write) -> None:
    path = write(
        "dataset: some/where\n"
        "index:\n"
        "  type: ivf_pq\n"
        "  metric: inner_product\n"
        "  normalize: false\n"
        "  build: {nlist: 7, seed: 3, M: 16, nbits: 6}\n"
        "  search: {nprobe: 5, refine: null}\n"
        "device: {kind: cpu, gpus: [1, 0], float16: false, temp_memory_mb: 64}\n"
        "output: out\n"
    )
    config = load_config(path)
    assert isinstance(config.index, IvfPqIndex)
    assert config.index.build.model_dump() == {"nlist": 7, "seed": 3, "M": 16, "nbits": 6}
    assert config.index.search.model_dump() == {"nprobe": 5, "refine": None}
    assert config.index.normalize is False
    assert config.device.gpus == (1, 0)
    assert config.device.temp_memory_mb == 64
    assert (config.dataset.folder, config.output) == (Path("some/where"), Path("out"))


@pytest.mark.parametrize(
    ("index", "kind"),
    [
        ({"type": "flat"}, "flat"),
        ({"type": "ivf_flat"}, "ivf_flat"),
        ({"type": "ivf_sq", "build": {"storage": "8bit"}}, "ivf_sq"),
        ({"type": "ivf_pq"}, "ivf_pq"),
        ({"type": "hnsw"}, "hnsw"),
        ({"factory": "IVF256,SQ8"}, "factory"),
    ],
)
def test_a_config_survives_being_written_and_read_again(index: dict[str, Any], kind: str) -> None:
    config = config_from_dict({"index": index, "dataset": "a/b", "output": "c"})
    assert config.index.type == kind
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert config_from_dict(config.model_dump(mode="json")) == config
    assert config_from_dict(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(write: Write) -> None:
    assert load_config(write(b"\xef\xbb\xbfindex:\r\n  type: hnsw\r\n")).index.type == "hnsw"


def test_configs_are_frozen_all_the_way_down() -> None:
    config = config_from_dict({"index": {"type": "ivf_flat"}})
    holders: list[tuple[Any, str]] = [
        (config, "output"),
        (config.index, "normalize"),
        (config.index.search, "nprobe"),
        (config.index.build, "nlist"),
        (config.device, "gpus"),
    ]
    for holder, name in holders:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(holder, name, getattr(holder, name))
    assert isinstance(config.device.gpus, tuple)


def test_the_shipped_configs_load_and_are_of_the_type_that_their_name_says(repo: Path) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((repo / "configs").glob("*.yaml"))}
    shipped = [path for path, text in texts.items() if "\nindex:" in text]  # others are of sweeps, comparisons, prices
    assert [path.stem for path in shipped] == ["flat", "fused", "hnsw", "ivf_flat", "ivf_pq", "ivf_sq", "learned"]
    for path in shipped:
        assert load_config(path).index.type == path.stem.replace("learned", "flat")


def test_known_keys_are_those_that_a_file_may_hold() -> None:
    keys = known_keys()
    assert {"dataset", "output", "index.type", "index.factory", "index.search.nprobe", "device.gpus"} <= set(keys)
    assert keys == sorted(set(keys))
    for key in keys:
        try:
            config_from_dict({}, [f"{key}=null"])
        except ConfigError as error:
            assert f"unknown key {key!r}" not in str(error) or key.startswith("index."), key


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_all_mistakes_are_told_at_once_each_with_file_and_line(write: Write) -> None:
    path = write(
        "datset: data/demo\n"
        "index:\n"
        "  type: ivf_pq\n"
        "  build:\n"
        "    nlist: many\n"
        "    nbits: 99\n"
        "  search:\n"
        "    nprob: 3\n"
        "    refine: 0\n"
        "device:\n"
        "  kind: tpu\n"
        "  gpus: [0, 0]\n"
        "ouptut: x\n"
    )
    found = {}
    for line in mistakes_of(path):
        place, _, text = line.partition(": ")
        assert place.startswith(f"{path}:"), line
        found[int(place.rpartition(":")[2])] = text
    assert sorted(found) == [1, 5, 6, 8, 9, 11, 12, 13]
    assert "'datset'" in found[1] and "did you mean 'dataset'?" in found[1]
    assert "index.build.nlist" in found[5] and "'many'" in found[5] and "auto" in found[5]
    assert "index.build.nbits" in found[6] and "12" in found[6] and "99" in found[6]
    assert "'index.search.nprob'" in found[8] and "did you mean 'nprobe'?" in found[8]
    assert "index.search.refine" in found[9] and "0" in found[9]
    assert "device.kind" in found[11] and "'tpu'" in found[11]
    assert "device.gpus" in found[12] and "twice" in found[12]
    assert "'ouptut'" in found[13] and "did you mean 'output'?" in found[13]


@pytest.mark.parametrize(
    ("text", "line", "offer"),
    [
        ("index:\n  type: ivf_fla\n", 2, "did you mean 'ivf_flat'?"),
        ("index:\n  type: HNSW\n", 2, "known: flat, ivf_flat, ivf_sq, ivf_pq, hnsw"),
        ("index:\n  typ: flat\n", 2, "did you mean 'type'?"),
        ("index:\n  type: ivf_sq\n  build:\n    storge: fp16\n", 4, "did you mean 'storage'?"),
        ("index:\n  type: hnsw\n  search: {efsearch: 3}\n", 3, "did you mean 'efSearch'?"),
        ("index:\n  type: flat\n  search: {nprobe: 3}\n", 3, "unknown key 'index.search.nprobe'"),
        ("index: {factory: ''}\n", 1, "index.factory: should have at least 1 character, not ''"),
        ("index: {factory: 'Flat', build: {nlist: 3}}\n", 1, "unknown key 'index.build'"),
        ("device:\n\n  # a comment\n  float61: true\n", 4, "did you mean 'float16'?"),
        ("profile: {interest: 3}\n", 1, "did you mean 'interests'? known here: half_life, "),
        ("dataset: x\nzzzz: 1\n", 2, "known here: dataset, device, index, output"),
        ("dataset: x\ndevice.kind: cpu\n", 2, "'device.kind'; a file nests keys: `device: {kind: …}`; known here: "),
        ("index: {type: hnsw, build.M: 8}\n", 1, "'index.build.M'; a file nests keys: `build: {M: …}`; "),
        ("index: {type: hnsw, index.build.M: 8}\n", 1, "a file nests keys: `build: {M: …}`; "),
        ("dataset: x\n.: 1\n", 2, "unknown key '.'; known here: "),
    ],
)
def test_an_unknown_key_or_type_is_refused_with_the_nearest_known(
    write: Write, text: str, line: int, offer: str
) -> None:
    path = write(text)
    (mistake,) = mistakes_of(path)
    assert mistake.startswith(f"{path}:{line}: ")
    assert offer in mistake


@pytest.mark.parametrize(
    "value", ["Auto", "-1", "0", "1.0", "1.5", "'7'", "true", "null", "[1]", "{a: 1}", ".nan", "2001-01-01"]
)
def test_a_wrong_number_is_one_mistake_in_one_place(write: Write, value: str) -> None:
    path = write(f"index:\n  type: ivf_flat\n  build:\n    nlist: {value}\n")
    (mistake,) = mistakes_of(path)
    assert mistake.startswith(f"{path}:4: index.build.nlist: ")


def test_each_wrong_gpu_is_told_and_nothing_that_is_right(write: Write) -> None:
    # Once a fault: "Tuple should have at least 1 item" is told too, of a list that has four.
    found = mistakes_of(write("device:\n  gpus:\n    - a\n    - -1\n    - 3\n    - true\n"))
    assert [re.search(r":(\d+): ", line)[1] for line in found] == ["3", "4", "6"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("device:\n  gpus: 1\n", "device.gpus: should be a list, such as [0, 1], not 1"),
        ("device:\n  gpus: []\n", "device.gpus: should hold at least 1, not []"),
        ("device: 3.5\n", "device: should be a mapping of keys to values, not 3.5"),
        ("index:\n  type: flat\n  build: 3\n", "index.build: should be a mapping of keys to values, not 3"),
        (
            "index:\n  type: flat\n  build:\n    directions: -1\n",
            f"index.build.directions: should be a whole number from 0 to {2**31 - 1}, or auto, not -1",
        ),
    ],
)
def test_what_should_stand_there_is_said_in_words_of_yaml(write: Write, text: str, said: str) -> None:
    """Once a fault: a "valid tuple", an "instance of ExactBuild", and "from 1" of directions, which 0 turns off."""
    (mistake,) = mistakes_of(write(text))
    assert mistake.partition(": ")[2] == said


def test_a_type_given_as_the_whole_section_is_accepted_or_explained(write: Write) -> None:
    # Once a fault: "unknown index type 'flat'; did you mean 'flat'?"
    try:
        assert load_config(write("index: hnsw\n")).index.type == "hnsw"
    except ConfigError as error:
        assert "did you mean 'hnsw'?" not in str(error)
        assert "type" in str(error)


def test_types_are_told_in_the_words_of_a_config(write: Write) -> None:
    path = write("output: 5\ndevice: {gpus: 0}\n")
    assert mistakes_of(path) == [
        f"{path}:2: device.gpus: should be a list, such as [0, 1], not 0",
        f"{path}:1: output: should be a path, not 5",
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "5", "- 1\n- 2\n", "just words", "null"])
def test_a_file_that_is_no_mapping_is_refused(write: Write, text: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError, match="mapping") as caught:
        load_config(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "\tindex: 1",
        "index:\n\ttype: flat",
        "index: [",
        "index: {type: flat",
        'dataset: "open',
        "a: b: c",
        "dataset: *nowhere",
        "dataset: !!python/object:os.system {}",
        "dataset: =",
        "? {a: 1}\n: 2",
        "<<: 3",
        b"\xff\xfe\x00",
        b"\x00",
        b"dataset: caf\xe9",
        "dataset: 2020-13-45",
        "dataset: 0b_",
        "dataset: " + "1" * 5000,
        "dataset: " + "[" * 2000,
        "dataset: !!int abc",
        "dataset: !!float x",
        '!!binary "a": 1',
        # Once a fault: these ended in AttributeError, KeyError and IndexError.
        "dataset: !!timestamp abc",
        "dataset: !!bool maybe",
        'dataset: !!int ""',
    ],
)
def test_what_is_not_yaml_is_refused_by_name(write: Write, text: str | bytes) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_syntax_error_is_told_by_line_with_the_line(write: Write) -> None:
    path = write("output: x\nindex: {type: flat: 3}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.message == (
        f"{path}:2 is not valid YAML: while parsing a flow mapping, expected ',' or '}}', but got ':'\n"
        "  index: {type: flat: 3}\n"
        "                    ^"
    )


@pytest.mark.parametrize("text", ["index: &a\n  type: *a\n", "dataset: &a [*a]\n", "x: &a {b: *a}\n"])
def test_a_file_that_contains_itself_is_refused(write: Write, text: str) -> None:
    # Once a fault: RecursionError while lines were recorded.
    with pytest.raises(ConfigError):
        load_config(write(text))


def test_a_file_that_unfolds_without_end_is_refused_in_good_time(write: Write) -> None:
    # Once a fault: aliases of aliases are walked one by one, 9^9 of them.
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 6)]
    path = write("\n".join(lines) + "\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert len(str(caught.value)) < 100_000


@pytest.mark.parametrize(
    ("text", "line", "first"),
    [
        ("dataset: a\nindex: {}\ndataset: b\n", 3, 1),
        ("index:\n  type: flat\n  search: {}\n  type: hnsw\n", 4, 2),
        ("index: {search: {}, search: {}}\n", 1, 1),
        ("device:\n  kind: cpu\n\n  kind: cpu\n", 4, 2),
    ],
)
def test_a_key_given_twice_is_refused_with_both_lines(write: Write, text: str, line: int, first: int) -> None:
    path = write(text)
    with pytest.raises(ConfigError, match=rf"some\.yaml:{line}: .* given twice \(first on line {first}\)"):
        load_config(path)


def test_an_alias_used_twice_is_no_duplicate(write: Write) -> None:
    path = write("dataset: &here some/where\noutput: *here\n")
    assert load_config(path).output == Path("some/where")


def test_keys_that_are_no_text_are_refused(write: Write) -> None:
    for text in ("1: 2\n", "null: 3\n", "index: {1: 2}\n", "index: {type: hnsw, build: {true: 1}}\n"):
        assert len(mistakes_of(write(text))) == 1


@pytest.mark.parametrize("path", ["none.yaml", ".", "x" * 300 + ".yaml", ""])
def test_a_config_that_is_not_there_is_not_found(tmp_path: Path, path: str) -> None:
    # Once a fault: an over-long name ended in OSError.
    with pytest.raises((NotFoundError, ConfigError)):
        load_config(f"{tmp_path}/{path}")


def test_device_by_name_may_be_set_from_the_command_line() -> None:
    config = config_from_dict({}, ["device=gpu", "device.gpus=[1]"])
    assert (config.device.kind, config.device.gpus) == ("gpu", (1,))
    assert config_from_dict({"device": {"gpus": [1]}}, ["device=cpu"]).device.kind == "cpu"


# --- what a device cannot do ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "device", "told"),
    [
        ({"type": "hnsw"}, {"kind": "gpu"}, "hnsw runs on CPU only"),
        ({"factory": "HNSW32"}, {"kind": "gpu"}, "CPU only"),
        ({"factory": "IVF64,PQ8x4fs"}, {"kind": "gpu"}, "CPU only"),
        ({"factory": "IVF64,PQ8,RFlat"}, {"kind": "gpu"}, "CPU only"),
        ({"type": "ivf_pq", "build": {"nbits": 4}}, {"kind": "gpu"}, "8 bits only"),
        ({"type": "ivf_pq", "build": {"M": 5}}, {"kind": "gpu"}, "M is one of 1, 2, 3, 4, 8"),
        ({"type": "ivf_pq", "build": {"M": 128}}, {"kind": "gpu"}, "M is one of"),
        ({"type": "ivf_flat", "search": {"nprobe": 2049}}, {"kind": "gpu"}, "limit of 2048"),
        ({"type": "ivf_sq", "search": {"nprobe": 4096}}, {"kind": "gpu"}, "limit of 2048"),
        ({"factory": "IVF4096,Flat", "search": {"nprobe": 2049}}, {"kind": "gpu"}, "limit of 2048"),
        ({"type": "flat"}, {"kind": "cpu", "float16": True}, "float16 is a GPU setting"),
        ({"type": "ivf_flat"}, {"kind": "gpu", "float16": True}, "changes type flat only"),
        ({"type": "ivf_flat"}, {"kind": "auto", "float16": True}, "changes type flat only"),
    ],
)
def test_what_a_device_cannot_do_is_refused_when_the_config_is_read(
    index: dict[str, Any], device: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        config_from_dict({"index": index, "device": device})


@pytest.mark.parametrize(
    ("index", "device"),
    [
        ({"type": "hnsw"}, {"kind": "auto"}),
        ({"type": "ivf_pq", "build": {"nbits": 4}}, {"kind": "auto"}),
        ({"type": "ivf_pq", "build": {"M": 96}}, {"kind": "gpu"}),
        ({"type": "ivf_flat", "search": {"nprobe": 2048}}, {"kind": "gpu"}),
        ({"type": "ivf_flat", "search": {"nprobe": 9999}}, {"kind": "cpu"}),
        ({"type": "flat"}, {"kind": "auto", "float16": True}),
        ({"type": "flat"}, {"kind": "gpu", "float16": True}),
        ({"factory": "IVF64,SQ8"}, {"kind": "gpu"}),
    ],
)
def test_what_a_device_can_do_is_accepted(index: dict[str, Any], device: dict[str, Any]) -> None:
    assert config_from_dict({"index": index, "device": device}).device.kind == device["kind"]


def test_everything_that_a_device_cannot_do_is_told_at_once() -> None:
    index = {"type": "ivf_pq", "build": {"nbits": 4, "M": 5}, "search": {"nprobe": 3000}}
    with pytest.raises(ConfigError) as caught:
        config_from_dict({"index": index, "device": {"kind": "gpu", "float16": True}})
    for told in ("float16", "nprobe 3000", "nbits 4", "M 5"):
        assert told in str(caught.value)


# --- overrides ------------------------------------------------------------------------------------------------------


def test_overrides_win_over_the_file_the_last_one_over_the_first(write: Write) -> None:
    path = write("index:\n  type: ivf_flat\n  search: {nprobe: 3}\n")
    config = load_config(
        path, ["index.search.nprobe=4", "index.search.nprobe=32", "index.build.nlist=9", "device.kind=cpu"]
    )
    assert config.index.search.nprobe == 32
    assert config.index.build.nlist == 9
    assert config.device.kind == "cpu"


def test_an_override_makes_the_sections_that_it_goes_through(write: Write) -> None:
    config = load_config(write("dataset: x\n"), ["index.type=hnsw", "index.search.efSearch=99"])
    assert (config.index.type, config.index.search.efSearch) == ("hnsw", 99)


def test_an_override_is_read_as_yaml(write: Write) -> None:
    config = load_config(
        write("{}"),
        ["index={factory: 'IVF16,SQ8', search: {nprobe: 2}}", "device.gpus=[2, 1]", "dataset=a=b", "output="],
    )
    assert isinstance(config.index, FactoryIndex)
    assert (config.index.factory, config.index.search.nprobe) == ("IVF16,SQ8", 2)
    assert config.device.gpus == (2, 1)
    assert config.dataset.folder == Path("a=b")
    assert config.output is None


def test_a_mistake_in_an_override_is_told_as_such(write: Write) -> None:
    path = write("index:\n  type: ivf_flat\n  serach: {}\n")
    found = sorted(mistakes_of(path, "index.search.nprobe=none", "index.buid.nlist=3"))
    assert len(found) == 3
    assert found[0].startswith("--set: ") and found[1].startswith("--set: ")
    assert any("index.search.nprobe" in line and "'none'" in line for line in found[:2])
    assert any("did you mean 'build'?" in line for line in found[:2])
    assert found[2].startswith(f"{path}:3: ") and "did you mean 'search'?" in found[2]


@pytest.mark.parametrize(
    "assignment", ["", "=", "=3", "nprobe", "index.search.nprobe", "index..nprobe=3", ".index=3", "index.=3", " =1"]
)
def test_an_override_that_is_no_assignment_is_refused(assignment: str) -> None:
    with pytest.raises(UsageError, match="KEY"):
        config_from_dict({}, [assignment])


def test_an_override_through_a_plain_value_is_refused() -> None:
    with pytest.raises(UsageError, match=r"output is 'x'"):
        config_from_dict({"output": "x"}, ["output.name=3"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "value",
    [
        "{",
        "[",
        "=",
        "*a",
        "\t",
        "\0",
        # Once a fault: these ended in ValueError, AttributeError, KeyError, IndexError and RecursionError.
        "2020-13-45",
        "0b_",
        "!!int abc",
        "!!float x",
        "!!timestamp abc",
        "!!bool maybe",
        '!!int ""',
        "1" * 5000,
        "[" * 5000,
    ],
)
def test_an_override_whose_value_is_not_yaml_is_refused(value: str) -> None:
    with pytest.raises(UsageError):
        config_from_dict({}, [f"index.search.nprobe={value}"])


def test_an_override_leaves_the_mapping_that_was_given_as_it_was() -> None:
    # Once a fault: the caller's nested mapping was changed.
    given_values = {"index": {"type": "ivf_flat", "search": {"nprobe": 3}}}
    config = config_from_dict(given_values, ["index.search.nprobe=4", "device.kind=cpu"])
    assert config.index.search.nprobe == 4
    assert given_values == {"index": {"type": "ivf_flat", "search": {"nprobe": 3}}}


# --- anything at all ------------------------------------------------------------------------------------------------

_WORDS = st.sampled_from(
    [
        "dataset",
        "index",
        "device",
        "output",
        "type",
        "build",
        "search",
        "nlist",
        "M",
        "nbits",
        "nprobe",
        "refine",
        "factory",
        "kind",
        "gpus",
        "float16",
        "temp_memory_mb",
        "normalize",
        "metric",
        "efSearch",
        "seed",
        "storage",
    ]
)
_VALUES = st.sampled_from(
    ["flat", "ivf_flat", "ivf_sq", "ivf_pq", "hnsw", "auto", "cpu", "gpu", "inner_product", "fp16"]
)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=8) | _VALUES
_KEYS = _WORDS | st.text(max_size=5) | st.integers(-2, 2) | st.none() | st.booleans()
_TREES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=12
)
_LIKELY = st.fixed_dictionaries(
    {},
    optional={
        "dataset": _SCALARS,
        "output": _SCALARS,
        "index": st.fixed_dictionaries(
            {},
            optional={
                "type": _VALUES,
                "factory": _SCALARS,
                "normalize": _SCALARS,
                "build": st.dictionaries(_WORDS, _SCALARS, max_size=3) | _SCALARS,
                "search": st.dictionaries(_WORDS, _SCALARS, max_size=3) | _SCALARS,
            },
        )
        | _TREES,
        "device": st.dictionaries(_WORDS, _SCALARS | st.lists(_SCALARS, max_size=3), max_size=4) | _SCALARS,
    },
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(_KEYS, _TREES, max_size=4) | _LIKELY)
@example({"index": {"factory": "Flat", "type": []}})
@example({"index": {"type": {"a": 1}}})
@example({"device": {"gpus": [[0]]}})
def test_no_mapping_gives_anything_but_a_config_or_our_error(values: dict[Any, Any]) -> None:
    try:
        config = config_from_dict(values)
    except SemrecError as error:
        assert str(error).strip()
        assert error.exit_code == 2
    else:
        assert config_from_dict(config.model_dump(mode="json")) == config


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.text(st.sampled_from("ab:-[]{}&*!?#|>'\"%@`,.0189_=~<\n\t "), max_size=40)
    | _TREES.map(yaml.safe_dump)
    | _LIKELY.map(yaml.safe_dump),
    st.lists(st.text(st.sampled_from("ab.=:[]{}!0-_\t "), max_size=12), max_size=2),
)
def test_no_text_gives_anything_but_a_config_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, overrides: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        load_config(path, overrides)
    except SemrecError as error:
        assert str(error).strip()
        assert error.exit_code == 2


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_give_anything_but_a_config_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    try:
        load_config(path)
    except SemrecError as error:
        assert error.exit_code == 2


def test_labels_of_profiles_have_no_fractions_that_say_nothing() -> None:
    """Once a fault: ``half_life_days=100.0``."""
    assert Profile(half_life_days=100.0, popularity=0.45).describe() == "half_life_days=100, popularity=0.45"
    assert Profile().describe() == "defaults"


@pytest.mark.parametrize("values", [None, [], 3, "flat"])
def test_settings_that_are_no_mapping_are_refused(values: Any) -> None:
    with pytest.raises(ConfigError, match=f"the settings are {type(values).__name__}; a mapping is expected"):
        config_from_dict(values)


@pytest.mark.parametrize(("text", "value"), [("010", 8), ("-017", -15), ("1:30", 90), ("1:30.5", 90.5), ("00", 0)])
def test_numbers_that_yaml_takes_for_others_are_refused(tmp_path: Path, text: str, value: float) -> None:
    """Once a fault: nprobe 010 was 8, and 1:30 was 90."""
    path = tmp_path / "some.yaml"
    path.write_text(f"index:\n  type: ivf_flat\n  search:\n    nprobe: {text}\n")
    told = rf"index\.search\.nprobe is {text}, which YAML takes for {value}; write"
    with pytest.raises(ConfigError, match=rf"some\.yaml:4: {told}"):
        YamlSource.read(path)
    with pytest.raises(UsageError, match=rf"--set:1: the value is {text}, which YAML takes for {value}; write"):
        YamlSource({}).override(f"index.search.nprobe={text}")
    source = YamlSource({})
    for number, meant in (("0x10", 16), ("0", 0), ("0.5", 0.5), (f"'{text}'", text), ("1_000", 1000)):
        source.override(f"a={number}")
        assert source.values["a"] == meant
