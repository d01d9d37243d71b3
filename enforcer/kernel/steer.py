"""Steering of one port in one namespace: the link, its maps, and whether it really holds.

A start loads a fresh program with fresh maps, fills them, and then either swaps it into the pinned link it finds (atomically: the
old program refuses, then the new one steers) or attaches and pins. So there is no moment in which a guarded server answers
unguarded. Maps are not pinned: a restart never inherits an exemption.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enforcer.kernel import bpffs, libbpf, records
from enforcer.kernel.bpffs import PinDir
from enforcer.kernel.errors import Missing, NotOurs
from enforcer.kernel.namespace import Namespace
from enforcer.kernel.sockdiag import Tcp

OBJECT = Path(__file__).parent / "objects" / "steer.bpf.o"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_ZERO = struct.pack("=I", 0)
_GATE_KEYS = {socket.AF_INET: struct.pack("=I", 0), socket.AF_INET6: struct.pack("=I", 1)}


@dataclass(frozen=True, slots=True)
class Counters:
    """How many lookups for the guarded port ended how (enum outcome in bpf/steer.h, in its order)."""

    steered: int
    exempt: int
    no_gate: int
    failed_open: int
    gate_port: int
    unassignable: int


def connection(remote: Address, remote_port: int, local: Address, local_port: int) -> bytes:
    """A map key: one connection as the server's end sees it."""
    key = records.Connection()
    key.remote_ip[:] = struct.unpack("=4I", remote.packed.ljust(16, b"\0"))
    key.local_ip[:] = struct.unpack("=4I", local.packed.ljust(16, b"\0"))
    key.remote_port, key.local_port = remote_port, local_port
    key.family = socket.AF_INET if local.version == 4 else socket.AF_INET6
    return bytes(key)


class Steering:
    """The loaded program. Nothing is steered before `attach`."""

    def __init__(self, namespace: Namespace, port: int, fail_open: bool) -> None:
        """Load. Raises Missing (libbpf, object, sk_lookup, capability) and KernelError (other layouts)."""
        records.check(OBJECT)
        self.pins = PinDir(namespace.inode, port)
        self._namespace = namespace
        self._settings = records.Settings(guarded_port=port, fail_open=int(fail_open))
        self._link: int | None = None
        self._object = libbpf.Object(OBJECT)
        try:
            self._object.load()
        except libbpf.BpfError as error:
            self._object.close()
            raise Missing(f"the kernel does not take the steering program (sk_lookup of Linux 5.17 or later, CAP_BPF, CAP_NET_ADMIN): {error}") from None
        self._program = self._object.program_fd("steer")
        self._maps = {name: self._object.map_fd(name) for name in ("settings", "gate", "exempt", "steered", "counters")}
        self._program_id = libbpf.prog_info(self._program).id
        self._write_settings()

    def announce_gate(self, listeners: Sequence[socket.socket]) -> None:
        """Close the gate's own ports to everybody; to be called before they listen."""
        ports = {listener.family: listener.getsockname()[1] for listener in listeners}
        self._settings.gate_port_ip4 = ports.get(socket.AF_INET, 0)
        self._settings.gate_port_ip6 = ports.get(socket.AF_INET6, 0)
        self._write_settings()

    def open_gate(self, listeners: Sequence[socket.socket]) -> None:
        """From here on, new connections go to these. The kernel forgets each as soon as it is closed."""
        for listener in listeners:
            libbpf.map_update(self._maps["gate"], _GATE_KEYS[socket.AddressFamily(listener.family)], struct.pack("=Q", listener.fileno()))

    def gate_is_open(self) -> bool:
        """Whether any of them still listens."""
        return any(libbpf.map_lookup(self._maps["gate"], key, 8) for key in _GATE_KEYS.values())

    def attach(self) -> bool:
        """Take over the pinned link, or attach and pin; whether a link was taken over.

        Raises:
            NotOurs: another sk_lookup program is attached.
        """
        self.pins.create()
        self._refuse_others()
        pinned = self.pins.program(os.getpid())
        pinned.unlink(missing_ok=True)  # of a dead process that had our number
        libbpf.pin(self._program, pinned)
        adopted = self._adopt()
        if not adopted:
            self._link = libbpf.link_create(self._program, self._namespace.fd, libbpf.BPF_SK_LOOKUP)
            self.pins.link.unlink(missing_ok=True)  # dead, or now to be unpinned
            if not self._settings.fail_open:
                libbpf.pin(self._link, self.pins.link)
        self.pins.remove_programs(but=pinned)
        return adopted

    def _adopt(self) -> bool:
        link = libbpf.get(self.pins.link)
        if link is None:
            return False
        if self._settings.fail_open or libbpf.link_info(link).netns_ino != self._namespace.inode:
            os.close(link)
            return False
        libbpf.link_update(link, self._program)
        self._link = link
        return True

    def note_steered(self, sweeping: bool) -> None:
        """Whether steered connections are noted, so that `not_steered` knows them."""
        self._settings.sweeping = int(sweeping)
        self._write_settings()
        if not sweeping:
            for key in libbpf.map_keys(self._maps["steered"], ctypes.sizeof(records.Connection)):
                libbpf.map_delete(self._maps["steered"], key)

    def not_steered(self, listed: list[Tcp]) -> list[Tcp]:
        """Those that were not noted. To be asked after they were listed, so that none is new and not noted yet."""
        noted = set(libbpf.map_keys(self._maps["steered"], ctypes.sizeof(records.Connection)))
        return [each for each in listed if connection(each.remote, each.remote_port, each.local, each.local_port) not in noted]

    def exempt(self, key: bytes, interface: int) -> None:
        """Let one connection (see `connection`) through to the server, if it comes by lo or `interface`. Raises BpfError."""
        libbpf.map_update(self._maps["exempt"], key, bytes(records.Exemption(interface, 0)))

    def end_exemption(self, key: bytes) -> bool:
        """Whether the connection passed by it: if not, whatever was connected is not the server."""
        raw = libbpf.map_lookup(self._maps["exempt"], key, ctypes.sizeof(records.Exemption))
        libbpf.map_delete(self._maps["exempt"], key)
        return raw is not None and bool(records.Exemption.from_buffer_copy(raw).used)

    def counters(self) -> Counters:
        """Summed over all CPUs."""
        cpus = libbpf.possible_cpus()
        values = []
        for outcome in range(6):
            raw = libbpf.map_lookup(self._maps["counters"], struct.pack("=I", outcome), 8 * cpus) or bytes(8 * cpus)
            values.append(sum(struct.unpack(f"={cpus}Q", raw)))
        return Counters(*values)

    def problem(self) -> str | None:
        """Why steering does not hold at this moment; None while it does."""
        vanished = self._namespace.vanished()
        if vanished:
            return vanished
        if self._link is None:
            return "steering is not attached"
        link = libbpf.link_info(self._link)
        if link.netns_ino != self._namespace.inode:
            return "somebody detached the steering program"
        if link.prog_id != self._program_id:
            return "somebody replaced the steering program"
        return self._others()

    def _others(self) -> str | None:
        # Asked twice around the pins: programs of other instances are pinned before they are attached and unpinned after.
        before = libbpf.query(self._namespace.fd, libbpf.BPF_SK_LOOKUP)
        ours = bpffs.our_programs(self._namespace.inode)
        after = libbpf.query(self._namespace.fd, libbpf.BPF_SK_LOOKUP)
        for program in before:
            if program in after and program not in ours and program != self._program_id:
                info = libbpf.prog_info_by_id(program)
                return f"another sk_lookup program ({program}, {info.name if info else ''!a}) is attached and can override the steering"
        return None

    def _refuse_others(self) -> None:
        others = self._others()
        if others:
            raise NotOurs(others)

    def detach(self) -> None:
        """Undo everything: the server answers by itself again."""
        if self._link is not None:
            self.pins.link.unlink(missing_ok=True)
            os.close(self._link)
            self._link = None
            self.pins.remove()
        self.abandon()

    def abandon(self) -> None:
        """Let go and leave the pinned link, ours or an earlier instance's: what it guards stays refused."""
        if self._link is None:
            self.pins.program(os.getpid()).unlink(missing_ok=True)
        else:
            os.close(self._link)
            self._link = None
        self._object.close()

    def _write_settings(self) -> None:
        libbpf.map_update(self._maps["settings"], _ZERO, bytes(self._settings))
