"""A small daemon and worker in place of the real ones, run by the real helper: `python -m tests.enforcer.helper.echo --port …`.

The daemon relays bytes and puts a line before the server's answer: `gate <client> <original destination> <facts so far>`. On the control
socket it answers one JSON document; the first byte sent chooses what it does before that: `u` opens an upstream to the address that
follows, `g` sends garbage to the helper, `s` asks for the stop, `p` reports its own privileges.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import logging
import os
import socket
import sys
from pathlib import Path

import uvloop

from enforcer.helper.channel import HelperChannel, UpstreamError
from enforcer.helper.messages import ChildEnded, ChildStarted, Enforcing, Fact, NotEnforcing, Stop
from enforcer.helper.programs import Programs, Run
from enforcer.helper.start import StartOptions, start
from enforcer.inherited import Inherited
from escrow.jury_settings import JurySettings
from escrow.policy import Policy, load
from escrow.scanner_settings import ScannerSettings

MARK = "gate"


class Echo:
    def __init__(self, inherited: Inherited) -> None:
        assert inherited.helper is not None
        self.inherited = inherited
        self.helper_socket = inherited.helper
        self.facts: list[str] = []
        self.children: dict[str, list[socket.socket]] = {}
        self.stop = asyncio.Event()
        self.helper = HelperChannel(inherited.helper, self.heard)

    def heard(self, fact: Fact, passed: socket.socket | None) -> None:
        match fact:
            case ChildStarted():
                assert passed is not None
                self.children.setdefault(fact.child, []).append(passed)
                self.facts.append(f"{fact.child} {fact.number} started")
            case ChildEnded():
                self.facts.append(f"{fact.child} {fact.number} ended")
            case NotEnforcing():
                self.facts.append(f"not enforcing: {fact.why}")
            case Enforcing():
                self.facts.append("enforcing")
            case Stop():
                self.stop.set()

    async def serve(self) -> None:
        servers = [await asyncio.start_server(self.client, sock=listener) for listener in self.inherited.listeners]
        servers.append(await asyncio.start_unix_server(self.operator, sock=self.inherited.control))
        self.helper.say_ready()
        await self.stop.wait()
        for server in servers:
            server.close()

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        scope = f"%{own[3]}" if len(own) > 3 and own[3] else ""
        address = own[0].partition("%")[0] + scope
        with contextlib.closing(writer):
            try:
                upstream = await self.helper.open_upstream(address, address)
            except UpstreamError as error:
                writer.write(f"{MARK} no upstream: {type(error).__name__}: {error}\n".encode())
                return
            up_reader, up_writer = await asyncio.open_connection(sock=upstream)
            with contextlib.closing(up_writer):
                up_writer.write(await reader.readline())
                answer = await up_reader.readline()
                writer.write(f"{MARK} {peer[0].partition('%')[0]} {address} {upstream.getsockname()[1]}\n".encode() + answer)
                with contextlib.suppress(OSError):
                    await writer.drain()
                if answer.startswith(b"stay"):
                    await reader.read()

    async def operator(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readline()).decode().strip()
        said: dict[str, object] = {"facts": self.facts}
        verb, _, rest = asked.partition(" ")
        match verb:
            case "upstream":
                try:
                    opened = await self.helper.open_upstream(*rest.split())
                    said["upstream"] = [str(part) for part in (opened.getsockname(), opened.getpeername())]
                    opened.close()
                except UpstreamError as error:
                    said["upstream"] = f"{type(error).__name__}: {error}"
            case "counters":
                said["counters"] = (await self.helper.counters()).model_dump()
            case "garbage":
                self.helper_socket.send(rest.encode())
            case "stop":
                self.helper.ask_stop()
            case "worker" | "window" | "jury":
                said[verb] = await self.ask_child(verb)
            case "try":
                said["try"] = attempts()
        writer.write(json.dumps(said).encode() + b"\n")
        await writer.drain()
        writer.close()

    async def ask_child(self, kind: str) -> str:
        loop = asyncio.get_running_loop()
        newest = self.children[kind][-1]
        newest.setblocking(False)
        await loop.sock_sendall(newest, b"?")
        return (await loop.sock_recv(newest, 65536)).decode()


def attempts() -> dict[str, str]:
    """What a process in an attacker's hands would try first, and how each ended."""

    def tried(what: object) -> str:
        assert callable(what)
        try:
            return f"worked: {what()}"
        except OSError as error:
            return type(error).__name__

    return {
        "inet socket": tried(lambda: socket.socket(socket.AF_INET)),
        "netlink socket": tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)),
        "fork": tried(os.fork),
        "read passwd": tried(lambda: Path("/etc/passwd").read_text()),
        "read proc": tried(lambda: os.listdir("/proc")),
        "write root": tried(lambda: Path("/x").write_text("x")),
        "write code": tried(lambda: Path(__file__).write_text("x")),
        "write tmp": tried(lambda: Path("/tmp/x").write_text("x")),
        "write state": tried(lambda: Path("/state/x").write_text("x")),
        "kill parent": tried(lambda: os.kill(os.getppid(), 9)),
        "list root": tried(lambda: sorted(os.listdir("/"))),
    }


def daemon(inherited: Inherited) -> Run:
    async def body() -> None:
        await Echo(inherited).serve()

    return lambda: uvloop.run(body())


def worker(_settings: ScannerSettings, channel: socket.socket) -> Run:
    return _tells(channel)


def window(channel: socket.socket, _listeners: tuple[socket.socket, ...]) -> Run:
    return _tells(channel)


def jury(_settings: JurySettings, channel: socket.socket) -> Run:
    return _tells(channel)


def _tells(channel: socket.socket) -> Run:
    """A child that tells what it may not do."""

    def run() -> None:
        channel.setblocking(True)
        while asked := channel.recv(1):
            if asked == b"?":
                tried = attempts() | {"executable memory": _map_code()}
                channel.sendall(json.dumps(tried).encode())

    return run


def _map_code() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0))
    return "PermissionError" if at == ctypes.c_void_p(-1).value else "worked"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--netns")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--runtime-dir", type=Path, required=True)
    parser.add_argument("--policy", default="")
    parser.add_argument("--broken-daemon", action="store_true")
    parser.add_argument("--mcp-listen", default="none")
    given = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    policy: Policy = load(given.policy)
    programs = Programs(_broken if given.broken_daemon else daemon, worker, window, jury)
    return start(StartOptions(given.port, given.netns, policy, None, given.state_dir, given.runtime_dir, programs, given.mcp_listen))


def _broken(_inherited: Inherited) -> Run:
    raise RuntimeError("this daemon cannot be prepared")


if __name__ == "__main__":
    sys.exit(main())
