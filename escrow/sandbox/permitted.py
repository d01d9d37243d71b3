"""A run's effects against the policy: what the tool's class allows, and the globs that stand in for it.

Pure. Only the policy speaks here: what a server says of its own tools is no argument of anything in this file.

| class | reads | writes | connects | executes |
| --- | --- | --- | --- | --- |
| read-only | all that its root and state show | below `/tmp` | nowhere | nothing |
| reversible | the same | also its state | nowhere | nothing |
| irreversible | the same | also its state | nowhere | nothing |

Irreversible calls are protected by `when = "before"`, not by a shorter list. A connection inside the twin (its loopback, its own sockets) is no
effect on the world. A list of globs in the policy stands in for the class's, whole; `*` takes in slashes.
"""

from __future__ import annotations

import fnmatch
import stat
from collections.abc import Iterable
from typing import Final

from escrow.policy.rules import ToolRules
from escrow.sandbox.effects import Connect, Effects, Write
from escrow.verdict import Reason

MAX_REASONS: Final = 32
"""Most reasons of one kind; what is more is counted in one."""

MAX_POINTER_CHARS: Final = 300

_SCRATCH: Final = ("/tmp/*",)
_UNCLEAN: Final = ("/../", "/./", "//")
_TEXTS: Final = {
    "sandbox.read": "In the twin it read what the policy does not let this tool read.",
    "sandbox.write": "In the twin it created, changed or deleted what the policy does not let this tool write.",
    "sandbox.connect": "In the twin it tried to connect to where the policy does not let this tool go.",
    "sandbox.execute": "In the twin it started a program that the policy does not let this tool start.",
}


def forbidden(effects: Effects, rules: ToolRules) -> Effects:
    """Of what was done, that which the policy does not allow."""
    return Effects(
        reads=tuple(path for path in effects.reads if rules.reads is not None and not _within(path, rules.reads)),
        writes=tuple(write for write in effects.writes if not _may_write(write, rules)),
        connects=tuple(connect for connect in effects.connects if not _may_connect(connect, rules)),
        executes=tuple(execute for execute in effects.executes if not _within(execute.path, rules.executes or ())),
    )


def outside_policy(effects: Effects, rules: ToolRules) -> tuple[Reason, ...]:
    """What was done that the policy does not allow: each HOSTILE. Empty where all is within it.

    The path or address stands in `Reason.pointer`, cut to `MAX_POINTER_CHARS`: a server chose it, and views escape it.
    """
    found = forbidden(effects, rules)
    return (
        *_reasons("sandbox.write", (write.path for write in found.writes)),
        *_reasons("sandbox.connect", (_target(connect) for connect in found.connects)),
        *_reasons("sandbox.execute", (execute.path for execute in found.executes)),
        *_reasons("sandbox.read", found.reads),
    )


def _reasons(rule: str, places: Iterable[str]) -> tuple[Reason, ...]:
    found = [place[:MAX_POINTER_CHARS] for place in dict.fromkeys(places)]
    reasons = [Reason(rule, _TEXTS[rule], place) for place in found[:MAX_REASONS]]
    if len(found) > MAX_REASONS:
        reasons.append(Reason(rule, f"And {len(found) - MAX_REASONS} more of the same kind."))
    return tuple(reasons)


def _may_write(write: Write, rules: ToolRules) -> bool:
    if write.mode is not None and _is_special(write.mode):
        return False
    if rules.writes is not None:
        return _within(write.path, rules.writes)
    if _within(write.path, _SCRATCH):
        return True
    return (
        rules.tool_class != "read-only"
        and _is_plain(write.path)
        and any(write.path == place or write.path.startswith(place.rstrip("/") + "/") for place in rules.state)
    )


def _is_special(mode: int) -> bool:
    """A device, or a program that runs as somebody else: no glob means that."""
    return stat.S_ISBLK(mode) or stat.S_ISCHR(mode) or (stat.S_ISREG(mode) and bool(mode & (stat.S_ISUID | stat.S_ISGID)))


def _is_plain(path: str) -> bool:
    """Absolute and normalised, so that it is where its text says."""
    return path.startswith("/") and not any(part in path + "/" for part in _UNCLEAN)


def _within(path: str, globs: tuple[str, ...]) -> bool:
    return _is_plain(path) and _any(path, globs)


def _any(text: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(text, glob) for glob in globs)


def _may_connect(connect: Connect, rules: ToolRules) -> bool:
    if connect.inside:
        return True
    globs = rules.connects or ()
    if connect.port is None:  # a Unix socket: a path, which a name's or an address's glob never means
        paths = tuple(glob for glob in globs if glob.startswith(("/", "@")) or glob == "*")
        return (_is_plain(connect.address) or connect.address.startswith("@")) and _any(connect.address, paths)
    # "[" at the start is an IPv6 address's, as in [2001:db8::1]:443, and no set of characters.
    others = tuple(glob.lower().replace("[", "[[]", 1) if glob.startswith("[") else glob.lower() for glob in globs if not glob.startswith(("/", "@")))
    if _any(connect.address, others) or _any(_with_port(connect.address, connect.port), others):
        return True
    name = connect.name.rstrip(".").lower()
    named = tuple(glob for glob in others if _names_host(glob))
    return bool(name) and ":" not in name and (_any(name, named) or _any(f"{name}:{connect.port}", named))


def _names_host(glob: str) -> bool:
    """Whether a glob is for host names: its last label is literal and has a letter. `10.0.0.*` is not met by a host called 10.0.0.evil.example."""
    last = glob.rpartition(":")[0] or glob
    last = last.rpartition(".")[2]
    return any(char.isalpha() for char in last) and not any(char in "*?[" for char in last)


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _target(connect: Connect) -> str:
    target = connect.address if connect.port is None else _with_port(connect.address, connect.port)
    return f"{target} {connect.name}" if connect.name else target
