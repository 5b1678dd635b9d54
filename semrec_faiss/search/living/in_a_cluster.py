"""Indexes in shards, which a room above this one opens."""

from __future__ import annotations

from importlib import import_module
from typing import Any

IN_A_CLUSTER = "ray://"
"""What addresses of indexes in shards begin with, which questions take and commands that change one don't."""

CLUSTER_RECOMMENDER = ("semrec_faiss.cluster.recommender", "ClusterRecommender")
"""What opens them."""


def cluster_recommender() -> Any:
    """Return the Recommender of indexes in shards; by its name, as a plug-in: its room stands on this one."""
    module, name = CLUSTER_RECOMMENDER
    return getattr(import_module(module), name)
