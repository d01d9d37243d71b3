"""Attaching where libbpf's own calls do not reach: uprobes by an open file, raw tracepoints, a socket's filter.

Uprobes go through a `uprobe_multi` link (Linux 6.6), which needs CAP_PERFMON and CAP_BPF, or through a perf event where the kernel has
none. Both are descriptors: closing them detaches, so nothing outlives whoever holds them, SIGKILL included. Nothing is pinned.

Numbers: include/uapi/linux/bpf.h, include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import socket
import struct
from pathlib import Path

from enforcer.kernel.libbpf import BpfError, library

BPF_TRACE_UPROBE_MULTI = 48
_BPF_LINK_CREATE = 28
_BPF_F_UPROBE_MULTI_RETURN = 1
_SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_SYS_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241}
_PERF_FLAG_FD_CLOEXEC = 8
_PERF_EVENT_IOC_ENABLE = 0x2400
_PERF_EVENT_IOC_SET_BPF = 0x40042408
_SO_ATTACH_BPF = 50
_ETH_P_ALL = b"\0\3"  # in network byte order
_UPROBE_PMU = Path("/sys/bus/event_source/devices/uprobe")

_libc = ctypes.CDLL(None, use_errno=True)


class _UprobeMulti(ctypes.Structure):
    """union bpf_attr, link_create with its uprobe_multi member."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("path", ctypes.c_uint64),
        ("offsets", ctypes.c_uint64),
        ("ref_ctr_offsets", ctypes.c_uint64),
        ("cookies", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("multi_flags", ctypes.c_uint32),
        ("pid", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class PerfEventAttr(ctypes.Structure):
    """struct perf_event_attr up to aux_watermark (PERF_ATTR_SIZE_VER5)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("bits", ctypes.c_uint64),
        ("wakeup", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("config1", ctypes.c_uint64),
        ("config2", ctypes.c_uint64),
        ("branch_sample_type", ctypes.c_uint64),
        ("sample_regs_user", ctypes.c_uint64),
        ("sample_stack_user", ctypes.c_uint32),
        ("clockid", ctypes.c_int32),
        ("sample_regs_intr", ctypes.c_uint64),
        ("aux_watermark", ctypes.c_uint32),
        ("sample_max_stack", ctypes.c_uint16),
        ("reserved", ctypes.c_uint16),
    )


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise BpfError(f"{what}: {os.strerror(number)}", number)
    return result


def _machine(numbers: dict[str, int]) -> int:
    try:
        return numbers[platform.machine()]
    except KeyError:
        raise BpfError(f"the taps are not built for {platform.machine()}", 38) from None


def perf_event_open(attr: PerfEventAttr, pid: int, cpu: int) -> int:
    attr.size = ctypes.sizeof(attr)
    number = _machine(_SYS_PERF_EVENT_OPEN)
    return _check(_libc.syscall(number, ctypes.byref(attr), pid, cpu, -1, ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC)), "perf_event_open")


def has_uprobe_multi() -> bool:
    """Whether this kernel has uprobe_multi links: it then refuses this nonsense for another reason than not knowing it.

    Programs are loaded for the one or the other kind of link, so this is asked before loading.
    """
    parts = platform.release().split("-")[0].split(".")
    major, minor = (int("".join(c for c in part if c.isdigit()) or 0) for part in parts[:2])
    return (major, minor) >= (6, 6)


def uprobe(program: int, file: int, offset: int, returns: bool, multi: bool, pid: int | None = None) -> int:
    """Run the program in every process that reaches `offset` of the open file (or returns from there). Its descriptor.

    pid: in this process only.
    Raises: BpfError
    """
    path = ctypes.create_string_buffer(f"/proc/self/fd/{file}".encode())
    if multi:
        offsets = (ctypes.c_uint64 * 1)(offset)
        attr = _UprobeMulti(program, 0, BPF_TRACE_UPROBE_MULTI, 0, ctypes.addressof(path), ctypes.addressof(offsets))
        attr.count = 1
        attr.pid = pid or 0
        attr.multi_flags = _BPF_F_UPROBE_MULTI_RETURN if returns else 0
        return _check(_libc.syscall(_machine(_SYS_BPF), _BPF_LINK_CREATE, ctypes.byref(attr), ctypes.sizeof(attr)), "attach a uprobe")
    kind = int((_UPROBE_PMU / "type").read_text(encoding="ascii"))
    bit = int((_UPROBE_PMU / "format/retprobe").read_text(encoding="ascii").removeprefix("config:"))
    event = PerfEventAttr(type=kind, config=int(returns) << bit, config1=ctypes.addressof(path), config2=offset)
    # Of one CPU by name only: a uprobe that is not bound to a process fires on all.
    fd = perf_event_open(event, -1, 0) if pid is None else perf_event_open(event, pid, -1)
    try:
        fcntl.ioctl(fd, _PERF_EVENT_IOC_SET_BPF, program)
        fcntl.ioctl(fd, _PERF_EVENT_IOC_ENABLE, 0)
    except OSError as error:
        os.close(fd)
        raise BpfError(f"attach a uprobe: {error.strerror}", error.errno or 0) from None
    return fd


def raw_tracepoint(program: int, name: str) -> int:
    return _check(library().bpf_raw_tracepoint_open(name.encode(), program), f"attach to the tracepoint {name}")


def socket_filter(program: int) -> socket.socket:
    """A packet socket that sees every interface of the namespace we are in, and gives each packet to the program.

    SOCK_DGRAM: from the network header on, whatever the link. The filter is there before the socket is bound to any protocol, so
    not one packet is queued.
    """
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
    try:
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)
        # Python's bind insists on one interface. struct sockaddr_ll (include/uapi/linux/if_packet.h): family, protocol, interface 0: all.
        every = struct.pack("=H2si12x", socket.AF_PACKET, _ETH_P_ALL, 0)
        if _libc.bind(opened.fileno(), every, len(every)) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except OSError as error:
        opened.close()
        raise BpfError(f"attach the socket filter: {error.strerror}", error.errno or 0) from None
    return opened
