"""What is said to the outside beside the evidence log's files: checkpoints, so that a copy of each is kept elsewhere, and alarms.

They go to standard error, which systemd's journal and container engines collect; checkpoints not to a terminal, where nobody keeps them.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from contextlib import suppress


class NotPublished(Exception):
    """Whoever reads standard error is behind, or gone."""


def publish(checkpoint: str) -> None:
    """One JSON line, written at once or not at all: the log's own thread must not wait for a reader. Raises NotPublished, OSError."""
    if not os.isatty(sys.stderr.fileno()):
        tell({"event": "checkpoint", "checkpoint": checkpoint})


def tell(event: dict[str, object]) -> None:
    """The same with any event, also to a terminal. Raises NotPublished, OSError."""
    descriptor = sys.stderr.fileno()
    line = json.dumps(event).encode() + b"\n"
    ready = select.poll()
    ready.register(descriptor, select.POLLOUT)
    # A pipe that is ready takes PIPE_BUF bytes whole (pipe(7)), and no line is longer.
    if len(line) > select.PIPE_BUF or not ready.poll(0) or os.write(descriptor, line) != len(line):
        raise NotPublished


def bypass(what: str, where: str) -> None:
    """Something certainly passed the gate by. The evidence log has it in any case, so that a reader who is behind misses nothing for good."""
    with suppress(OSError, NotPublished):
        tell({"event": "bypass", "what": what, "where": where, "at": time.time()})
