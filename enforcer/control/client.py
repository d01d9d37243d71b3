"""The command line's end of the control socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Unreachable(Exception):
    """No daemon answers. `str()` says what to do."""


class Refused(Exception):
    """The daemon says no, and why."""


def ask(path: Path, op: str, timeout_s: float = 60.0, **args: Any) -> Any:
    """One question, one answer. Raises Unreachable, Refused."""
    return next(follow(path, op, timeout_s, **args))


def follow(path: Path, op: str, timeout_s: float | None = None, **args: Any) -> Iterator[Any]:
    """One question, answers as they come. Raises Unreachable, Refused."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            sock.connect(str(path))
            sock.sendall(json.dumps({"op": op, **args}).encode() + b"\n")
            with sock.makefile("rb") as lines:
                got = False
                for line in lines:
                    got = True
                    answer = json.loads(line)
                    if "refused" in answer:
                        raise Refused(answer["refused"])
                    yield answer["value"]
                if not got:
                    raise ConnectionResetError
    except (ConnectionResetError, BrokenPipeError):
        raise Unreachable("the daemon closed the connection: only root and the user it was started by may ask") from None
    except PermissionError:
        raise Unreachable(f"{path}: permission denied; run this as root, or as the user who started it") from None
    except (OSError, ValueError) as error:
        raise Unreachable(f"no Holdfast answers at {path} ({error}); start one, or name its --runtime-dir") from None
