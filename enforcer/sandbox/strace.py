"""One line of gVisor's strace log (runsc 20240729, `pkg/sentry/strace`), as a call. Pure.

    I1201 02:42:16.038088    6249 strace.go:570] [   1:   1] python3 E openat(0x3 /etc, 0x7ea1003fb050 passwd, O_RDONLY|O_CLOEXEC, 0o0)
    I1201 02:42:16.038096    6249 strace.go:608] [   1:   1] python3 X openat(0x3 /etc, 0x7ea1003fb050 passwd, O_RDONLY|O_CLOEXEC, 0o0) = 4 (0x4) (3.5µs)

Only blobs and arguments of `execve` are quoted (Go's %q). Paths, working directories and the process's own name stand there as they are: with
newlines, commas and brackets, whatever the process chose. So a line is taken only where it can be read in one way:

* ` E name(` or ` X name(` begins once within the 16 bytes that a process's name may have: the true one does, so what stands once is the true one;
* the arguments split in one way only: `, 0x` stands there as often as the call's form has it, and `) = ` in no path;
* a newline cuts a call's entry and its exit behind the same text. The entry's form ends in `)` without `) = `, the exit's with a result and a
  duration, so that no text passes as both: a cut call shows in one of its two lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_HEADER = re.compile(rb"[IDWEF][0-9]{4} [0-9:.]{15} +[0-9]{1,10} ([A-Za-z0-9_.-]{1,64}):[0-9]{1,6}\] (.*)", re.DOTALL)
_TASK = re.compile(rb"\[ *([0-9]{1,10}): *([0-9]{1,10})\] ")
_CALL = re.compile(rb" ([EX]) ([a-z][a-z0-9_]{0,31})\(")
_RESULT = re.compile(rb"\) = (?:-?[0-9]{1,20} \(0x[0-9a-f]{1,16}\)|0x[0-9a-f]{1,16})(?: errno=([0-9]{1,5}) \([^()\n]{1,200}\))? \([0-9.a-z\xc2\xb5]{1,32}\)$")

_COMM = 16
"""Most bytes of a process's name (TASK_COMM_LEN): the call's own mark begins within them."""

_FD = rb"(?P<fd>(?:AT_FDCWD|0x[0-9a-f]{1,16}) [^\n]*)"
_HEX = rb"0x[0-9a-f]{1,16}"
_PATH = _HEX + rb" (?P<path>[^\n]*)"
_PATH2 = _HEX + rb" (?P<to>[^\n]*)"
_DIR2 = rb"(?P<dir2>0x[0-9a-f]{1,16}|AT_FDCWD [^\n]*)"
_QUOTED = rb'"(?:[^"\\\n]|\\[^\n])*"'
_VECTOR = rb"\[(?P<argv>(?:" + _QUOTED + rb"(?:, " + _QUOTED + rb")*)?)\]"
_ENV = rb"\[(?:" + _QUOTED + rb"(?:, " + _QUOTED + rb")*)?\]"
_SOCKADDR = rb"(?:" + _HEX + rb" \{(?P<sockaddr>[^{}\n]*)\}|(?P<null>null))"
_FLAGS = rb"(?P<flags>[A-Z0-9_x|a-f]{1,512})"
_MODE = rb"0?o?(?P<mode>[0-7]{1,8})"
_NUMBER = rb"(?:0x[0-9a-f]{1,16}|0o[0-7]{1,24})"
_DATA = rb"(?:" + _HEX + rb" (?P<data>" + _QUOTED + rb")(?:\.\.\.)?)?"
"""Nothing stands there for no bytes."""


def _form(*fields: bytes) -> re.Pattern[bytes]:
    return re.compile(rb", ".join(fields), re.DOTALL)


# fmt: off
FORMS: dict[str, tuple[re.Pattern[bytes], int]] = {
    "open": (_form(_PATH, _FLAGS, _MODE), 0),
    "openat": (_form(_FD, _PATH, _FLAGS, _MODE), 1),
    "creat": (_form(_PATH, _NUMBER), 0),
    "truncate": (_form(_PATH, _HEX), 1),
    "mkdir": (_form(_PATH, _NUMBER), 0),
    "rmdir": (_form(_PATH), 0),
    "unlink": (_form(_PATH), 0),
    "chmod": (_form(_PATH, _MODE), 0),
    "rename": (_form(_PATH, _PATH2), 1),
    "link": (_form(_PATH, _PATH2), 1),
    "symlink": (_form(_PATH, _PATH2), 1),
    "execve": (_form(_PATH, _HEX + b" " + _VECTOR, _HEX + b" " + _ENV), 2),
    "connect": (_form(_FD, _SOCKADDR, _HEX), 2),
    "sendto": (_form(_FD, _HEX, _HEX, _HEX, _SOCKADDR, _HEX), 5),
    "write": (_form(_FD, _DATA, _HEX), 2),
    "sendmmsg": (_form(_FD, _HEX, _HEX, _HEX), 3),
    "mkdirat": (_form(_FD, _PATH, _NUMBER), 2),
    "unlinkat": (_form(_FD, _PATH, _NUMBER), 2),
    "fchmodat": (_form(_FD, _PATH, _MODE), 1),
    "renameat": (_form(_FD, _PATH, _DIR2, _PATH2), 3),
    "renameat2": (_form(_FD, _PATH, _DIR2, _PATH2, _NUMBER), 4),
    "linkat": (_form(_FD, _PATH, _DIR2, _PATH2, _NUMBER), 4),
    "symlinkat": (_form(_HEX + rb" [^\n]*", _FD, _PATH), 2),
    "read": (_form(_FD, _HEX, _HEX), 2),
    "pread64": (_form(_FD, _HEX, _HEX, _HEX), 3),
    "getdents64": (_form(_FD, _HEX, _HEX), 2),
}
# fmt: on
"""Call → the form of its arguments at entry, and how often `, 0x` stands between them, but in data. A null socket address takes one off."""


class Unreadable(Exception):
    """A line that may be a call and cannot be read in one way. `str()` says why, without quoting it."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call's entry, or its exit. task: process and thread, as the log names them. errno: of an exit that failed, else None.

    fields: by the names of `FORMS`; empty at an exit, and of a call without a form.
    """

    edge: Literal["enter", "exit"]
    name: str
    task: tuple[int, int]
    fields: dict[str, bytes]
    errno: int | None = None


def is_headed(line: bytes) -> bool:
    """Whether it begins as the log's lines do. What does not is the rest of the line before."""
    return _HEADER.match(line) is not None


def parse(line: bytes) -> Call | None:
    """The call in a line of the log, None of a line of another kind. line: without its newline. Raises Unreadable."""
    header = _HEADER.match(line)
    if header is None or header[1] != b"strace.go":
        return None
    task = _TASK.match(header[2])
    if task is None:
        return None  # strace's own words, not a task's
    text = header[2]
    found = [match for match in _CALL.finditer(text, task.end() - 1, task.end() + 64) if match.start() < task.end() + _COMM]
    if len(found) != 1:
        raise Unreadable("a traced line that names no call, or more than one")
    edge, name = found[0][1], found[0][2].decode()
    ids = (int(task[1]), int(task[2]))
    rest = text[found[0].end() :]
    result = _RESULT.search(rest)
    if edge == b"X":
        if result is None:
            raise Unreadable("a call's exit that is cut")
        return Call("exit", name, ids, _arguments(name, rest[: result.start()]) if name in ("connect", "sendto") else {}, int(result[1]) if result[1] else None)
    fields = _arguments(name, rest[:-1])
    if not rest.endswith(b")") or any(b") = " in fields.get(key, b"") for key in ("fd", "path", "to")) or (not fields and b") = " in rest):
        raise Unreadable("a call's entry that is cut")
    if any(fields.get(key, b"").startswith(b"(error decoding path: ") for key in ("path", "to")):
        raise Unreadable("a call whose arguments gVisor could not read")
    return Call("enter", name, ids, fields)


def _arguments(name: str, text: bytes) -> dict[str, bytes]:
    if name not in FORMS:
        return {}
    form, marks = FORMS[name]
    match = form.fullmatch(text)
    if match is None:
        raise Unreadable(f"arguments of {name} in no known form")
    fields = {key: value for key, value in match.groupdict().items() if value is not None}
    outside = text.count(b", 0x") - fields.get("data", b"").count(b", 0x")
    if outside != marks - ("null" in fields) - (name == "write" and "data" not in fields):
        raise Unreadable(f"arguments of {name} that can be read in more than one way")
    return fields


_ESCAPES = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"\\": b"\\", b'"': b'"'}
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)", re.DOTALL)
_ONE = re.compile(_QUOTED)


def _plain(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if code[:1] == b"x" and len(code) == 3:
        return bytes([int(code[1:], 16)])
    if code[:1] in (b"u", b"U") and len(code) > 1:
        number = int(code[1:], 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise Unreadable("a quoted text with an unknown escape")
        return chr(number).encode()
    if code not in _ESCAPES:
        raise Unreadable("a quoted text with an unknown escape")
    return _ESCAPES[code]


def unquoted(text: bytes) -> bytes:
    """What Go's %q has quoted. Raises Unreadable."""
    return _ESCAPE.sub(_plain, text[1:-1])


def vector(text: bytes) -> list[bytes]:
    """The strings of an argument vector. Raises Unreadable."""
    return [unquoted(match[0]) for match in _ONE.finditer(text)]
