"""Checkpoints in the form of C2SP tlog-checkpoint, as signed notes (C2SP signed-note) with Ed25519 signatures.

Pure: a signature comes in as bytes, whether it holds is for whoever has the key (`enforcer.evidence.keys`).

    holdfast/port-8931/5f1c0a9e
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — holdfast/port-8931/5f1c0a9e Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass

LINES = 5
"""Lines of a note with one signature: origin, size, root, an empty one, the signature."""

_ED25519 = b"\x01"  # signed-note, "Signature types"
_SIZE = re.compile(r"(?:0|[1-9][0-9]{0,15})")
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,200}")  # no Unicode space, no plus
_DASH = "\u2014 "


class NoteError(ValueError):
    """Text that is no checkpoint or key of this form. `str()` says why, without quoting it."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key as people keep it: `name+key id+base64(0x01 || 32 bytes)`, as the Go checksum database writes them."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The first four bytes of SHA-256(name || 0x0A || 0x01 || public key)."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> Verifier:
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        key = _unbase64(encoded)
        if key is None or len(key) != 33 or not _NAME.fullmatch(name):
            raise NoteError("it is no public key of the form name+id+base64")
        if key[:1] != _ED25519:
            raise NoteError("it is no Ed25519 key")
        found = cls(name, key[1:])
        if found.key_id.hex() != key_id:
            raise NoteError("the key's id does not belong to it: a character is wrong")
        return found


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's size and root, as it once stood. origin: which log."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint with its signature by the key with this id."""

    checkpoint: Checkpoint
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        """The note, ready to be written or sent."""
        encoded = base64.b64encode(self.key_id + self.signature).decode()
        return f"{self.checkpoint.text}\n{_DASH}{self.checkpoint.origin} {encoded}\n"

    @classmethod
    def parse(cls, text: str) -> Signed:
        """Read one note with one signature. Raises NoteError unless writing it again gives exactly this text."""
        lines = text.split("\n")
        if len(lines) != LINES + 1 or lines[3] or lines[5]:
            raise NoteError("it has not the five lines of a checkpoint")
        origin, size, root_text, _, signed, _ = lines
        root, prefix = _unbase64(root_text), f"{_DASH}{origin} "
        signature = _unbase64(signed[len(prefix) :]) if signed.startswith(prefix) else None
        if not _NAME.fullmatch(origin) or not _SIZE.fullmatch(size) or root is None or len(root) != 32 or signature is None or len(signature) != 68:
            raise NoteError("it is not of a checkpoint's form")
        found = cls(Checkpoint(origin, int(size), root), signature[:4], signature[4:])
        if str(found) != text:
            raise NoteError("it does not encode to the same bytes again")
        return found


def origin_for(server: str, suffix: str) -> str:
    """The origin line of a log: `holdfast/<server>/<suffix>`; what a key's name may not hold is replaced."""
    return f"holdfast/{''.join(char if char.isascii() and (char.isalnum() or char in '._:-') else '_' for char in server[:64]) or '_'}/{suffix}"


def find_notes(text: str, origin: str) -> list[Signed]:
    """Every checkpoint of this log in a text that may hold other lines too: as they are, or as the daemon writes them to its standard error,
    `{"event": "checkpoint", "checkpoint": …}` on a line, whatever a journal puts before. Further signatures on a note are passed over.

    Raises NoteError for what looks like one and is none.
    """
    lines = [part for line in text.split("\n") for part in _unwrapped(line).split("\n")]
    found = []
    for at, line in enumerate(lines):
        if line != origin or at + LINES > len(lines) or lines[at + 3] or not lines[at + 4].startswith(_DASH):
            continue
        signatures = []
        for signed in lines[at + 4 :]:
            if not signed.startswith(_DASH):
                break
            signatures.append(signed)
        own = [signed for signed in signatures if signed.startswith(f"{_DASH}{origin} ")]
        if not own:
            raise NoteError("a checkpoint has no signature by its log")
        found.append(Signed.parse("\n".join([*lines[at : at + 4], own[0], ""])))
    return found


def _unwrapped(line: str) -> str:
    """The checkpoint that a line of the daemon's holds; any other line as it is."""
    if '"checkpoint"' not in line:
        return line
    try:
        value, _ = json.JSONDecoder().raw_decode(line, line.index("{"))
    except (ValueError, RecursionError):
        return line
    note = value.get("checkpoint")
    return note if isinstance(note, str) else line


def _unbase64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return None
