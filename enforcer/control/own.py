"""Whether a held item is the asking supervisor's own: then it may neither decide it nor see its payload.

Own is what was called by a principal it acts as, with the same bearer token, by the same user, from the same control group, or from the
same address. Where it cannot be seen which of these it is, it is own.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from enforcer.control.tokens import Token
from escrow import principal

_LOCAL = re.compile(r"local:uid=(\d+)(?:,cgroup=(\d+))?")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks through the window. credential: the principal a call with the same bearer token has at the gate.

    address: of its connection's other end, None where the window did not say. process: (uid, cgroup) there, as the kernel says it; None
    where it is not on this machine, or cannot be seen.
    """

    token: Token
    credential: str
    address: str | None
    process: tuple[int, int | None] | None

    @property
    def by(self) -> str:
        """How decisions and changes of its are recorded."""
        acts_as = f" (acts as {', '.join(self.token.acts_as)})" if self.token.acts_as else ""
        return f"token {self.token.name}{acts_as}"


def credential_of(secret: str) -> str:
    return str(principal.from_authorization(b"Bearer " + secret.encode("utf-8", "surrogatepass")))


def why_own(of: str, caller: Caller) -> str | None:
    """Why an item of this principal is the caller's own; None where it is another's."""
    item = _LOCAL.fullmatch(of)
    for named in caller.token.acts_as:
        acts = _LOCAL.fullmatch(named)
        if _spelt(of) == _spelt(named) or (item and acts and acts[2] is None and item[1] == acts[1]):
            return "the call was made by a principal that this token acts as"
    if of == caller.credential:
        return "the call was made with this same token"
    if caller.address is None:
        return "it cannot be seen from where this token is used"
    if item is not None:
        return _same_process(int(item[1]), item[2], caller)
    if of.startswith("address:") and _plain(of.removeprefix("address:")) == _plain(caller.address):
        return "the call was made from this same address"
    return None


def _same_process(uid: int, cgroup: str | None, caller: Caller) -> str | None:
    if caller.process is None:
        address = ipaddress.ip_address(_plain(caller.address or ""))
        return "it cannot be seen which process of this machine asks" if address.is_loopback else None
    if caller.process[0] == uid:
        return "the call was made by this same user"
    if cgroup is not None and caller.process[1] is not None and caller.process[1] == int(cgroup):
        return "the call was made from this same control group"
    return None


def _spelt(of: str) -> str:
    """A principal with one spelling for its address: a person types it, and a listener on both families sees IPv4 as IPv6."""
    kind, _, value = of.partition(":")
    return f"address:{_plain(value)}" if kind == "address" else of


def _plain(text: str) -> str:
    """One spelling for an address; IPv4-mapped ones as IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
