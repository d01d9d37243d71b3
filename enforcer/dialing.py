"""Connections to the guarded server, and the TLS that is spoken on them and towards clients, from what the daemon was given."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

from enforcer.helper.channel import HelperChannel
from enforcer.inherited import Inherited, TlsMaterial, Upstream
from enforcer.kernel import sockdiag
from enforcer.relay.identity import Local
from enforcer.relay.upstream import Opener


def steered(channel: HelperChannel) -> Opener:
    """Connections that the helper opens, from the address that the client meant."""

    async def opener(client: socket.socket) -> socket.socket:
        # The address the client meant is our own address of its connection: the server sees the host talking to itself there.
        host = _plain(client.getsockname())
        return await channel.open_upstream(host, host)

    return opener


def proxied(target: Upstream) -> Opener:
    """Ordinary connections, in a process that may make them."""

    async def opener(_client: socket.socket) -> socket.socket:
        loop = asyncio.get_running_loop()
        problem: OSError | None = None
        for family, kind, proto, _, address in await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, proto)
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            except OSError as error:
                sock.close()
                problem = error
        raise problem or OSError("no address")

    return opener


def _plain(name: Any) -> str:
    """A socket name's address, IPv4-mapped ones as IPv4, link-local ones with their interface."""
    address = ipaddress.ip_address(str(name[0]).partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is not None:
        return str(mapped)
    return f"{address}%{name[3]}" if address.is_link_local and len(name) > 3 and name[3] else str(address)


def owner_of(diag: socket.socket) -> Any:
    """Whose process is at the other end of a local connection: (uid, cgroup)."""

    def look_up(peer: Local, own: Local) -> tuple[int, int | None] | None:
        found = sockdiag.owner(diag, (ipaddress.ip_address(peer[0]), peer[1]), (ipaddress.ip_address(own[0]), own[1]))
        return None if found is None else (found.uid, found.cgroup)

    return look_up


def client_tls(material: TlsMaterial | None) -> ssl.SSLContext | None:
    """TLS towards clients. load_cert_chain takes files only: they stand in memory, for this process alone, and only as long as it reads."""
    if material is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    with tempfile.TemporaryDirectory() as folder:
        cert, key = Path(folder, "cert"), Path(folder, "key")
        for path, data in ((cert, material.cert), (key, material.key)):
            path.touch(0o600)
            path.write_bytes(data)
        context.load_cert_chain(cert, key)
    return context


def upstream_tls(given: Inherited) -> ssl.SSLContext | None:
    """TLS towards the server, where clients speak it or the upstream's URL says so."""
    if given.upstream is not None and not given.upstream.tls:
        return None
    if given.upstream is None and given.tls is None:
        return None
    authority = given.tls.upstream_ca.decode() if given.tls is not None and given.tls.upstream_ca is not None else None
    context = ssl.create_default_context(cadata=authority)
    context.set_alpn_protocols(["http/1.1"])
    if given.upstream is None:
        context.check_hostname = False  # steered: the peer is this host's own port by address; the chain is still verified
    return context
