"""Cards that type fused does not run on are refused before anything is copied to them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from semrec_faiss.errors import DeviceError
from semrec_faiss.index.fused.cards import check_card


def torch_with(major: int, minor: int) -> Any:
    card = SimpleNamespace(major=major, minor=minor, name="NVIDIA Card")
    return SimpleNamespace(cuda=SimpleNamespace(get_device_properties=lambda _: card))


@pytest.mark.parametrize(("major", "minor"), [(6, 1), (7, 0), (7, 5)])
def test_a_card_that_is_too_old_is_refused(major: int, minor: int) -> None:
    with pytest.raises(DeviceError, match=rf"capability 8\.0 or later; NVIDIA Card has {major}\.{minor}") as caught:
        check_card(torch_with(major, minor), SimpleNamespace(type="cuda"))
    assert caught.value.fix == "take type flat, or set device.kind=cpu"


@pytest.mark.parametrize(("major", "minor"), [(8, 0), (8, 6), (9, 0), (12, 0)])
def test_others_are_not(major: int, minor: int) -> None:
    check_card(torch_with(major, minor), SimpleNamespace(type="cuda"))
