"""What `semrec memory` is asked: which index, of how many titles, for which devices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semrec_faiss.config.schema import Config, device_problems
from semrec_faiss.data.folder.layout import find_data_folder, open_vectors
from semrec_faiss.errors import ConfigError, UsageError
from semrec_faiss.index.hardware.device import Device, gpu_k_limit, out_of_k_limit
from semrec_faiss.measure.documents.fields import MOST

LARGEST = {"titles": 10**12, "dim": 2**20, "batch": 10**9, "k": 10**9, "limit_bytes": MOST}
"""Up to which sizes a prediction means anything."""


@dataclass(frozen=True)
class MemoryPlan:
    """What to predict.

    Attributes:
        config: index, device, and the dataset where titles and dim are not given.
        titles: how many; the dataset's by default.
        dim: dimensions of a vector; the dataset's by default.
        batch: queries searched at once.
        k: titles per query.
        limit_bytes: what the largest catalogue must fit; the machine's memory and the GPU's by default.
        float16: whether the titles come as float16; by default as the dataset's do, and made ones as float32.
    """

    config: Config
    titles: int | None = None
    dim: int | None = None
    batch: int = 10_000
    k: int = 10
    limit_bytes: int | None = None
    float16: bool = False

    def shape(self) -> tuple[int, int]:
        """Return titles and dim, each as given or else as the dataset has it.

        Raises:
            UsageError: there is neither a dataset nor both, or no machine holds the sizes.
            NotFoundError: the dataset does not exist.
        """
        titles, dim = self._given_or_found()
        asked = {"titles": titles, "dim": dim, "batch": self.batch, "k": self.k, "limit_bytes": self.limit_bytes or 0}
        for name, most in LARGEST.items():
            if asked[name] > most:
                raise UsageError(
                    f"{name} is {asked[name]:,}; sizes are predicted up to {most:,}", fix="give what a machine may hold"
                )
        return titles, dim

    def _given_or_found(self) -> tuple[int, int]:
        if self.titles is not None and self.dim is not None:
            return self.titles, self.dim
        folder = self.config.dataset.folder
        if folder is None:
            raise UsageError(
                "how many titles of what dimension is not said",
                fix="give --titles and --dim, or set dataset: in the config, or --dataset DIR",
            )
        vectors = open_vectors(find_data_folder(folder).media_vectors)
        return self.titles or int(vectors.shape[0]), self.dim or int(vectors.shape[1])

    @property
    def is_of_dataset(self) -> bool:
        """Whether the titles are the dataset's own, so that its users are asked about them."""
        return self.titles is None and self.dim is None

    def devices(self) -> dict[str, Device]:
        """Return the devices that the config may run on, whether this machine has them or not.

        Raises:
            ConfigError: the index does not run on the GPU that the config asks for.
        """
        wanted = self.config.device
        problems = device_problems(self.config.index, wanted.model_copy(update={"kind": "gpu"}))
        if wanted.kind == "gpu" and problems:
            raise ConfigError("; ".join(problems))
        devices = {} if wanted.kind == "gpu" else {"cpu": Device()}
        if wanted.kind != "cpu" and not problems:
            devices["gpu"] = Device(wanted.gpus, wanted.float16, wanted.temp_memory_mb, wanted.layout, wanted.originals)
        return devices

    def check_k(self, titles: int) -> None:
        """Refuse a k that a search of so many titles on a GPU refuses: what it would take is not what anything takes.

        Raises:
            UsageError: it is.
        """
        index = self.config.index
        limit = gpu_k_limit(index, titles)
        if limit is not None and self.k > limit:
            raise UsageError(
                f"k is {self.k}, over type {index.type}'s limit of {limit} on a GPU", fix=out_of_k_limit(index)
            )

    def came_as_float16(self) -> bool:
        """Tell whether the titles come as float16: as it is said, or else as the dataset has them."""
        if self.float16:
            return True
        folder = self.config.dataset.folder
        if folder is None or (self.titles is not None and self.dim is not None):
            return False
        return bool(open_vectors(find_data_folder(folder).media_vectors).dtype == np.float16)
