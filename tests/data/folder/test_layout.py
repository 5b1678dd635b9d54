"""The data folder is found or explained; arrays of every kind are read exactly, or refused with a reason."""

from __future__ import annotations

import mmap
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from semrec_faiss.data.folder.change import find_change_folder
from semrec_faiss.data.folder.layout import (
    MEDIA_VECTORS,
    METADATA,
    SEEN,
    USER_IDS,
    USER_VECTORS,
    find_data_folder,
    iter_float32_blocks,
    open_vectors,
    read_float32,
    vector_norms,
)
from semrec_faiss.data.folder.vectors import equal_rows
from semrec_faiss.errors import DataError, NotFoundError

ANY = Path("vectors.npy")


def make_folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def some(rows: int = 7, dim: int = 5, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(dtype)


# The folder


@pytest.mark.parametrize("name", [MEDIA_VECTORS, METADATA, USER_VECTORS, USER_IDS])
@pytest.mark.parametrize("kind", ["folder", "fifo", "link to nothing", "link to a device"])
def test_what_is_no_file_under_a_known_name_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    make_folder(tmp_path, MEDIA_VECTORS, METADATA, USER_VECTORS, USER_IDS)
    place = tmp_path / name
    place.unlink()
    if kind == "folder":
        place.mkdir()
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero" if kind == "link to a device" else tmp_path / "nothing")
    with pytest.raises(DataError, match=f"{place} is not a file"):
        find_data_folder(tmp_path)


def test_seen_titles_may_be_a_folder_and_users_no_file(tmp_path: Path) -> None:
    make_folder(tmp_path, MEDIA_VECTORS, METADATA, USER_VECTORS, USER_IDS)
    (tmp_path / SEEN).mkdir()
    assert find_data_folder(tmp_path).seen == tmp_path / SEEN
    (tmp_path / SEEN).rmdir()
    (tmp_path / SEEN).symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"seen\.parquet is not a file"):
        find_data_folder(tmp_path)
    other = make_folder(tmp_path / "other", MEDIA_VECTORS, METADATA, "users")
    with pytest.raises(DataError, match="users is not a folder"):
        find_data_folder(other)


def test_a_full_folder_is_found(tmp_path: Path) -> None:
    make_folder(tmp_path, MEDIA_VECTORS, METADATA, USER_VECTORS, USER_IDS, SEEN)
    folder = find_data_folder(str(tmp_path))
    assert folder.root == tmp_path
    assert (folder.media_vectors, folder.metadata) == (tmp_path / MEDIA_VECTORS, tmp_path / METADATA)
    assert (folder.user_vectors, folder.user_ids) == (tmp_path / USER_VECTORS, tmp_path / USER_IDS)
    assert folder.seen == tmp_path / SEEN


def test_users_are_optional(tmp_path: Path) -> None:
    folder = find_data_folder(make_folder(tmp_path, MEDIA_VECTORS, METADATA))
    assert (folder.user_vectors, folder.user_ids, folder.seen) == (None, None, None)


@pytest.mark.parametrize("inside", ["embeddings", "data/embeddings"])
def test_the_guides_place_is_found(tmp_path: Path, inside: str) -> None:
    make_folder(tmp_path / inside, MEDIA_VECTORS, METADATA)
    assert find_data_folder(tmp_path).root == tmp_path / inside


def test_media_in_the_root_goes_before_embeddings(tmp_path: Path) -> None:
    make_folder(tmp_path, MEDIA_VECTORS, METADATA)
    make_folder(tmp_path / "embeddings", MEDIA_VECTORS, METADATA)
    assert find_data_folder(tmp_path).root == tmp_path


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"there is no data folder .*nowhere") as caught:
        find_data_folder(tmp_path / "nowhere")
    assert MEDIA_VECTORS in (caught.value.fix or "")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    make_folder(tmp_path, "file.npy")
    with pytest.raises(NotFoundError, match="is a file, not a data folder"):
        find_data_folder(tmp_path / "file.npy")


@pytest.mark.parametrize("there", [MEDIA_VECTORS, METADATA, USER_IDS])
def test_what_is_missing_is_listed(tmp_path: Path, there: str) -> None:
    make_folder(tmp_path, there)
    with pytest.raises(DataError) as caught:
        find_data_folder(tmp_path)
    for name in {MEDIA_VECTORS, METADATA} - {there}:
        assert name in caught.value.message
    assert there not in caught.value.message
    assert all(name in str(caught.value) for name in (MEDIA_VECTORS, METADATA, USER_VECTORS, USER_IDS, SEEN))


def test_vectors_need_not_exist_before_they_are_made(tmp_path: Path) -> None:
    folder = find_data_folder(make_folder(tmp_path, METADATA), need_vectors=False)
    assert folder.media_vectors == tmp_path / MEDIA_VECTORS
    with pytest.raises(DataError, match="metadata"):
        find_data_folder(make_folder(tmp_path / "other", MEDIA_VECTORS), need_vectors=False)


@pytest.mark.parametrize(
    ("there", "lacking"), [(USER_VECTORS, f"no {USER_IDS}"), (USER_IDS, f"neither {USER_VECTORS} nor {SEEN}")]
)
def test_half_of_the_users_files_is_refused(tmp_path: Path, there: str, lacking: str) -> None:
    make_folder(tmp_path, MEDIA_VECTORS, METADATA, there)
    with pytest.raises(DataError, match=f"has {there} but {lacking}"):
        find_data_folder(tmp_path)


def test_users_need_no_vectors_where_it_is_known_what_they_have_seen(tmp_path: Path) -> None:
    folder = find_data_folder(make_folder(tmp_path, MEDIA_VECTORS, METADATA, USER_IDS, SEEN))
    assert (folder.user_vectors, folder.user_ids, folder.seen) == (None, tmp_path / USER_IDS, tmp_path / SEEN)


def test_what_makes_vectors_is_said_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="semrec dataset embed makes vectors of texts, semrec dataset learn of what"):
        find_data_folder(make_folder(tmp_path, METADATA))


@pytest.mark.parametrize("find", [find_data_folder, find_change_folder])
@pytest.mark.parametrize("name", ["seen.csv", "seen.jsonl", "seen.pq"])
def test_seen_titles_in_another_format_are_not_passed_over(
    tmp_path: Path, name: str, find: Callable[[Path], object]
) -> None:
    """Once a fault: a build said nothing, and users were recommended what they had seen."""
    root = make_folder(tmp_path, MEDIA_VECTORS, METADATA, USER_IDS, USER_VECTORS)
    (root / "users" / name).write_text("user_id,media_id\n")
    with pytest.raises(DataError, match=rf"users/{re.escape(name)} is not read, users/seen\.parquet is\nwrite it as"):
        find(root)
    (root / "users" / "seen.parquet").mkdir()
    find(root)  # where it was written, the other may stay


def test_seen_without_users_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, MEDIA_VECTORS, METADATA, SEEN)
    with pytest.raises(DataError, match=f"has {SEEN} but no {USER_IDS}"):
        find_data_folder(tmp_path)


# Opening


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_float_and_order_is_read_the_same(tmp_path: Path, dtype: str, order: str) -> None:
    array = some(dtype="float16").astype(dtype)
    vectors = open_vectors(saved(tmp_path / "v.npy", np.asarray(array, order=order)))
    assert isinstance(vectors, np.memmap)
    assert not vectors.flags.writeable
    np.testing.assert_array_equal(read_float32(vectors, normalize=False, path=ANY), array.astype("float32"))


def test_newer_header_versions_are_read(tmp_path: Path) -> None:
    array = some()
    with (tmp_path / "v.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version=(2, 0))
    np.testing.assert_array_equal(open_vectors(tmp_path / "v.npy"), array)


def test_counts_that_agree_are_accepted(tmp_path: Path) -> None:
    assert open_vectors(saved(tmp_path / "v.npy", some(7, 5)), expect_rows=7, expect_dim=5).shape == (7, 5)


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((3, 4), dtype="int64"), "dtype int64"),
        (np.zeros((3, 4), dtype="complex64"), "dtype complex64"),
        (np.zeros((3, 4), dtype="bool"), "dtype bool"),
        (np.zeros((3, 4), dtype="longdouble"), "dtype float128"),
        (np.zeros(3, dtype=[("x", "f4")]), "dtype"),
        (np.array(["a", "b"]), "dtype <U1"),
        (np.zeros(12, dtype="float32"), r"shape \(12,\)"),
        (np.zeros((2, 3, 2), dtype="float32"), r"shape \(2, 3, 2\)"),
        (np.float32(1.0), r"shape \(\)"),
        (np.zeros((0, 4), dtype="float32"), r"shape \(0, 4\)"),
        (np.zeros((4, 0), dtype="float32"), r"shape \(4, 0\)"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray, problem: str) -> None:
    if "float128" in problem and array.dtype.itemsize == 8:
        pytest.skip("no wider float on this machine")
    path = saved(tmp_path / "v.npy", array)
    with pytest.raises(DataError, match=rf"v\.npy: the vectors have {problem}"):
        open_vectors(path)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_pickled_objects_are_refused_unopened(tmp_path: Path) -> None:
    trap = Trap(str(tmp_path / "sprung"))
    np.save(tmp_path / "objects.npy", np.array([[trap]], dtype=object), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(trap, protocol=4))
    with pytest.raises(DataError, match=r"objects\.npy holds pickled Python objects"):
        open_vectors(tmp_path / "objects.npy")
    with pytest.raises(DataError, match=r"pickle\.npy is not a \.npy file: a Python pickle"):
        open_vectors(tmp_path / "pickle.npy")
    assert not (tmp_path / "sprung").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", some())
    (tmp_path / "text.npy").write_text("0.1,0.2\n")
    (tmp_path / "empty.npy").touch()
    with pytest.raises(DataError, match=r"is not a .npy file: a .npz"):
        open_vectors(tmp_path / "v.npz")
    for name in ("text.npy", "empty.npy"):
        with pytest.raises(DataError, match=f"{name} is not a .npy file"):
            open_vectors(tmp_path / name)
    with pytest.raises(DataError, match="cannot read the user vectors"):
        open_vectors(tmp_path, what="user vectors")
    with pytest.raises(NotFoundError, match=r"there is no file .*missing\.npy"):
        open_vectors(tmp_path / "missing.npy")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "v.npy", some(3, 2)).read_bytes()
    for length in range(len(whole)):
        (tmp_path / "v.npy").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"truncated|header is damaged|not a \.npy"):
            open_vectors(tmp_path / "v.npy")
    (tmp_path / "v.npy").write_bytes(whole + b"\0")
    with pytest.raises(DataError, match=r"goes on after its array: 153 bytes, but .* takes 152"):
        open_vectors(tmp_path / "v.npy")


@given(position=st.integers(0, 127), value=st.integers(0, 255))
def test_a_damaged_header_never_escapes_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    array = some(3, 2)
    path = tmp_path_factory.mktemp("flip") / "v.npy"
    content = bytearray(saved(path, array).read_bytes())
    content[position] = value
    path.write_bytes(bytes(content))
    try:
        assert open_vectors(path).size == array.size
    except DataError as error:
        assert "v.npy" in error.message


def test_mismatches_name_both_numbers_and_both_files(tmp_path: Path) -> None:
    make_folder(tmp_path, MEDIA_VECTORS, USER_VECTORS)
    media, users = saved(tmp_path / MEDIA_VECTORS, some(1234, 5)), saved(tmp_path / USER_VECTORS, some(7, 4))
    with pytest.raises(DataError, match=r"content_vectors.npy has 1,234 .* 8 entries in .*metadata\.jsonl"):
        open_vectors(media, expect_rows=8)
    with pytest.raises(DataError, match=r"preference_vectors.npy has 7 .* 8 entries in .*user_ids\.json"):
        open_vectors(users, expect_rows=8)
    with pytest.raises(DataError, match=r"preference_vectors.npy.* 4 dim.* 5 are .* in .*media/content_vectors\.npy"):
        open_vectors(users, expect_dim=5)


# Reading


@pytest.mark.slow
@given(
    array=hnp.arrays(
        st.sampled_from(["float16", "float32", "float64"]),
        st.tuples(st.integers(1, 20), st.integers(1, 9)),
        elements=st.floats(-100, 100, width=16).filter(lambda x: x != 0),
    ),
    block_bytes=st.integers(1, 300),
)
def test_blocks_are_the_array_normalised(array: np.ndarray, block_bytes: int) -> None:
    exact = array.astype(np.float64)
    exact /= np.sqrt((exact**2).sum(axis=1, keepdims=True))
    blocks = list(iter_float32_blocks(array, normalize=True, path=ANY, block_bytes=block_bytes))
    assert [first for first, _ in blocks] == list(np.cumsum([0, *(len(block) for _, block in blocks)])[:-1])
    assert all(block.flags.c_contiguous and block.dtype == np.float32 for _, block in blocks)
    assert all(block.nbytes <= max(block_bytes, 4 * array.shape[1]) for _, block in blocks)
    together = np.concatenate([block for _, block in blocks])
    # Within the rounding of float32, and no further: the norm is computed in float64.
    np.testing.assert_allclose(together, exact.astype(np.float32), rtol=2**-23, atol=0)
    np.testing.assert_array_equal(read_float32(array, normalize=True, path=ANY), together)
    np.testing.assert_array_equal(read_float32(array, normalize=False, path=ANY), array.astype(np.float32))


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-160, 1e-50, 1e50, 1e160, 1e300, 1e307])
def test_float64_far_outside_float32_is_normalised(scale: float) -> None:
    array = np.array([[3.0, 4.0], [1.0, 0.0], [-4.0, 3.0]]) * np.array([[scale], [1.0], [scale]])
    unit = read_float32(array, normalize=True, path=ANY)
    # Subnormal numbers have few digits; everything else is exact to float32.
    np.testing.assert_allclose(unit, [[0.6, 0.8], [1, 0], [-0.8, 0.6]], rtol=2e-3 if scale == 1e-320 else 1e-7)
    stats = vector_norms(array, path=ANY)
    assert stats.max == pytest.approx(max(5 * scale, 1.0))
    assert stats.min == pytest.approx(min(5 * scale, 1.0), rel=2e-3)


@pytest.mark.parametrize("largest", [1e-50, 1e39, 1e300])
def test_what_float32_cannot_hold_is_refused_unless_normalised(largest: float) -> None:
    array = np.array([[1.0, 2.0], [largest, 0.0]])
    with pytest.raises(DataError, match=r"vectors\.npy\[1\] has 1e.* which float32 cannot hold"):
        read_float32(array, normalize=False, path=ANY)
    assert read_float32(array, normalize=True, path=ANY)[1].tolist() == [1.0, 0.0]


def test_the_largest_float64_has_a_length_that_json_knows() -> None:
    array = np.full((1, 400), np.finfo(np.float64).max)
    assert vector_norms(array, path=ANY).max == np.finfo(np.float64).max
    np.testing.assert_allclose(read_float32(array, normalize=True, path=ANY), 0.05, rtol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 5, 6])
@pytest.mark.parametrize("normalize", [True, False])
def test_values_that_are_not_finite_name_file_and_row(dtype: str, bad: float, row: int, normalize: bool) -> None:
    array = some(7, 5, dtype)
    array[row, 3] = bad
    with pytest.raises(DataError, match=rf"vectors\.npy\[{row}, 3\] is {bad}"):
        list(iter_float32_blocks(array, normalize=normalize, path=ANY, block_bytes=40))
    with pytest.raises(DataError, match=rf"\[{row}[],]"):
        read_float32(array, normalize=normalize, path=ANY)
    with pytest.raises(DataError, match=rf"\[{row}[],]"):
        vector_norms(array, path=ANY)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_all_zero_rows_name_file_and_row(zero: float) -> None:
    array = some(40_000, 8)
    array[31_000] = zero
    for read in (
        lambda: read_float32(array, normalize=True, path=ANY),
        lambda: read_float32(array, normalize=False, path=ANY),
        lambda: vector_norms(array, path=ANY),
    ):
        with pytest.raises(DataError, match=r"vectors\.npy\[31000\] is all zero"):
            read()


def test_norms_are_measured_over_all_parts() -> None:
    array = some(50_000, 16, "float64")
    array /= np.linalg.norm(array, axis=1, keepdims=True)
    array[10] *= 2
    array[49_999] /= 4
    stats = vector_norms(array, path=ANY)
    assert (stats.count, stats.min, stats.max) == (50_000, pytest.approx(0.25), pytest.approx(2.0))
    assert stats.mean == pytest.approx((49_998 + 2.25) / 50_000)
    assert stats.unit_share == 49_998 / 50_000
    assert not stats.normalized
    assert vector_norms(array[11:49_999].astype("float32"), path=ANY).normalized


def test_equal_rows_are_counted_exactly() -> None:
    array = some(40_000, 8, "float16").astype("float32")
    distinct = len(np.unique(array + 0.0, axis=0))
    array[[5, 30_000, 39_999]] = array[2]
    array[7] = 0.0
    array[8] = -0.0
    count, pair = equal_rows(array)
    assert count == 40_000 - len(np.unique(array + 0.0, axis=0))
    assert count == 40_000 - distinct + 4
    assert pair is not None
    np.testing.assert_array_equal(array[pair[0]], array[pair[1]])
    assert pair[0] < pair[1]
    assert equal_rows(np.eye(5)) == (0, None)


def resident_bytes_of(mapped: np.ndarray) -> int:
    """Read from the kernel how much of a mapping is resident in this process."""
    address = mapped.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head:
            low, high = (int(part, 16) for part in head.split("-"))
            inside = low <= address < high
        elif inside and head == "Rss:":
            return int(line.split()[1]) * 1024
    raise AssertionError("the mapping was not found")


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
@pytest.mark.parametrize("order", ["C", "F"])
def test_pages_read_are_let_go(tmp_path: Path, order: str) -> None:
    array = np.asarray(some(100_000, 20, "float64"), order=order)
    touched = open_vectors(saved(tmp_path / "v.npy", array))
    assert float(np.asarray(touched).sum()) == pytest.approx(float(array.sum()))
    assert resident_bytes_of(touched) >= array.nbytes
    vectors = open_vectors(tmp_path / "v.npy")
    blocks = iter_float32_blocks(vectors, normalize=True, path=ANY, block_bytes=1 << 20)
    # The kernel may map some more than was read; a file of 16 MB that stays mapped is far above this.
    assert max(resident_bytes_of(vectors) for _ in blocks) < 6 << 20
    np.testing.assert_array_equal(vectors, array)


def test_all_vectors_that_cannot_be_used_are_told_at_once() -> None:
    array = np.ones((5000, 3), dtype=np.float32)
    for row in range(7, 5000, 400):  # 13 of them
        array[row, 1] = np.nan
    array[4999] = 0
    said = r"\[7, 1\] is nan.*\n14 vectors .* those at \[7, 407, 807, 1207, 1607, 2007, 2407, 2807, 3207, 3607, …\]"
    for read in (
        lambda: read_float32(array, normalize=True, path=ANY),
        lambda: vector_norms(array, path=ANY),
        lambda: list(iter_float32_blocks(array, normalize=False, path=ANY, block_bytes=600)),
    ):
        with pytest.raises(DataError, match=said):
            read()
