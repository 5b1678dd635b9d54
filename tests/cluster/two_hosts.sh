#!/usr/bin/env bash
# Two hosts that share a wire and this disk: network namespaces with addresses of their own, a Ray node in each, an index
# in two shards across them, asked and listed, and then one host lost. Needs root; ends by itself within LIMIT seconds.
#
#   sudo tests/cluster/two_hosts.sh [PYTHON]
set -euo pipefail
PYTHON=${1:-python3}; LIMIT=${LIMIT:-300}; HERE=$(cd "$(dirname "$0")/../.." && pwd)
[ "${INSIDE:-}" ] || INSIDE=1 exec timeout -k 20 "$LIMIT" "$0" "$PYTHON"
A=semrec-a B=semrec-b
scratch=$(mktemp -d)

clean() {
  for space in $A $B; do
    for pid in $(ip netns pids $space 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
    ip netns del $space 2>/dev/null || true
  done
  rm -rf "$scratch"
}
trap clean EXIT
clean; mkdir -p "$scratch"
ip netns add $A; ip netns add $B
ip link add semrec0 netns $A type veth peer name semrec0 netns $B
ip -n $A addr add 10.77.0.1/24 dev semrec0; ip -n $B addr add 10.77.0.2/24 dev semrec0
for space in $A $B; do ip -n $space link set lo up; ip -n $space link set semrec0 up; done

at() { space=$1; shift; ip netns exec "$space" env PYTHONPATH="$HERE:$HERE/tests" RAY_DISABLE_IMPORT_WARNING=1 "$@"; }
ray() { space=$1; shift; at "$space" "$PYTHON" -c 'import sys; from ray.scripts.scripts import main; sys.argv[0] = "ray"; main()' "$@"; }
node=(--num-cpus 2 --object-store-memory 100000000 --disable-usage-stats)
ray $A start --head --node-ip-address 10.77.0.1 --port 6379 --include-dashboard false --temp-dir "$scratch/ray" "${node[@]}" >/dev/null
ray $B start --address 10.77.0.1:6379 --node-ip-address 10.77.0.2 "${node[@]}" >/dev/null

at $A "$PYTHON" - "$scratch" <<'PY'
import subprocess, sys, time
from pathlib import Path

import ray

from conftest import make_data_folder
from semrec_faiss import Recommender
from semrec_faiss.cluster.publish.building import build_shards
from semrec_faiss.cluster.workers.lists import recommend_all
from semrec_faiss.cluster.recommender import ClusterRecommender
from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.index.build.run import build_index

root = Path(sys.argv[1])
made = make_data_folder(root / "data", titles=3000, dim=64, users=200)
config = {"dataset": str(made.root), "index": {"type": "flat"}, "device": {"kind": "cpu"}}
build_index(config_from_dict(config | {"output": str(root / "whole")}))
ray.init(address="10.77.0.1:6379", log_to_driver=False, logging_level="ERROR")
hosts = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
assert hosts == ["10.77.0.1", "10.77.0.2"], hosts
build_shards(config_from_dict(config | {"output": str(root / "sharded")}), 2)
whole = Recommender.open(root / "whole")
with ClusterRecommender.open(root / "sharded", replicas=2) as sharded:
    assert len({one.node for one in sharded.shards.opened()}) == 2, "a shard on each host"
    expected = whole.recommend(made.user_ids, 10)

    def ask():
        started = time.perf_counter()
        found = sharded.recommend(made.user_ids, 10)
        assert (found.rows == expected.rows).all() and (found.scores == expected.scores).all()
        return (time.perf_counter() - started) * 1e3

    print(f"200 users from two hosts: {min(ask() for _ in range(5)):.1f} ms, the answers of one process")
    print(recommend_all(root / "sharded", root / "lists", 10, workers=2).as_dict())
    subprocess.run(["ip", "-n", "semrec-b", "link", "set", "semrec0", "down"], check=True)
    print(f"the wire cut: {ask():.0f} ms until the other host's replicas had answered for it, the same answers")
PY
echo "two hosts: all well"
