"""The probes of one target: which program runs at which of its functions, and what that covers.

Entries come before returns, so that no return finds a call it does not know. Where returns must not be probed (see `seccomp.py`), writes
are copied at their entry and reads are not seen, and the target says so.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from enforcer.kernel import attach, libbpf
from enforcer.taps.loading import Loaded
from enforcer.taps.target import UNCOVERED, Found, TlsKind

_WHOLE: dict[str, tuple[tuple[str, bool], ...]] = {
    "SSL_new": (("ssl_new_done", True),),
    "SSL_free": (("ssl_free", False),),
    "SSL_shutdown": (("ssl_shutdown", False),),
    "SSL_set_bio": (("ssl_set_bio", False),),
    "SSL_set0_rbio": (("ssl_set_rbio", False),),
    "SSL_set0_wbio": (("ssl_set_wbio", False),),
    "SSL_set_fd": (("ssl_set_fd", False),),
    "SSL_set_rfd": (("ssl_set_fd", False),),
    "SSL_set_wfd": (("ssl_set_fd", False),),
    "BIO_write": (("bio_write", False),),
    "BIO_write_ex": (("bio_write", False),),
    "SSL_read": (("ssl_read", False), ("ssl_read_done", True)),
    "SSL_read_ex": (("ssl_read_ex", False), ("ssl_read_done", True)),
    "SSL_write": (("ssl_write", False), ("ssl_write_done", True)),
    "SSL_write_ex": (("ssl_write_ex", False), ("ssl_write_done", True)),
}
"""Function → (program, whether it runs at the return). Objects and connections come before bytes."""

_ENTRIES: dict[str, tuple[tuple[str, bool], ...]] = {
    **{name: hooks for name, hooks in _WHOLE.items() if not any(returns for _program, returns in hooks)},
    "SSL_write": (("ssl_write_only", False),),
    "SSL_write_ex": (("ssl_write_only", False),),
}


@dataclass(frozen=True, slots=True)
class Target:
    """One file that processes execute, and what is seen of its TLS.

    covered: its functions that are probed. uncovered: in our words, what stays unseen. path: as the first process named it. pids: of
    processes that had it mapped when they were looked at.
    """

    device: int
    inode: int
    path: str
    kind: TlsKind
    covered: tuple[str, ...]
    uncovered: tuple[str, ...]
    pids: set[int] = field(default_factory=set)
    links: list[int] = field(default_factory=list)


def detach(targets: Collection[Target]) -> None:
    """All at once: the kernel waits a tenth of a second for each link by itself. A call in flight is left unfinished, and not told of."""
    links = [link for each in targets for link in each.links]
    if links:
        with ThreadPoolExecutor(len(links)) as closing:
            list(closing.map(os.close, links))
    for each in targets:
        each.links.clear()


def attach_to(file: int, identity: tuple[int, int], path: str, found: Found, loaded: Loaded, returns: bool) -> Target:
    """Probe all that can be probed. A function that cannot be is named as uncovered; none is an error."""
    covered, uncovered, links = list[str](), list[str](), list[int]()
    hooks = _WHOLE if returns else _ENTRIES
    for name, programs in hooks.items():
        if name not in found.functions:
            continue
        try:
            made: list[int] = []
            for program, at_return in programs:
                made.append(attach.uprobe(loaded.programs[program], file, found.functions[name], at_return, loaded.multi))
        except libbpf.BpfError as error:
            for link in made:
                os.close(link)
            uncovered.append(f"{name} cannot be probed: {error}")
            continue
        links += made
        covered.append(name)
    if not returns and found.kind is TlsKind.OPENSSL:
        uncovered.append("reads: probing returns would end processes under seccomp on this kernel; writes are copied before it is known whether they succeed")
    if found.kind in UNCOVERED:
        uncovered.append(UNCOVERED[found.kind])
    if found.problem is not None:
        uncovered.append(f"its file cannot be read: {found.problem}")
    return Target(*identity, path, found.kind, tuple(covered), tuple(uncovered), links=links)
