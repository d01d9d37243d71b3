"""The records shared with the kernel side, compared with what the compiler made of bpf/steer.h."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from enforcer.kernel import records, steer
from enforcer.kernel.errors import KernelError

pytestmark = pytest.mark.skipif(not steer.OBJECT.exists(), reason="bpf/ is not compiled (make -C bpf)")


@pytest.mark.parametrize("name", records.RECORDS)
def test_python_and_c_agree_about_every_member(name: str) -> None:
    assert records.object_layouts(steer.OBJECT)[name] == records.python_layout(records.RECORDS[name])


def test_a_record_that_differs_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(ctypes.Structure):
        _fields_ = (("interface", ctypes.c_uint64), ("used", ctypes.c_uint32))

    monkeypatch.setitem(records.RECORDS, "exemption", Other)
    with pytest.raises(KernelError, match="'exemption' is laid out differently"):
        records.check(steer.OBJECT)


def test_an_object_without_btf_is_refused(tmp_path: Path) -> None:
    stripped = tmp_path / "steer.bpf.o"
    stripped.write_bytes(steer.OBJECT.read_bytes().replace(b".BTF\0", b".BTX\0"))
    with pytest.raises(KernelError, match=r"no \.BTF"):
        records.check(stripped)
