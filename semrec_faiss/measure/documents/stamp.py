"""The stamp of a results file as a model: when, with what and on what it was measured."""

from __future__ import annotations

from pydantic import JsonValue

from semrec_faiss.measure.documents.fields import AtLeastOne, Count, Part


class Git(Part):
    """The checkout that measured."""

    commit: str | None
    dirty: bool | None


class Cpu(Part):
    """The processor that measured."""

    model: str | None
    cores: AtLeastOne | None = None
    usable_cores: AtLeastOne | None


class Gpu(Part):
    """A GPU of the machine that measured."""

    name: str
    driver: str | None
    memory_bytes: Count | None = None


class Blas(Part):
    """What a library multiplies matrices with."""

    name: str
    version: str | None
    architecture: str | None
    by_itself: str | None = None


class Stamp(Part):
    """What `environment.environment` tells, as far as reports show it."""

    date: str
    command: str
    git: Git | None
    versions: dict[str, str | None]
    os: str
    cpu: Cpu
    memory_bytes: Count | None = None
    faiss_threads: AtLeastOne | None
    blas: dict[str, Blas | None] | None = None
    gpus: list[Gpu]

    def of_a_record(self) -> dict[str, JsonValue]:
        """Return what the records of trials hold of it."""
        told = self.as_json()
        names = ("date", "git", "versions", "cpu", "gpus", "faiss_threads", "blas")
        return {name: told[name] for name in names if name in told}
