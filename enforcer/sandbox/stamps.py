"""Which of a twin's writes are new since a moment: for twins that answer more than one call on one overlay.

By inode, size and time of change (inode(7), ctime) of what stands in the upper layers: nobody inside can set that time. Where it cannot be told, a
write counts for the later call too.
"""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from enforcer.sandbox.frozen import Layer
from enforcer.sandbox.overlay import MAX_ENTRIES
from enforcer.sandbox.tree import Bounds, open_root, walk
from escrow.sandbox.effects import Change, Write

Stamps = dict[str, tuple[int, int, int]]
"""Path as the twin sees it → inode, ctime (ns), size."""


def stamps(layers: tuple[Layer, ...], until: float) -> Stamps:
    """until: on `time.monotonic()`. Raises OSError, and Unfinished at a bound."""
    found: Stamps = {}
    for layer in layers:
        if layer.upper is None:
            continue
        root = open_root(str(layer.upper))
        try:
            found[layer.place] = _stamp(os.fstat(root))
            for entry in walk(root, Bounds(MAX_ENTRIES, until)):
                found[f"{layer.place.rstrip('/')}/{entry.path}"] = _stamp(entry.status)
        finally:
            os.close(root)
    return found


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_ctime_ns, status.st_size


def since(before: Stamps, after: Stamps, writes: tuple[Write, ...]) -> tuple[Write, ...]:
    """Those of all writes that came after `before`, and what was written earlier and is gone now."""
    new = [write for write in writes if (path := _nearest(write.path, after)) is None or before.get(path) != after[path]]
    named = {write.path for write in new}
    return (*new, *(Write(path, Change.DELETED) for path in sorted(before.keys() - after.keys() - named)))


def _nearest(path: str, found: Stamps) -> str | None:
    """What stands for a path in the upper layers: itself, or the folder above that took its place."""
    return next((str(one) for one in (PurePosixPath(path), *PurePosixPath(path).parents) if str(one) in found), None)
