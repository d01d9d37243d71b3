"""The log's files, as bytes: names, header lines, framed entries, notes. Writer and checker meet here and nowhere else.

A segment is `entries-N`, N the number of its first entry in 16 digits. Its first line is a header, canonical JSON: the log's size there and
the tree's right edge, so that a writer starting anew need not read what came before. Every further line is one entry:

    base64(leaf hash) SP canonical JSON LF

The leaf hash names the very entry that was altered, and tells a torn record from a whole one; the proof of anything is the tree.
"""

from __future__ import annotations

import binascii
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from escrow.evidence.note import LINES, NoteError, Signed
from escrow.evidence.tree import Frontier, leaf_hash

CHECKPOINTS = "checkpoints"
MAX_LINE = 16 << 20
"""Bytes. Beyond what the bounds of `escrow.evidence.entry` allow, so that reading takes no more memory whatever stands in a file."""

MAX_NOTE = 1024
_base64 = binascii.b2a_base64
_FORM = "holdfast evidence 1"
_SEGMENT = re.compile(r"entries-([0-9]{16})")


class Malformed(Exception):
    """A line that is not what stands there in a log. `str()` says why, without quoting it."""


class Torn(Malformed):
    """The file ends within a line."""


@dataclass(frozen=True, slots=True)
class Segment:
    """first: the number of its first entry. size: bytes to read; what is appended later is left for the next time."""

    first: int
    path: Path
    size: int


def folder_of(state_dir: Path) -> Path:
    return state_dir / "evidence"


def segment_name(first: int) -> str:
    return f"entries-{first:016d}"


def segments(folder: Path) -> tuple[list[Segment], list[str]]:
    """The segments in order, and the names of files that do not belong to a log. Raises OSError.

    Listed twice: one listing may have a segment that began while it went on, and not the one before it (readdir(3)). All up to the first one's last
    were there before the second began.
    """
    found, strange = [], []
    last = max((int(match[1]) for name in os.listdir(folder) if (match := _SEGMENT.fullmatch(name))), default=0)
    for path in sorted(folder.iterdir()):
        match = _SEGMENT.fullmatch(path.name)
        if match is not None and int(match[1]) > last:
            continue
        if match is not None and path.is_file() and not path.is_symlink():
            found.append(Segment(int(match[1]), path, path.stat().st_size))
        elif path.name != CHECKPOINTS or path.is_symlink() or not path.is_file():
            strange.append(path.name)
    return found, strange


def header(tree: Frontier) -> bytes:
    """The first line of a segment that begins at this size."""
    nodes = [binascii.b2a_base64(node, newline=False).decode() for node in tree.nodes]
    return json.dumps({"frontier": nodes, "log": _FORM, "size": tree.size}, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def parse_header(line: bytes) -> Frontier:
    """Raises Malformed unless writing it again gives exactly these bytes."""
    _whole(line)
    try:
        value = json.loads(line)
        tree = Frontier(value["size"], [binascii.a2b_base64(node) for node in value["frontier"]])
        if type(tree.size) is not int or tree.size < 0 or any(len(node) != 32 for node in tree.nodes) or header(tree) != line:
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Malformed("it is not a segment's header") from None
    return tree


def frame(leaf: bytes, entry: bytes) -> bytes:
    """An entry's line."""
    return b"%b %b\n" % (_base64(leaf, newline=False), entry)


def parse_frame(line: bytes) -> tuple[bytes, bytes]:
    """A line's leaf hash and entry. Raises Malformed (Torn) unless the hash is the entry's, and framing it again gives exactly these bytes."""
    _whole(line)
    _, _, entry = line[:-1].partition(b" ")
    leaf = leaf_hash(entry)
    if frame(leaf, entry) != line:
        raise Malformed("it is not what it was when it was written: its hash differs")
    return leaf, entry


def _whole(line: bytes) -> None:
    if not line.endswith(b"\n"):
        raise Malformed(f"it is longer than {MAX_LINE} bytes") if len(line) >= MAX_LINE else Torn("the file ends within it")


def lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    """A file's lines from where it stands, up to `size` bytes from its start; the last may lack its end. Raises OSError."""
    left = size - file.tell()
    while left > 0 and (line := file.readline(min(left, MAX_LINE))):
        left -= len(line)
        yield line


def notes(file: BinaryIO, size: int) -> Iterator[Signed]:
    """A file's checkpoints, in order. Raises Malformed (Torn) in the place of one that is none, OSError."""
    left = size
    while left > 0:
        text = b"".join(file.readline(min(left, MAX_NOTE)) for _ in range(LINES))[:left]
        left -= len(text)
        if text.count(b"\n") < LINES:
            raise Malformed("it is not of a checkpoint's form") if left > 0 else Torn("the file ends within a checkpoint")
        try:
            yield Signed.parse(text.decode())
        except (NoteError, UnicodeDecodeError) as error:
            raise Malformed(str(error) if isinstance(error, NoteError) else "it is no UTF-8") from None
