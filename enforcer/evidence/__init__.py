"""The evidence log on disk: who writes it, who checks it, and the files between them. The format stands in docs/evidence.md.

    STATE/evidence/entries-0000000000000000    a segment: a header line, then one entry a line; the number is that of its first entry
    STATE/evidence/checkpoints                 signed checkpoints (C2SP tlog-checkpoint), one after the other
    STATE/keys/evidence.key                    the signing key, in the note format of the Go checksum database (0600)
    STATE/keys/evidence.salt                   the secret that the salts of released messages are made from (0600)

What the daemon uses (`log.py`; it holds the state directory's lock already, through `Store`):

    EvidenceLog.open(state_dir: Path, server: str, publish: Callable[[str], None], *,
                     segment_bytes=64 << 20, checkpoint_s=10.0, sync_s=0.05) -> EvidenceLog
        Recovers what a crash left (a torn record is dropped, and a `Lost` entry says so), signs the tail, starts the sync thread.
        publish(text) gets every checkpoint's text, from here and later from another thread: it must only write it somewhere (the journal).
        Blocking, and quick: it reads from the segment of the last checkpoint on. Raises EvidenceError.
    log.record(event: Event) -> Position
        Write one entry with write(2); once it returns, the entry survives kill -9. Call it before the effect. Some 15 us.
        Raises EvidenceError where it could not be written (disk full, I/O error): then nothing of it is in the log, and what
        depended on it must not happen. Later calls work again once there is room; after a failed fdatasync none does.
        For the event loop's thread and any other: it takes a short lock.
    await log.synced(position: Position) -> None
        Return once everything up to the position is on the disk (fdatasync). Raises EvidenceError. Everything is synced within
        sync_s without this; awaiting it makes that happen at once, for all who wait together.
    log.close() -> None
        Sync, sign the tail, stop the thread. Record `Stopped` before. Blocking; raises EvidenceError.
    log.problem: str | None        why the log cannot be written, None while it can: for `status`
    log.size: int                  entries so far
    log.checkpoint: str            the text of the last checkpoint

The events are frozen dataclasses in `escrow.evidence.entry`, each with a docstring; `Event` is their union:

    Started(version, mode, server, policy, pid)       Stopped(why)
    Enforcing(why)                                    NotEnforcing(why)
    Judged(direction, kind, tool, server, principal, session, args_sha256, message, verdicts, ruling, recorded, policy,
           item=None, salt=None, content=False)
    Decided(item, state, by, why, tool, principal, policy, released=None, salt=None)
    PolicyChanged(before, after, by, why)
    Locked(by, why)                                   Unlocked(by, why)
    Trusted(server, tools, by)                        TokenChanged(change, token, scope, by, acts_as=None)
    CanaryChanged(change, canary, by)                 Lost(what, count, why)

Salts: `message`, `args_sha256` and `released` are committed to, never written (unless `content`). For a message in escrow give the
item's own secret as `salt` (16 to 64 random bytes, kept beside its key and destroyed with it): after a shred nobody can tell what the entry
committed to. Without `salt` it is made from evidence.salt and the entry's number, and whoever has that file can tell.

What the commands use: `verify.verify(...)`, `proof.prove(...)`, `reading.entries(...)`, `keys.public_key(...)`.
"""

from enforcer.evidence.errors import EvidenceError
from enforcer.evidence.log import EvidenceLog, Position

__all__ = ["EvidenceError", "EvidenceLog", "Position"]
