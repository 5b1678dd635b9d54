"""Whether a GPU's driver is new enough for the CUDA that FAISS and torch bring along."""

from __future__ import annotations

import re
from importlib import metadata

LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""CUDA's major version and the driver branch that it needs (NVIDIA's CUDA Compatibility guide, minor versions)."""

TORCH_FOR_OLD_DRIVERS = "uv pip install --torch-backend cu126 --reinstall-package torch torch"
"""PyTorch's own builds for CUDA 12; what a plain pip install brings is for the newest CUDA.

They have code for older cards too, which the builds for the newest CUDA have dropped."""

NEWEST_TORCH = "pip install --upgrade --force-reinstall torch"
"""The build for the newest CUDA, which has code for the newest cards."""


def faiss_cuda(wheel: str) -> int | None:
    """Return the major version of CUDA that a FAISS wheel is built for; None where it needs none, or is not here."""
    try:
        required = metadata.requires(wheel) or ()
    except metadata.PackageNotFoundError:
        return None
    found = [re.match(r"nvidia-cuda-runtime(?:-cu(\d+))?\b[^\d]*(\d+)?", line) for line in required]
    versions = [int(one.group(1) or one.group(2)) for one in found if one and (one.group(1) or one.group(2))]
    return max(versions, default=None)


def too_old(driver: str, cuda: int) -> int | None:
    """Return the driver branch that ``cuda`` needs where ``driver``, such as 570.86.15, is older; else None."""
    least = LEAST_DRIVER.get(cuda)
    branch = re.match(r"\d+", driver)
    return least if least and branch and int(branch.group()) < least else None
