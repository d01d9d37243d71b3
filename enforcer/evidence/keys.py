"""The log's secrets: the Ed25519 key that signs checkpoints, and what salts are made from. Two files in STATE/keys, 0600.

The signing key is written as the Go checksum database's note package does (`PRIVATE+KEY+name+id+base64`), so that the log's name, which is
its origin line, cannot be parted from it.
"""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from enforcer.evidence.errors import EvidenceError
from escrow.evidence.note import Checkpoint, NoteError, Signed, Verifier, origin_for

_PREFIX = "PRIVATE+KEY+"
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Signer:
    """The private key. verifier: the public one, with the log's name."""

    verifier: Verifier
    private: Ed25519PrivateKey = field(repr=False)

    def sign(self, size: int, root: bytes) -> Signed:
        checkpoint = Checkpoint(self.verifier.name, size, root)
        return Signed(checkpoint, self.verifier.key_id, self.private.sign(checkpoint.text.encode()))


def holds(signed: Signed, verifier: Verifier) -> bool:
    """Whether this key signed this checkpoint, for this log."""
    if signed.key_id != verifier.key_id or signed.checkpoint.origin != verifier.name:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(verifier.public).verify(signed.signature, signed.checkpoint.text.encode())
    except InvalidSignature:
        return False
    return True


def key_file(state_dir: Path) -> Path:
    return state_dir / "keys" / "evidence.key"


def _secret_file(state_dir: Path) -> Path:
    return state_dir / "keys" / "evidence.salt"


def create(state_dir: Path, server: str) -> Signer:
    """New secrets for a new log. The signing key is written last: where it is, the other is too. Raises EvidenceError."""
    seed = secrets.token_bytes(32)
    signer = _signer(origin_for(server, secrets.token_hex(4)), seed)
    text = f"{_PREFIX}{signer.verifier.name}+{signer.verifier.key_id.hex()}+{base64.b64encode(bytes([1]) + seed).decode()}\n"
    try:
        folder = key_file(state_dir).parent
        folder.mkdir(mode=0o700, exist_ok=True)
        _write(_secret_file(state_dir), secrets.token_hex(_SECRET_BYTES) + "\n")
        _write(key_file(state_dir), text)
    except OSError as error:
        raise EvidenceError(f"the evidence key cannot be written: {error.strerror}") from None
    return signer


def load(state_dir: Path) -> Signer | None:
    """The log's signing key, None where there is none. Raises EvidenceError where it cannot be read or is damaged."""
    path = key_file(state_dir)
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise EvidenceError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not ASCII'}") from None
    name, _, rest = text.removeprefix(_PREFIX).partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        data = base64.b64decode(encoded, validate=True)
        signer = _signer(name, data[1:])
        if not text.startswith(_PREFIX) or data[:1] != b"\x01" or signer.verifier.key_id.hex() != key_id:
            raise ValueError
        Verifier.parse(str(signer.verifier))
    except ValueError:
        raise EvidenceError(f"{path} is damaged: restore it from a copy") from None
    return signer


def load_secret(state_dir: Path) -> bytes:
    """What the salts of messages outside the escrow are made from. Raises EvidenceError."""
    path = _secret_file(state_dir)
    try:
        secret = bytes.fromhex(path.read_text("ascii").strip())
    except OSError as error:
        raise EvidenceError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        secret = b""
    if len(secret) != _SECRET_BYTES:
        raise EvidenceError(f"{path} is damaged: restore it from a copy")
    return secret


def public_key(state_dir: Path) -> Verifier:
    """The public key of the log in this state directory. Raises EvidenceError."""
    signer = load(state_dir)
    if signer is None:
        raise EvidenceError(f"there is no evidence key in {key_file(state_dir).parent}")
    return signer.verifier


def parse_key(text: str) -> Verifier:
    """A public key as given by a person: the key itself, or a file that holds it. Raises EvidenceError."""
    try:
        given = Path(text).read_text("ascii") if "+" not in text or Path(text).is_file() else text
        return Verifier.parse(given)
    except OSError as error:
        raise EvidenceError(f"the key's file cannot be read: {error.strerror}") from None
    except (NoteError, UnicodeDecodeError) as error:
        raise EvidenceError(f"the key cannot be used: {error if isinstance(error, NoteError) else 'not ASCII'}") from None


def _signer(name: str, seed: bytes) -> Signer:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    return Signer(Verifier(name, private.public_key().public_bytes_raw()), private)


def _write(path: Path, text: str) -> None:
    """Whole or not at all: written beside it, synced, and moved into place."""
    beside = path.with_suffix(path.suffix + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    beside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
