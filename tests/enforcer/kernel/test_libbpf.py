"""What the loader says when something cannot be loaded."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from enforcer.kernel import libbpf, steer
from enforcer.kernel.errors import Missing

pytestmark = pytest.mark.bpf


def test_an_object_that_was_not_built_is_said(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"nothing\.bpf\.o was not built"):
        libbpf.Object(tmp_path / "nothing.bpf.o")


def test_a_missing_library_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str, **_more: object) -> ctypes.CDLL:
        raise OSError("cannot open shared object file")

    monkeypatch.setattr(libbpf, "_lib", None)
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(Missing, match="apt install libbpf1"):
        libbpf.library()


def test_a_file_that_is_no_object_carries_libbpfs_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken.bpf.o"
    broken.write_bytes(b"\x7fELF nonsense")
    with pytest.raises(libbpf.BpfError, match=r"libbpf: elf: .* is not a proper ELF object"):
        libbpf.Object(broken)


def test_a_program_that_the_verifier_refuses_carries_its_words(tmp_path: Path) -> None:
    raw = bytearray(steer.OBJECT.read_bytes())
    at = raw.index(b"\x95\x00\x00\x00\x00\x00\x00\x00")  # exit
    raw[at] = 0xFF
    broken = tmp_path / "broken.bpf.o"
    broken.write_bytes(raw)
    opened = libbpf.Object(broken)
    with pytest.raises(libbpf.BpfError, match=r"libbpf: .*prog 'steer'"):
        opened.load()
    opened.close()


def test_nothing_is_pinned_where_nothing_is(tmp_path: Path) -> None:
    assert libbpf.get(Path("/sys/fs/bpf/holdfast-nothing-here")) is None
