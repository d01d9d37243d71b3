"""The records shared with bpf/events.h, compared with what the compiler made of it and with its text."""

from __future__ import annotations

import ctypes
import re
import struct
from pathlib import Path

import pytest

from enforcer.kernel.errors import KernelError
from enforcer.kernel.records import object_layouts, python_layout
from enforcer.taps import records, sources
from enforcer.taps.loading import OBJECTS

BPF = Path(__file__).parent.parent.parent.parent / "bpf"
HEADER = (BPF / "events.h").read_text("utf-8")
built = pytest.mark.skipif(not (OBJECTS / "tls.bpf.o").exists(), reason="bpf/ is not compiled (make -C bpf)")


@built
@pytest.mark.parametrize("name", records.RECORDS)
def test_python_and_c_agree_about_every_member(name: str) -> None:
    path = OBJECTS / ("tap.bpf.o" if name in records.TAP_RECORDS else "tls.bpf.o")
    assert object_layouts(path)[name] == python_layout(records.RECORDS[name])


@built
def test_a_record_that_differs_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(ctypes.Structure):
        _fields_ = (("capture_bytes", ctypes.c_uint64),)

    monkeypatch.setitem(records.TAP_RECORDS, "tap_settings", Other)
    with pytest.raises(KernelError, match="'tap_settings' is laid out differently"):
        records.check(OBJECTS / "tap.bpf.o")


@pytest.mark.parametrize(
    "theirs, ours, prefix",
    [("record_kind", {each.name: each.value for each in records.Kind}, "RECORD_"), ("counter", {each.name: each.value for each in records.Counter}, "")],
)
def test_numbers_are_those_of_the_header(theirs: str, ours: dict[str, int], prefix: str) -> None:
    body = re.search(rf"enum {theirs} {{(.*?)}};", HEADER, re.S)
    assert body is not None
    found = {name.removeprefix(prefix).removeprefix("COUNT_"): int(value) for name, value in re.findall(r"(\w+) = (\d+),", body[1])}
    assert ours.items() <= found.items()
    assert found.get("COUNTERS", records.COUNTERS) == records.COUNTERS


def test_formats_cover_the_records_exactly() -> None:
    assert records.TCP.size == ctypes.sizeof(records.TcpRecord)
    assert records.TLS.size == ctypes.sizeof(records.TlsRecord)
    raw = records.TlsRecord(kind=4, thread=9, pid=7, netns=8, number=3, sequence=5, total=6, captured_bytes=2)
    kind, _way, _detail, thread, _time, about, sequence, _offset, total, _missing, captured = records.TLS.unpack(bytes(raw))
    assert (kind, thread, sequence, total, captured) == (4, 9, 5, 6, 2)
    assert records.TLS_OBJECT.unpack(about)[:2] == struct.unpack("=II", struct.pack("=II", 7, 8)) and records.TLS_OBJECT.unpack(about)[5] == 3


@pytest.mark.parametrize("source", ["tap", "tls"])
def test_programs_and_maps_are_those_of_the_source(source: sources.Source) -> None:
    text = (BPF / f"{source}.bpf.c").read_text("utf-8")
    assert re.findall(r"^SEC\(.*\)\nint (\w+)\(", text, re.M) == list(sources.PROGRAMS[source])
    assert re.findall(r"^DECLARE_(?:MAP|RING)\((\w+),", text, re.M) == list(sources.MAPS[source])
