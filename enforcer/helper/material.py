"""The files that the policy names: keys and certificates. The helper itself never holds them, so no process beside the daemon can inherit them."""

from __future__ import annotations

from pathlib import Path

from enforcer.inherited import TlsMaterial
from escrow.policy import Policy


class NotReadable(Exception):
    """`str()` says which file, and why."""


def check(policy: Policy) -> None:
    """Whether all of them can be opened, without reading any. Raises NotReadable."""
    for path in _paths(policy):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise NotReadable(f"the policy names {path}, which cannot be read: {error.strerror}") from None


def tls(policy: Policy) -> TlsMaterial | None:
    """Raises NotReadable."""
    if policy.tls is None:
        return None
    authority = policy.tls.upstream_ca
    return TlsMaterial(_read(policy.tls.cert), _read(policy.tls.key), _read(authority) if authority else None)


def bearer_key(policy: Policy) -> bytes | None:
    """Raises NotReadable."""
    return _read(policy.principal.bearer.key_file) if policy.principal.bearer else None


def _paths(policy: Policy) -> list[str]:
    found = [policy.principal.bearer.key_file] if policy.principal.bearer else []
    if policy.tls is not None:
        found += [policy.tls.cert, policy.tls.key, *([policy.tls.upstream_ca] if policy.tls.upstream_ca else [])]
    return found


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise NotReadable(f"the policy names {path}, which cannot be read: {error.strerror}") from None
