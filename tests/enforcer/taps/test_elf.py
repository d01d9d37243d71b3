"""Symbols of ELF files: right ones found, hostile ones refused in bounded time."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.taps import elf, target
from enforcer.taps.target import TlsKind

LIBSSL = Path("/usr/lib/x86_64-linux-gnu/libssl.so.3")
needs_libssl = pytest.mark.skipif(not LIBSSL.exists(), reason="libssl.so.3 of x86-64 is not installed")


def reading(content: bytes) -> elf.Read:
    return lambda at, size: content[at : at + size]


def inspected(path: Path) -> target.Found:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return target.inspect(fd, True)
    finally:
        os.close(fd)


@needs_libssl
def test_offsets_are_those_of_readelf() -> None:
    listed = subprocess.run(["readelf", "-W", "--dyn-syms", LIBSSL], capture_output=True, text=True, check=True, timeout=20).stdout
    theirs = {fields[7].split("@")[0]: int(fields[1], 16) for line in listed.splitlines() if len(fields := line.split()) > 7 and fields[3] == "FUNC"}
    found = elf.functions(reading(LIBSSL.read_bytes()), target.HOOKED)
    assert len(found) == 13
    assert {name: theirs[name] for name in found} == found  # its text is mapped where it lies


@needs_libssl
def test_a_file_without_section_headers_is_read_by_its_dynamic_section() -> None:
    content = bytearray(LIBSSL.read_bytes())
    content[0x28:0x30] = bytes(8)
    content[0x3C:0x40] = bytes(4)
    assert "SSL_write_ex" in elf.functions(reading(bytes(content)), target.HOOKED)


@needs_libssl
@settings(max_examples=60, deadline=2000)
@given(st.integers(0, 2**32), st.integers(1, 64))
def test_broken_files_are_refused_or_read_but_never_trusted(seed: int, changes: int) -> None:
    content, chance = bytearray(_content()), random.Random(seed)
    for _ in range(changes):  # mostly where the headers and tables are
        at = chance.randrange(min(len(content), chance.choice([64, 1024, 70_000, len(content)])))
        content[at] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
    if chance.random() < 0.3:
        del content[chance.randrange(len(content)) :]
    begun = time.monotonic()
    try:
        found = elf.functions(reading(bytes(content)), target.HOOKED)
    except elf.NotElf:
        found = {}
    assert all(0 <= offset < 1 << 62 for offset in found.values())
    assert time.monotonic() - begun < 2


_kept: list[bytes] = []


def _content() -> bytes:
    if not _kept:
        _kept.append(LIBSSL.read_bytes())
    return _kept[0]


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_read(content: bytes) -> None:
    for head in (b"", b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\0"):
        try:
            assert elf.functions(reading(head + content), target.HOOKED) == {}
        except elf.NotElf as error:
            assert str(error).startswith("it")


def test_what_is_no_program_is_said(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("#!/bin/sh\n")
    assert inspected(tmp_path / "text") == target.Found(TlsKind.NOTHING, {}, "it is no ELF file")
    os.mkfifo(tmp_path / "pipe")
    assert inspected(tmp_path / "pipe").kind is TlsKind.NOTHING  # and does not block


@needs_libssl
def test_kinds_are_told_apart(tmp_path: Path) -> None:
    assert inspected(LIBSSL).kind is TlsKind.OPENSSL
    for name, kind in (("libcrypto.so.3", TlsKind.LIBCRYPTO), ("libgnutls.so.30", TlsKind.GNUTLS), ("libssl3.so", TlsKind.NSS)):
        if LIBSSL.with_name(name).exists():
            assert inspected(LIBSSL.with_name(name)).kind is kind
    source = tmp_path / "main.c"
    for words, kind in (("/registry/src/rustls-0.23.1/src/lib.rs", TlsKind.RUSTLS), ("../boringssl/src/ssl/ssl_lib.cc", TlsKind.BORINGSSL_STRIPPED)):
        source.write_text(f'const char *kept = "{words}"; int main(void) {{ return kept[0] == 0; }}')
        if shutil.which("gcc"):
            subprocess.run(["gcc", "-s", source, "-o", tmp_path / "program"], check=True, timeout=20)
            assert inspected(tmp_path / "program").kind is kind
    source.write_text('__attribute__((section(".go.buildinfo"))) int go = 1; int main(void) { return 0; }')
    if shutil.which("gcc"):
        subprocess.run(["gcc", source, "-o", tmp_path / "program"], check=True, timeout=20)
        assert inspected(tmp_path / "program").kind is TlsKind.GO
