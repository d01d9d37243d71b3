"""Who a call is made for: the identity that approvals, retries and denials are bound to.

Pure. A principal is a short printable string with its kind before the colon; nothing secret is in it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

PrincipalKind = Literal["sub", "auth", "local", "address"]


@dataclass(frozen=True, slots=True)
class Principal:
    """kind, strongest first: `sub` (subject of a verified bearer token), `auth` (digest of the Authorization header),
    `local` (uid and cgroup id of a process on this machine), `address` (peer address; weak: whoever shares it is the same one)."""

    kind: PrincipalKind
    value: str
    text: str = field(init=False, repr=False, compare=False)
    """What `str` gives; written once, since it is asked for several times with every message."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"{self.kind}:{self.value}")

    def __str__(self) -> str:
        return self.text

    @property
    def weak(self) -> bool:
        return self.kind == "address"


def from_subject(issuer: str, subject: str) -> Principal:
    """The subject of a token the policy's key verified; a digest, since subjects are chosen elsewhere and may be long or hostile."""
    return Principal("sub", hashlib.sha256(f"{len(issuer)}:{issuer}{subject}".encode()).hexdigest()[:32])


def from_authorization(value: bytes) -> Principal:
    """The digest of an Authorization header nobody verified: two callers with the same credential are one principal.

    However it is spelt: a scheme's case and the blanks around it mean nothing (RFC 9110, section 11.1).
    """
    scheme, *rest = value.split(None, 1)[:2] or [b""]
    return Principal("auth", hashlib.sha256(b"holdfast authorization\0" + b" ".join((scheme.lower(), *rest)).rstrip()).hexdigest()[:32])


def from_process(uid: int, cgroup: int | None) -> Principal:
    """A process on this machine; cgroup is the cgroup v2 id, None where the kernel does not say."""
    return Principal("local", f"uid={uid}" if cgroup is None else f"uid={uid},cgroup={cgroup}")


def from_address(host: str) -> Principal:
    """The peer's address, without the port."""
    return Principal("address", host)
