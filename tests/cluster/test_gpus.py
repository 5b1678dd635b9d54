"""Shards on GPUs that Ray only counts: each actor has one of its own, and they are given back with the actors."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import HANG_SECONDS, until

from semrec_faiss import UnavailableError
from semrec_faiss.cluster import starting
from semrec_faiss.cluster.shards import OpenShards
from semrec_faiss.cluster.starting import ShardStarter
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.generations.manifest import GenerationRef
from semrec_faiss.index.generations.shards import Place, Shard, ShardList
from tests.cluster import worlds

REF = GenerationRef(name="gen-000001", manifest_sha256="0" * 64)


@pytest.fixture(autouse=True)
def counted_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "ShardServer", worlds.GpuShard)


@pytest.fixture(scope="module")
def two_gpus(cluster: Any) -> Iterator[Any]:
    added = cluster.add_node(
        num_cpus=1, num_gpus=2, object_store_memory=80 << 20, node_ip_address="127.0.0.3", include_dashboard=False
    )
    cluster.wait_for_nodes(HANG_SECONDS)
    yield added
    cluster.remove_node(added)


def _shards(tmp_path: Any, *nodes: str | None) -> OpenShards:
    shards = [
        Shard(folder=f"shards/{at}", first=10 * at, titles=10, places=(Place(node=node, generation=REF),))
        for at, node in enumerate(nodes)
    ]
    return OpenShards(tmp_path, ShardList(shards=tuple(shards)), [])


def _told(shards: OpenShards) -> list[Any]:
    import ray

    return [ray.get(replicas[0].about.remote(), timeout=HANG_SECONDS) for replicas in shards.replicas]


def _until_free(gpus: int) -> None:
    import ray

    until(lambda: ray.available_resources().get("GPU", 0) == gpus)


def test_each_shard_has_a_gpu_of_its_own(two_gpus: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    starter = ShardStarter(config_from_dict({"device": "auto"}), ("index.search.nprobe=1",), 1)
    shards = _shards(tmp_path, None, "127.0.0.3")
    starter.start(shards)
    told = _told(shards)
    assert sorted(seen for _, _, seen, _ in told) == ["0", "1"]
    assert [first for first, *_ in told] == [0, 10]
    assert {settings for _, settings, *_ in told} == {("index.search.nprobe=1", "device.gpus=[0]")}
    assert {node for *_, node in told} == {two_gpus.node_id}
    _until_free(0)

    kept = _shards(tmp_path, None, "127.0.0.3")
    assert not starter.lacks_gpus(kept.listed, shards)
    starter.start(kept, shards)
    assert kept.replicas == shards.replicas, "the same shards keep their actors"
    other = ShardList(shards=tuple(one.model_copy(update={"folder": "new"}) for one in kept.listed.shards))
    assert starter.lacks_gpus(other, shards)
    monkeypatch.setattr(starting, "OPEN_SECONDS", 1.0)
    with pytest.raises(UnavailableError, match="2 actors with a GPU each found no place within 1 s"):
        starter.start(OpenShards(tmp_path, other, []))
    shards.close()
    del shards, kept
    gc.collect()
    _until_free(2)


def test_a_machine_that_is_away_holds_up_no_other(two_gpus: Any, tmp_path: Any) -> None:
    import ray

    shards = _shards(tmp_path, None, "127.0.0.9")
    starter = ShardStarter(config_from_dict({"device": "auto"}), (), 1)
    with pytest.raises(UnavailableError, match=r"shard 1 of 2 \(titles 10 to 19, on 127.0.0.9\) lies on machines"):
        starter.start(shards)
    shards.partial = True
    starter.start(shards)
    assert ray.get(shards.replicas[0][0].about.remote(), timeout=HANG_SECONDS)[2] in ("0", "1")
    shards.close()


def test_without_enough_gpus_shards_are_served_by_cpus(two_gpus: Any, tmp_path: Any) -> None:
    for device, nodes in (("auto", (None, None, None)), ("cpu", (None,))):
        shards = _shards(tmp_path, *nodes)
        ShardStarter(config_from_dict({"device": device}), (), 1).start(shards)
        assert {(settings, seen) for _, settings, seen, _ in _told(shards)} == {(("device.kind=cpu",), "")}
        shards.close()
