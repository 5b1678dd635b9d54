"""Where type fused keeps what answers are proven by: in titles that came as float16 themselves, or on the host."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semrec_faiss.errors import DeviceError
from semrec_faiss.index.cpu.exact import original_vectors
from semrec_faiss.index.fused.searcher import FusedSearcher
from semrec_faiss.index.fused.several.several_gpus import SeveralGpus
from semrec_faiss.index.fused.titles.page_locked import PageLocked
from semrec_faiss.index.hardware.device import load_faiss
from tests.index.fused.worlds import PLACE, Truth, came_as_float16, clustered, exclude, needs_kernels, searcher


def halves(kind: str, rng: np.random.Generator, n: int, d: int) -> NDArray[np.float16]:
    drawn = {
        "of unit length": lambda: clustered(rng, n, d),
        "of any length": lambda: rng.normal(size=(n, d)) * np.exp(rng.uniform(-3, 3, size=(n, 1))),
        "heavy tails": lambda: np.clip(rng.standard_cauchy(size=(n, d)), -6e4, 6e4),
        "few values": lambda: rng.integers(-9, 10, size=(n, d)),
        "one-hot": lambda: np.eye(d)[rng.integers(d, size=n)],
    }[kind]()
    kept = drawn.astype(np.float16)
    return kept[kept.any(axis=1)]


KINDS = ("of unit length", "of any length", "heavy tails", "few values", "one-hot")


@needs_kernels
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [32, 100])
def test_titles_that_came_as_float16_are_taken_back_to_the_bit(kind: str, dim: int) -> None:
    import torch

    from semrec_faiss.index.fused.titles.as_halves import exactly, halves_of

    came = halves(kind, np.random.default_rng(dim), 400, dim)
    for titles in (came_as_float16(came), came.astype(np.float32)):
        found = halves_of(torch, torch.from_numpy(titles))
        assert found is not None
        np.testing.assert_array_equal(exactly(*found).numpy().view(np.int32), titles.view(np.int32))


ONLY_MULTIPLIED = """
CqZmKcktnSgZLSmfCSrpLPeiSqgKrx6fwiVIr8es7awbpTEndyNtmK+sSiWRrWquwp+UojcmgSXQo38tg6VIHEKsd60irlUtQSIyKmChcSn9
KYAlm6wuLMIm/y1WoZ0sN6CnqV0epavQKIKwmysNq7InNY+MI4UvQR6CLgcfmibYpceq4an3ptwVpilhLJ2hVQ66KbihX6D2JQ4gLBpKGUOm
xq0eLa2jpB7tqEEo/Sp7qvQtEy3MH+Msz6krqI2kUCapqRMt9SguKMiVa6sXnz2sW6nFIeyk8aqHp1uquCyxrNco4CpsqVyrSCpLqaihZ6g7
HDytMKlsLKAd46m5nOAh56xgryudcyoiqq8qoi8jqK+oOig/qIQpnSlYKU2rHKFwrNEdKyROqdCmmKTnrXmrkyywJpEkY6a9Lh4tJJSVLCiZ
+hRHKnEm365bJsmk5CyfKaqqaSpsjb0i653Rrl6q5KJZqv+YuKwgrEsOfyiRKwup9JVbHGGswit3nssgaixVHUurhaZcoV+lkKlmLSoqRqYg
KXWsKaozpmcvM6hoKJWstCd+JDuoGR6PqzGpsiWqmackXCgYDIgr7qSho1QoOSwaq9um2inaqI+oAyoOK0UhYK1zL3euQClZpOmqASVbr62p
5CfpKKAkfKmCJhGe3SR4Hn+uEx0PpQql2SPbqd+wc6IrqVyqySkIrugsehZVnJkdSC7yIS2praPxrKoow6h3J0Uj2hjJqwiQL6i+K82oiKXg
qYCkdaRoJl0kbaLQKK0cUaeuqc2KjqnXLN+uByTkKIQoIR1rrasgx6TFKSCtTKlpK3on/ST3JWoh4yq3LyCg5quuIckok6teJLAmIKV+q4ql
ZCnLpfku+Zlpq7GwjaeAJEiSwqtpoUyk9ioVq2Oiuyy0otwm2ytlqHMsD6alm9sp6C9zIXUcEaVPIOmpSymsnb8j1yjCqF6rXCf2r/SjJSpH
n/aeXSyJKGwsjaoEHpGscSjZIlKo9Kl/KGSpsijUIUAwz5hPqpuY
"""
"""384 float16 of which division by their length makes float32 that are no multiple of them: its inverse is so near to
1 + 23 / (167 × 2^14) that the products with several of them lie half-way between two float32."""


@needs_kernels
def test_a_data_folder_makes_no_title_that_is_not_taken_back() -> None:
    import torch

    from semrec_faiss.data.folder.vectors import read_float32
    from semrec_faiss.index.fused.titles.as_halves import exactly, halves_of

    came = np.frombuffer(base64.b64decode(ONLY_MULTIPLIED), np.float16)[None]
    wide = came.astype(np.float64)
    divided = (wide / np.linalg.norm(wide)).astype(np.float32)
    assert halves_of(torch, torch.from_numpy(divided)) is None
    made = read_float32(came, normalize=True, path="here")
    assert np.abs(made - divided).max() < 2.0**-24
    found = halves_of(torch, torch.from_numpy(made))
    assert found is not None
    np.testing.assert_array_equal(exactly(*found).numpy().view(np.int32), made.view(np.int32))


@needs_kernels
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [32, 100, 384])
def test_the_first_look_takes_no_halves_for_float32(kind: str, dim: int) -> None:
    import torch

    from semrec_faiss.index.fused.titles.as_halves import PROBED, halves_of

    def are_halves(titles: NDArray[np.float32]) -> bool:
        return halves_of(torch, torch.from_numpy(titles)) is not None

    rng = np.random.default_rng(dim)
    came = halves(kind, rng, 2 * PROBED, dim)
    came = np.concatenate((came, (came[:99] * np.float16(2.0**-12)).astype(np.float16)))
    came = came[came.any(axis=1)]
    for titles in (came_as_float16(came), came.astype(np.float32)):
        for first in range(0, len(titles), PROBED):
            assert are_halves(titles[first : first + PROBED])
    for count in (1, 8, PROBED):
        assert not are_halves(rng.standard_normal((count, dim), dtype=np.float32))
    if kind == "one-hot":
        return  # which rounding leaves as it is
    twice = (came_as_float16(came[:PROBED]) * np.float32(1.1)).astype(np.float64)
    twice = (twice / np.linalg.norm(twice, axis=1, keepdims=True)).astype(np.float32)
    assert not are_halves(twice), "rounded twice, some of them are none"


@needs_kernels
def test_float32_titles_are_no_halves_and_one_among_halves_is_enough() -> None:
    import torch

    from semrec_faiss.index.fused.titles.as_halves import halves_of

    rng = np.random.default_rng(4)
    titles = came_as_float16(halves("of unit length", rng, 300, 48))
    titles[217] = clustered(rng, 1, 48)
    assert halves_of(torch, torch.from_numpy(titles)) is None
    assert halves_of(torch, torch.zeros((3, 48))) is None


@needs_kernels
def test_float32_titles_are_told_by_the_first_few(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from semrec_faiss.index.fused.titles import as_halves

    sizes, take_back = [], as_halves._take_back

    def noting(torch: Any, vectors: Any, *more: Any) -> Any:
        sizes.append(len(vectors))
        return take_back(torch, vectors, *more)

    monkeypatch.setattr(as_halves, "_take_back", noting)
    titles = clustered(np.random.default_rng(3), 1000, 48)
    assert as_halves.halves_of(torch, torch.from_numpy(titles)) is None
    assert sizes[0] == as_halves.PROBED
    assert max(sizes) == as_halves.PROBED


@needs_kernels
@pytest.mark.parametrize("dim", [32, 384])
def test_ratios_tell_nearly_every_significand(dim: int) -> None:
    """The few that are left are tried by all significands, which takes many times as long a title."""
    import torch

    from semrec_faiss.index.fused.titles import as_halves

    titles = torch.from_numpy(came_as_float16(halves("of unit length", np.random.default_rng(1), 5000, dim)))
    room = as_halves._room(torch, titles)
    left = as_halves._take_back(torch, titles, *room, as_halves.TRIED_BY, as_halves._by_ratios)
    assert len(left) < len(titles) / 200


@needs_kernels
@pytest.mark.parametrize("kind", KINDS[:3])
def test_the_copies_are_the_originals(kind: str, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes a component and eight a title, the answers of float32 originals bit for bit, all proven."""
    rng = np.random.default_rng(8)
    titles = came_as_float16(halves(kind, rng, 500, 64))
    titles[rng.choice(500, 30)] = titles[7]
    queries = np.concatenate((titles[7:8], clustered(rng, 2, 64)))
    mask, seen = rng.random(len(titles)) < 0.3, exclude([rng.choice(500, 40, replace=False) for _ in queries])
    ours = searcher(titles)
    assert ours.proves
    assert ours.titles.originals is None
    assert ours.titles.even == (ours.titles.score_factors is None) == (kind == "of unit length")
    apart = np.linalg.norm(ours.titles.halves.cpu().numpy().astype(np.float64) - ours.titles.scale * titles, axis=1)
    assert not ours.titles.even or apart.max() <= ours.titles.error < 1e-3
    assert ours.titles.bytes == len(titles) * (2 * 64 + 8 + (64 + 4 if read == "codes" else 0))
    monkeypatch.setattr("semrec_faiss.index.fused.titles.uploading.halves_of", lambda *_, **__: None)
    beside = searcher(titles)
    assert beside.titles.originals is not None
    for options in ({}, {"mask": mask}, {"excluded": seen}):
        found, expected = ours.search(queries, 12, **options), beside.search(queries, 12, **options)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))
    Truth.of(titles, queries).check(ours.search(queries, 12), 12)


@needs_kernels
@pytest.mark.parametrize(("came", "fits"), [(True, True), (True, False), (False, False)])
def test_titles_stay_as_they_came_beside_bounds_rather_than_on_the_host(came: bool, fits: bool) -> None:
    import torch

    from semrec_faiss.index.fused.titles.uploading import upload_titles

    made = came_as_float16(halves("of unit length", np.random.default_rng(2), 300, 64))
    titles = made if came else clustered(np.random.default_rng(2), 300, 64)
    directions, on_host = np.eye(64)[:23], None if fits else lambda: torch.from_numpy(titles)
    found = upload_titles(titles, torch.device(PLACE), keep_originals=True, directions=directions, on_host=on_host)
    assert (found.factors is not None, found.screened) == (came, True)
    assert found.proves
    np.testing.assert_array_equal(found.exact_vectors(slice(0, 300)).cpu().numpy(), titles)


@needs_kernels
def test_halves_on_a_shelf_and_all_titles_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.filters.known_filters.masking_loss_ms", lambda *_: 1e9)
    monkeypatch.setattr("semrec_faiss.index.fused.filters.shelves.LEAST_SHELVED", 6)
    monkeypatch.setattr("semrec_faiss.index.fused.block_search.repeats", lambda _: False)
    rng = np.random.default_rng(3)
    titles = came_as_float16(np.tile(halves("of unit length", rng, 3, 32), (200, 1)))
    mask = rng.random(600) < 0.5
    index = searcher(titles)
    found = index.search(titles[:2], 5, mask=mask)
    assert found.scanned == 2, "nothing tells the copies apart"
    for query in range(2):
        np.testing.assert_array_equal(found.rows[query], [row for row in range(query, 600, 3) if mask[row]][:5])
    assert index.filters.place(mask, 2).shelf is not None


@needs_kernels
def test_originals_on_the_host_give_the_same_answers(read: str) -> None:
    rng = np.random.default_rng(12)
    titles = clustered(rng, 500, 64)
    queries, mask = clustered(rng, 3, 64), rng.random(500) < 0.3
    here, there = searcher(titles, originals="gpu"), searcher(titles, originals="host")
    assert there.titles.originals.device.type == "cpu"
    if PLACE != "cpu":
        assert there.titles.bytes == here.titles.bytes - 4 * titles.size
    for options in ({}, {"mask": mask}):
        for _ in range(1 if PLACE == "cpu" else 3):
            found, expected = there.search(queries, 9, **options), here.search(queries, 9, **options)
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))


@needs_kernels
def test_originals_of_an_opened_index_are_copied_to_the_host(tmp_path: Path) -> None:
    """Mapped, they begin at an odd address of pages that nothing may write to: no GPU reads float32 there."""
    faiss, titles = load_faiss(), clustered(np.random.default_rng(5), 500, 64)
    index = faiss.IndexFlatIP(64)
    index.add(titles)
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    opened = faiss.read_index(str(tmp_path / "index.faiss"), faiss.IO_FLAG_MMAP_IFC)
    mapped = original_vectors(opened)
    assert mapped is not None
    assert mapped.ctypes.data % 4, "else this tests nothing"
    found = FusedSearcher(mapped, str(PLACE), originals="host")
    originals = found.titles.originals
    assert originals.data_ptr() % 16 == 0
    np.testing.assert_array_equal(originals.numpy(), titles)
    Truth.of(titles, titles[:2]).check(found.search(titles[:2], 5), 5)


@needs_kernels
def test_originals_that_the_host_has_no_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semrec_faiss.index.fused.titles.page_locked.available_bytes", lambda: 1 << 20)
    mapped = np.frombuffer(np.ones((1 << 13, 64), np.float32).tobytes(), np.float32).reshape(-1, 64)
    with pytest.raises(DeviceError, match=r"^0\.0 GiB cannot be page-locked on the host, which has 0\.0 GiB free"):
        PageLocked(mapped).part(slice(None))
    assert PageLocked(mapped[:64]).part(slice(None)).shape == (64, 64)


@needs_kernels
@pytest.mark.parametrize("layout", ["shards", "replicas"])
def test_several_gpus_share_what_is_on_the_host(layout: Any) -> None:
    rng = np.random.default_rng(2)
    titles = clustered(rng, 301, 32)
    devices = ["cpu", "cpu"] if PLACE == "cpu" else ["cuda:0", "cuda:0"]
    several = SeveralGpus(titles, devices, layout=layout, originals="host")
    pointers = {one.titles.originals.untyped_storage().data_ptr() for one in several.searchers}
    assert len(pointers) == 1
    Truth.of(titles, titles[:2]).check(several.search(titles[:2], 5), 5)
