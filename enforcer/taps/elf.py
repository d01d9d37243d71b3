"""Where functions lie in an ELF file, by name. The file belongs to whoever is watched: every number in it is hostile.

Reads little: headers, the dynamic section, and of the symbol table only what the GNU hash leads to (a program may export 50,000). Where
there is no hash, the tables are walked up to a bound. Nothing is believed but by its bytes being there: each read is bounded by the file
and by `_MOST_BYTES`, each walk by a count. Formats: System V ABI (gABI) chapters 4 and 5; the GNU hash as glibc's dl-lookup.c reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

Read = Callable[[int, int], bytes]
"""Offset and length → at most so many bytes of the file (os.pread)."""

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_DYN = struct.Struct("<QQ")

_PT_LOAD, _PT_DYNAMIC, _PF_X = 1, 2, 1
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_GNU_HASH = 4, 5, 6, 10, 0x6FFFFEF5
_SHT_SYMTAB, _SHT_DYNSYM = 2, 11
_STT_FUNC = 2

_MOST_HEADERS = 256
_MOST_DYNAMIC = 512
_MOST_CHAIN = 4096
_MOST_SYMBOLS = 1 << 19
_MOST_BYTES = 48 << 20


class NotElf(Exception):
    """Not a 64-bit little-endian ELF file of a program or library, or broken: why, in our words."""


@dataclass(frozen=True, slots=True)
class Segment:
    kind: int
    flags: int
    offset: int
    address: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Elf:
    """sections: names, as far as the file has them."""

    segments: tuple[Segment, ...]
    sections: frozenset[str]


def _exactly(read: Read, at: int, size: int) -> bytes:
    if size > _MOST_BYTES or at < 0 or at >= 1 << 62:
        raise NotElf("a table is larger than is read of one")
    data = read(at, size)
    if len(data) != size:
        raise NotElf("it ends inside a table")
    return data


def headers(read: Read) -> tuple[Elf, int, int, int]:
    """The file's segments and sections, and where its section headers are: offset, count, index of their names."""
    raw = read(0, _EHDR.size)
    if len(raw) != _EHDR.size or raw[:4] != b"\x7fELF":
        raise NotElf("it is no ELF file")
    ident, kind, _machine, _version, _entry, segments_at, sections_at, *rest = _EHDR.unpack(raw)
    _flags, _size, segment_bytes, segments, section_bytes, sections, names = rest
    if ident[4] != 2 or ident[5] != 1 or kind not in (2, 3):
        raise NotElf("it is no 64-bit little-endian program or library")
    if segment_bytes != _PHDR.size or segments > _MOST_HEADERS:
        raise NotElf("its program headers are not readable")
    table = _exactly(read, segments_at, segments * _PHDR.size)
    found = tuple(Segment(p[0], p[1], p[2], p[3], p[5]) for p in _PHDR.iter_unpack(table))
    if section_bytes != _SHDR.size or sections > _MOST_HEADERS:
        sections = 0  # stripped of them, or nonsense: the dynamic section does without
    return Elf(found, frozenset(_section_names(read, sections_at, sections, names))), sections_at, sections, names


def _section_names(read: Read, at: int, count: int, names_index: int) -> Iterator[str]:
    if not count or names_index >= count:
        return
    try:
        entries = list(_SHDR.iter_unpack(_exactly(read, at, count * _SHDR.size)))
        names = _exactly(read, entries[names_index][4], min(entries[names_index][5], 1 << 16))
    except NotElf:
        return
    for entry in entries:
        end = names.find(b"\0", entry[0])
        if 0 <= entry[0] < end <= entry[0] + 64:
            yield names[entry[0] : end].decode("ascii", "replace")


def functions(read: Read, wanted: Iterable[str]) -> dict[str, int]:
    """File offset of each wanted function that the file defines, exported or in its full symbol table. Raises NotElf."""
    elf, sections_at, sections, _names = headers(read)
    names = {name.encode(): name for name in wanted}
    found = _dynamic(read, elf, names)
    missing = {raw: name for raw, name in names.items() if name not in found}
    if missing and sections:
        found |= _symbol_tables(read, sections_at, sections, missing)
    return {name: offset for name, address in found.items() if (offset := _offset(elf, address, executable=True)) is not None}


def _offset(elf: Elf, address: int, executable: bool = False) -> int | None:
    for segment in elf.segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.file_bytes:
            if not executable or segment.flags & _PF_X:
                return segment.offset + address - segment.address
    return None


def _dynamic(read: Read, elf: Elf, names: dict[bytes, str]) -> dict[str, int]:
    """Name → address, by the GNU hash of the dynamic section."""
    segment = next((each for each in elf.segments if each.kind == _PT_DYNAMIC), None)
    if segment is None:
        return {}
    size = min(segment.file_bytes, _MOST_DYNAMIC * _DYN.size) // _DYN.size * _DYN.size
    tags = dict(_DYN.iter_unpack(_exactly(read, segment.offset, size)))
    at = {tag: _offset(elf, tags[tag]) for tag in (_DT_GNU_HASH, _DT_SYMTAB, _DT_STRTAB) if tag in tags}
    hash_at, symbols_at, strings_at = (at.get(tag) for tag in (_DT_GNU_HASH, _DT_SYMTAB, _DT_STRTAB))
    if hash_at is None or symbols_at is None or strings_at is None:
        return {}
    buckets, first, bloom, _shift = struct.unpack("<4I", _exactly(read, hash_at, 16))
    if not buckets:
        return {}
    buckets_at = hash_at + 16 + 8 * bloom
    chains_at = buckets_at + 4 * buckets
    found = {}
    for raw, name in names.items():
        hashed = _gnu_hash(raw)
        begin = struct.unpack("<I", _exactly(read, buckets_at + 4 * (hashed % buckets), 4))[0]
        for index in range(begin, begin + _MOST_CHAIN) if begin >= first else ():
            link = struct.unpack("<I", _exactly(read, chains_at + 4 * (index - first), 4))[0]
            if link | 1 == hashed | 1:
                symbol = _SYM.unpack(_exactly(read, symbols_at + _SYM.size * index, _SYM.size))
                if read(strings_at + symbol[0], len(raw) + 1) == raw + b"\0" and _is_function(symbol[1], symbol[3]):
                    found[name] = symbol[4]
                    break
            if link & 1:
                break
    return found


def _symbol_tables(read: Read, at: int, count: int, names: dict[bytes, str]) -> dict[str, int]:
    """Name → address, by walking the tables that the sections name."""
    entries = list(_SHDR.iter_unpack(_exactly(read, at, count * _SHDR.size)))
    found: dict[str, int] = {}
    for entry in entries:
        if entry[1] not in (_SHT_SYMTAB, _SHT_DYNSYM) or entry[6] >= count or entry[5] // _SYM.size > _MOST_SYMBOLS:
            continue
        try:
            strings = _exactly(read, entries[entry[6]][4], entries[entry[6]][5])
            table = _exactly(read, entry[4], entry[5] // _SYM.size * _SYM.size)
        except NotElf:
            continue
        wanted = {where: name for raw, name in names.items() for where in _places(strings, raw)}
        for symbol in _SYM.iter_unpack(table):
            if symbol[0] in wanted and _is_function(symbol[1], symbol[3]):
                found[wanted[symbol[0]]] = symbol[4]
    return found


def _places(strings: bytes, name: bytes) -> Iterator[int]:
    """Where a name stands in a string table, as a whole entry or as the end of one."""
    at = strings.find(name + b"\0")
    for _ in range(16):
        if at < 0:
            return
        yield at
        at = strings.find(name + b"\0", at + 1)


def _is_function(info: int, section: int) -> bool:
    return info & 15 == _STT_FUNC and section != 0


def _gnu_hash(name: bytes) -> int:
    hashed = 5381
    for byte in name:
        hashed = (hashed * 33 + byte) & 0xFFFFFFFF
    return hashed
