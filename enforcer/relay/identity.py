"""Who is at the other end of a client's connection."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable

import jwt

from escrow.policy import PrincipalRules
from escrow.principal import Principal, from_address, from_authorization, from_process, from_subject

Local = tuple[str, int]
LookUp = Callable[[Local, Local], tuple[int, int | None] | None]
"""(the peer's address, our address) → (uid, cgroup id) of the process there; None where it is not on this machine."""


class Identity:
    """Finds the principal of a connection: verified token, credential, local process, address, in this order."""

    def __init__(self, rules: PrincipalRules, bearer_key: str | None, look_up: LookUp | None) -> None:
        self._rules, self._key, self._look_up = rules, bearer_key, look_up

    def of(self, writer: asyncio.StreamWriter, authorization: bytes | None) -> Principal:
        """The principal. authorization: the header's value."""
        if authorization is not None:
            return self._verified(authorization) or from_authorization(authorization)
        return self._peer(writer)

    def _verified(self, authorization: bytes) -> Principal | None:
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
        return from_subject(bearer.issuer, str(claims["sub"]))

    def _peer(self, writer: asyncio.StreamWriter) -> Principal:
        peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        host = str(peer[0]).partition("%")[0]
        if self._look_up is not None:
            found = self._look_up((host, peer[1]), (str(own[0]).partition("%")[0], own[1]))
            if found is not None:
                return from_process(*found)
        return from_address(str(ipaddress.ip_address(host)))
