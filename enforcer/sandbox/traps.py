"""What a checkpoint silently gets wrong, looked for while a template is made: a process that stands in, or holds open, what each call gets anew.

Relative reads would be stale and writes missing from the diff; a database handle would be the template's. These are mistakes of honest servers: a
lying one can hide what it holds, and gains nothing by it but wrong answers, which then disagree.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from enforcer.sandbox.runsc import Runsc, RunscError

LOOK_SECONDS = 20.0
LOOK = "for p in /proc/[0-9]*; do for f in $p/cwd $p/fd/*; do readlink $f; done; done; true"
"""Run by the root's own sh, inside the twin: nothing of the host takes part."""


def directory(path: str, places: tuple[str, ...]) -> str:
    """Why a working directory will not do; "" where it will."""
    for place in places:
        if PurePosixPath(path).is_relative_to(place):
            return f"the server's working directory {path} lies inside its state {place}: relative paths would reach the template's state, not the call's"
    return ""


async def held(runsc: Runsc, name: str, places: tuple[str, ...]) -> str:
    """Why the running processes of a twin cannot be checkpointed; "" where they can. Without state there is nothing to look for."""
    if not places:
        return ""
    try:
        found = await runsc.finish("exec", name, "/bin/sh", "-c", LOOK, seconds=LOOK_SECONDS)
    except RunscError as error:
        return f"what the server holds open could not be seen (it takes a /bin/sh and readlink in the root): {error}"
    for line in found.decode(errors="replace").splitlines():
        path = re.sub(r" \(deleted\)$", "", line)
        for place in places:
            if path.startswith("/") and PurePosixPath(path).is_relative_to(place):
                return f"the server holds {path} open, inside its state {place}: open it in the call, not at start"
    return ""
