"""What a service is told: a YAML file, flags, or both, with the mistakes' messages of every config."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from semrec_faiss.config.index_types import Settings
from semrec_faiss.config.paths import LocalPath
from semrec_faiss.config.reading import read_source, validated
from semrec_faiss.errors import UsageError, quoted

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1 << 30, strict=True)]


_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?")
_LEFT_OUT = {"http": "80", "https": "443"}
"""Ports that browsers leave out."""


def _is_origin(text: str) -> str:
    found = _ORIGIN.fullmatch(text)
    is_one = found and found[2] != _LEFT_OUT.get(found[1], "") and int(found[2] or 0) < 1 << 16
    if not is_one and text != "*":
        raise ValueError(
            f"{quoted(text)} is no origin as browsers name them, such as https://shop.example: in small letters, other"
            " alphabets as xn--…, and without a path, :443, :80 and parts left open; '*' is every one"
        )
    return text


Origin = Annotated[str, AfterValidator(_is_origin)]


class Limits(Settings):
    """What one request may ask for, and how many may wait.

    Attributes:
        max_results: titles in all answers to one request, queries × k: written in a quarter of the time that it has.
    """

    max_k: Count = 1000
    max_queries: Count = 1000
    max_results: Count = 250_000
    max_body_mb: Count = 16
    max_waiting: Count = 1000
    deadline_ms: Annotated[float, Field(gt=0, le=3_600_000, allow_inf_nan=False)] = 10_000


class ServeConfig(Settings):
    """Everything that `semrec serve` takes.

    Attributes:
        index: the index directory.
        settings: search and device settings of this service, such as ``index.search.nprobe=32``.
        host, port: where to listen; port 0 takes a free one.
        keys: a file of API keys; without one only this machine may ask.
        cors: origins whose pages may ask.
        tls_certificate, tls_key: PEM files; without them plain HTTP.
        limits: see `Limits`.
        watch_seconds: between two looks at whether a new generation was published; 0 never looks.
        grace_seconds: how long a shutdown waits for requests that were accepted.
        threads: for what is not one plain search: filters, texts, explanations.
        access_log: write a line of JSON a request to stderr.
        log_level: of everything else.
        ray: the cluster that answers for an index in shards; None for an index of one piece.
        replicas: actors per shard; where one is lost, another answers.
        partial: answer without a shard that is lost, and say in every answer what share of the titles it saw.
        workers: processes that answer at the same address; what they read of the index is mapped, and shared.
        owner: whether one more process owns the device and searches for all workers; ``auto``: where it is a GPU.
        fixed_body: bytes of a reply at ``/fixed`` that is always the same, for a benchmark; 0: no such path.
    """

    index: LocalPath
    settings: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535, strict=True)] = 8080
    keys: LocalPath | None = None
    cors: tuple[Origin, ...] = ()
    tls_certificate: LocalPath | None = None
    tls_key: LocalPath | None = None
    limits: Limits = Limits()
    watch_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 1.0
    grace_seconds: Seconds = 20.0
    threads: Annotated[int, Field(ge=1, le=1024, strict=True)] = 16
    access_log: Annotated[bool, Field(strict=True)] = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    ray: str | None = None
    replicas: Annotated[int, Field(ge=1, le=100, strict=True)] = 1
    partial: Annotated[bool, Field(strict=True)] = False
    workers: Annotated[int, Field(ge=1, le=256, strict=True)] = 1
    owner: Literal["auto", "always", "never"] = "auto"
    fixed_body: Annotated[int, Field(ge=0, le=1 << 24, strict=True)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> ServeConfig:
        if self.ray is None and (self.partial or self.replicas > 1):
            raise ValueError("partial and replicas are of shards that a cluster serves, which ray names")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.ray is not None and self.workers > 1:
            raise ValueError("workers goes without ray, whose shards answer from other processes already")
        if self.keys is None and not self.is_loopback:
            raise ValueError(
                f"host {self.host} lets other machines ask, which needs keys: `semrec serve keys add NAME --keys FILE`,"
                " then --keys FILE, or keys: FILE in the config"
            )
        if "*" in self.cors and self.keys is None:
            raise ValueError("cors '*' lets every page in a browser ask, which needs keys")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_settings(path: Path | None, flags: Mapping[str, Any], overrides: Sequence[str] = ()) -> ServeConfig:
    """Read a YAML file and put flags over it.

    Args:
        path: the file; None takes every key's default.
        flags: values by key, where given; ``limits`` of theirs are merged into the file's.
        overrides: each ``KEY.KEY=VALUE``, the value as YAML.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: mistakes; all of them are listed, with file and line.
        UsageError: no index is named, or an override is not of the form KEY=VALUE.
    """
    source = read_source(path, overrides, ("limits",))
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    if source.values.get("limits") is None:
        source.values.pop("limits", None)
    for name, value in given.items():
        if name not in Limits.model_fields:
            source.put(name, value)
        elif isinstance(source.values.get("limits", {}), dict):  # else it is the file's mistake
            source.put(name, value, within="limits")
    if "index" not in source.values:
        raise UsageError("no index is named", fix="semrec serve INDEX, or index: in the file that --config names")
    return validated(ServeConfig, source)
