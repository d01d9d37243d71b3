"""What the probes saw of a TLS object's connection. Goes to the linker only; flows see what it concludes."""

from __future__ import annotations

from dataclasses import dataclass

from escrow.events import TlsDirection, TlsObject


@dataclass(frozen=True, slots=True)
class CipherSeen:
    """A BIO of the object carried ciphertext that begins so: 32 to 64 bytes. READ: it came from the peer."""

    object: TlsObject
    direction: TlsDirection
    time_ns: int
    prefix: bytes


@dataclass(frozen=True, slots=True)
class FdGiven:
    """The object was given a descriptor of its process."""

    object: TlsObject
    time_ns: int
    fd: int
