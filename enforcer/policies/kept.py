"""What is kept of the running policy in the state folder: live changes and proposals, in one file that is replaced whole.

The file is synced before it takes the old one's place, and its folder after: after a crash or a power loss one of the two is there, entire.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from enforcer.policies.proposals import PolicyRefused, Proposal
from escrow.policy import PolicyError

FILE_NAME: Final = "policy.json"


@dataclass(frozen=True, slots=True)
class Change:
    """One key's live value. over: what the file said of the key; None, here and there, is the default. at: Unix seconds."""

    key: str
    over: Any
    value: Any
    by: str
    at: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """changes: in force. set_aside: overruled by an edit of the file. proposals: waiting, and the last decided ones."""

    changes: tuple[Change, ...] = ()
    set_aside: tuple[Change, ...] = ()
    proposals: tuple[Proposal, ...] = ()


_kept: TypeAdapter[Kept] = TypeAdapter(Kept)


def read_kept(folder: Path) -> Kept:
    """What an earlier run left; nothing where there is no file. Raises PolicyError where it cannot be read."""
    path = folder / FILE_NAME
    try:
        return _kept.validate_json(path.read_bytes())
    except FileNotFoundError:
        return Kept()
    except (OSError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise PolicyError(f"{FILE_NAME} in the state folder, which holds live changes of the policy, cannot be used: {why}") from None


def write_kept(folder: Path, kept: Kept) -> None:
    """Raises PolicyRefused where it cannot be written; then the old one stands."""
    path, fresh = folder / FILE_NAME, folder / f"{FILE_NAME}.new"
    try:
        fresh.unlink(missing_ok=True)
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(_kept.dump_json(kept))
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(path)
        entry = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)
    except OSError as error:
        raise PolicyRefused(f"the change could not be recorded ({error.strerror}); nothing changed") from None
