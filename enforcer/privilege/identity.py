"""Who the confined processes run as.

The daemon: the user `holdfast` where there is one, else a fixed number. The workers, the jury, the window, the taps and the witness: other fixed numbers,
so that not even a signal leads from one kind to another. The numbers lie in 61184–65519, which systemd reserves for users that exist only while a
service runs (systemd's "Users, Groups, UIDs and GIDs"), so no person and no package owns files under them.
"""

from __future__ import annotations

import pwd
from dataclasses import dataclass

DAEMON_USER = "holdfast"
DAEMON_ID = 61931
WORKER_ID = 61932
JURY_ID = 61933
WINDOW_ID = 61934
TAPS_ID = 61935
WITNESS_ID = 61936


@dataclass(frozen=True, slots=True)
class Identity:
    uid: int
    gid: int


def daemon() -> Identity:
    try:
        entry = pwd.getpwnam(DAEMON_USER)
    except KeyError:
        return Identity(DAEMON_ID, DAEMON_ID)
    return Identity(entry.pw_uid, entry.pw_gid)


def worker() -> Identity:
    return Identity(WORKER_ID, WORKER_ID)


def jury() -> Identity:
    return Identity(JURY_ID, JURY_ID)


def window() -> Identity:
    return Identity(WINDOW_ID, WINDOW_ID)


def taps() -> Identity:
    return Identity(TAPS_ID, TAPS_ID)


def witness() -> Identity:
    return Identity(WITNESS_ID, WITNESS_ID)
