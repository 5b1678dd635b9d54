"""What `semrec compare` predicts of an index before it measures it."""

from __future__ import annotations

from pathlib import Path

import pytest

from semrec_faiss.config.reading import config_from_dict
from semrec_faiss.data.synthetic.titles import FloatName
from semrec_faiss.data.synthetic.write import write_synthetic
from semrec_faiss.index.build.run import build_index
from semrec_faiss.index.fused.room import Kept, title_bytes
from semrec_faiss.index.hardware import gpu_memory
from semrec_faiss.index.hardware.device import Device
from semrec_faiss.index.hardware.gpu_memory import GpuState
from semrec_faiss.index.saved.saved_index import SavedIndex
from semrec_faiss.measure.guide.memory import _predicted
from tests.index.fused.worlds import needs_kernels

PAGE_BYTES = 2 << 20
"""In which a GPU gives memory."""


@needs_kernels
@pytest.mark.parametrize(
    ("dtype", "total", "kept"),
    [("float16", 1 << 40, "halves"), ("float32", 1 << 40, "gpu"), ("float32", 1 << 20, "host")],
)
def test_titles_are_predicted_as_type_fused_keeps_them(
    dtype: FloatName, total: int, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they came, and with originals on the host where a GPU has no room for them."""
    monkeypatch.setattr(gpu_memory, "all_gpu_states", lambda: [GpuState(0, "NVIDIA Card", "580.1", total, 0)])
    write_synthetic(tmp_path / "data", titles=20_000, users=0, dim=64, seed=7, media_dtype=dtype)
    values = {"dataset": str(tmp_path / "data"), "output": str(tmp_path / "index"), "index": {"type": "fused"}}
    build_index(config_from_dict({**values, "device": "cpu"}))
    saved = SavedIndex(tmp_path / "index", ["device.kind=cpu"])
    ((batch, its),) = _predicted(saved, Device(gpus=(0,)), [100], 10)
    assert batch == 100
    assert its.vectors == -(-title_bytes(20_000, 64, kept) // PAGE_BYTES) * PAGE_BYTES
