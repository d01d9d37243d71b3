"""Who is at the other end of a client's connection."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

import jwt

from escrow.policy import PrincipalRules
from escrow.principal import Principal, from_address, from_authorization, from_process, from_subject

Local = tuple[str, int]
LookUp = Callable[[Local, Local], tuple[int, int | None] | None]
"""(the peer's address, our address) → (uid, cgroup id) of the process there; None where it is not on this machine."""


_MOST_VERIFIED = 1024


class Identity:
    """Finds the principal of a request: verified token, credential, local process, address, in this order."""

    def __init__(self, rules: PrincipalRules, bearer_key: str | None, look_up: LookUp | None) -> None:
        self._rules, self._key, self._look_up = rules, bearer_key, look_up
        self._verified: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()
        """Tokens whose signature held, until they expire (Unix seconds)."""

    def of_credential(self, authorization: bytes) -> Principal:
        """The principal of a request with an Authorization header."""
        known = self._verified.get(authorization)
        if known is not None and time.time() < known[1]:
            return known[0]
        return self._verify(authorization) or from_authorization(authorization)

    def _verify(self, authorization: bytes) -> Principal | None:
        bearer = self._rules.bearer
        scheme, _, token = authorization.decode("latin-1").partition(" ")
        if bearer is None or self._key is None or scheme.lower() != "bearer":
            return None
        try:
            claims = jwt.decode(
                token.strip(),
                self._key,
                algorithms=list(bearer.algorithms),
                issuer=bearer.issuer,
                audience=bearer.audience,
                options={"require": ["exp", "sub"]},
            )
        except jwt.PyJWTError:
            return None
        principal = from_subject(bearer.issuer, str(claims["sub"]))
        self._verified[authorization] = (principal, float(claims["exp"]))
        while len(self._verified) > _MOST_VERIFIED:
            self._verified.popitem(last=False)
        return principal

    def of_peer(self, transport: asyncio.BaseTransport) -> Principal:
        """The principal of a connection whose requests carry no credential."""
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        host = str(peer[0]).partition("%")[0]
        if self._look_up is not None:
            found = self._look_up((host, peer[1]), (str(own[0]).partition("%")[0], own[1]))
            if found is not None:
                return from_process(*found)
        return from_address(str(ipaddress.ip_address(host)))
