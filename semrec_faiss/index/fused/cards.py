"""Which GPUs type fused runs on."""

from __future__ import annotations

from typing import Any

from semrec_faiss.errors import DeviceError
from semrec_faiss.index.fused.plan import LEAST_CAPABILITY


def check_card(torch: Any, device: Any) -> None:
    """Raise DeviceError for a GPU that is too old for the kernels."""
    if device.type != "cuda":  # Triton's interpreter
        return
    found = torch.cuda.get_device_properties(device)
    if (found.major, found.minor) < LEAST_CAPABILITY:
        raise DeviceError(
            f"type fused needs a GPU of compute capability {'.'.join(map(str, LEAST_CAPABILITY))} or later;"
            f" {found.name} has {found.major}.{found.minor}",
            fix="take type flat, or set device.kind=cpu",
        )
