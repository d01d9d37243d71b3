"""Connections to the guarded server, opened for the daemon: to nothing else, whatever the daemon asks for.

The address must belong to the namespace and the port is the guarded one, so a daemon in an attacker's hands can reach the server it
stands before, and nothing it could not reach anyway.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket

from enforcer.helper.messages import OpenUpstream, UpstreamFailed
from enforcer.kernel import route, steer
from enforcer.kernel.errors import KernelError

AT_ONCE = 64
CONNECT_S = 10.0


class Opener:
    """port: the guarded one. To be built in the guarded namespace."""

    def __init__(self, steering: steer.Steering, port: int, connect_s: float) -> None:
        self._steering = steering
        self._port = port
        self._connect_s = min(connect_s, CONNECT_S)
        self._routes = route.open_socket()
        self._opening = 0

    async def open(self, asked: OpenUpstream) -> socket.socket | UpstreamFailed:
        """The connected socket, or why there is none."""
        if self._opening >= AT_ONCE:
            return UpstreamFailed(id=asked.id, kind="busy", text="too many connections to the server are being opened")
        self._opening += 1
        try:
            return await self._open(asked)
        except TimeoutError:
            return UpstreamFailed(id=asked.id, kind="timeout", text="the server did not accept the connection in time")
        except OSError as error:
            return UpstreamFailed(id=asked.id, kind="refused", text=f"no connection to the server: {_reason(error)}")
        except KernelError:
            return UpstreamFailed(id=asked.id, kind="busy", text="the connection could not be exempted from steering")
        finally:
            self._opening -= 1

    async def _open(self, asked: OpenUpstream) -> socket.socket | UpstreamFailed:
        try:
            local, remote = ipaddress.ip_address(asked.local), ipaddress.ip_address(asked.remote)
        except ValueError:
            return UpstreamFailed(id=asked.id, kind="denied", text="no address")
        scoped = remote.version == 6 and remote.is_link_local
        interface = route.local_interface(self._routes, remote, asked.scope if scoped else 0)
        # An accepted socket knows its interface only where the client's address is link-local too.
        scope = interface if scoped and interface else 0
        if interface is None or local.version != remote.version or route.local_interface(self._routes, local, scope) is None:
            return UpstreamFailed(id=asked.id, kind="denied", text="not an address of the guarded namespace")
        family = socket.AF_INET if local.version == 4 else socket.AF_INET6
        opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            # A port of our own from here on (no IP_BIND_ADDRESS_NO_PORT): the exemption names it.
            opened.bind(_name(str(local), 0, family, scope))
            key = steer.connection(local, opened.getsockname()[1], remote, self._port)
            self._steering.exempt(key, interface)
            passed = False
            try:
                async with asyncio.timeout(self._connect_s):
                    await asyncio.get_running_loop().sock_connect(opened, _name(str(remote), self._port, family, scope))
            finally:
                passed = self._steering.end_exemption(key)
        except BaseException:
            opened.close()
            raise
        if not passed:  # steered back to the gate: without this, it would speak to itself for ever
            opened.close()
            return UpstreamFailed(id=asked.id, kind="refused", text="the connection did not reach the server")
        return opened


def _name(address: str, port: int, family: int, scope: int) -> tuple[str, int] | tuple[str, int, int, int]:
    return (address, port) if family == socket.AF_INET else (address, port, 0, scope)


def _reason(error: OSError) -> str:
    """The kernel's words: asyncio puts its own, with the address, in `strerror`."""
    return os.strerror(error.errno) if error.errno else "unknown error"
