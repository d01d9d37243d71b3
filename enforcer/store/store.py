"""The store: items, payloads, trusted tools."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import TypeAdapter

from escrow.item import Item, Payload, State

_ITEMS = """
CREATE TABLE IF NOT EXISTS items (id TEXT PRIMARY KEY, state TEXT NOT NULL, held_at REAL NOT NULL, item TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_by_state ON items (state, held_at);
CREATE INDEX IF NOT EXISTS items_by_time ON items (held_at);
CREATE TABLE IF NOT EXISTS payloads (id TEXT PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS tools (server TEXT NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL, definition TEXT NOT NULL, trusted_at REAL NOT NULL,
  trusted_by TEXT NOT NULL, PRIMARY KEY (server, name, sha256)) STRICT;
CREATE TABLE IF NOT EXISTS offered (server TEXT NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL, definition TEXT NOT NULL, seen_at REAL NOT NULL,
  PRIMARY KEY (server, name)) STRICT;
CREATE TABLE IF NOT EXISTS baselines (server TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS lock (one INTEGER PRIMARY KEY CHECK (one = 1), by TEXT NOT NULL, why TEXT NOT NULL, at REAL NOT NULL) STRICT;
"""

_KEYS = "CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, key BLOB NOT NULL) STRICT;"

_item = TypeAdapter(Item)


class StoreError(Exception):
    """The store cannot be opened, read or written. `str()` says why and what to do."""


class Store:
    """Items and payloads on disk. Every write is synced (fdatasync) before the method returns.

    Raises StoreError from any method when the disk is full, the file is damaged or locked.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if directory.stat().st_mode & 0o077:
                directory.chmod(0o700)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError("another Holdfast uses this state directory: stop it, or give --state-dir another") from None
        except OSError as error:
            raise StoreError(f"the state directory cannot be used: {error.strerror}") from None
        old = os.umask(0o077)
        try:
            self._items = _open(directory / "items.db", "WAL", _ITEMS)
            try:
                self._keys = _open(directory / "keys.db", "DELETE", _KEYS)
            except StoreError:
                self._items.close()
                raise
        except StoreError:
            os.close(self._lock)
            raise
        finally:
            os.umask(old)

    def close(self) -> None:
        self._items.close()
        self._keys.close()
        os.close(self._lock)

    def put(self, item: Item, payload: Payload) -> bytes:
        """Write a new item with its payload; returns its secret, as `secret` does.

        The key is written first: a crash between leaves a key of nothing, never a payload without one.
        """
        key = AESGCM.generate_key(bit_length=256)
        sealed = _seal(key, item.id, payload)
        self._run(self._keys, [("INSERT INTO keys VALUES (?, ?)", (item.id, key))])
        self._run(
            self._items,
            [
                ("INSERT INTO items VALUES (?, ?, ?, ?)", (item.id, item.state.value, item.held_at, _item.dump_json(item).decode())),
                ("INSERT INTO payloads VALUES (?, ?)", (item.id, sealed)),
            ],
        )
        return _secret(key)

    def secret(self, item_id: str) -> bytes | None:
        """16 bytes that stand and fall with the payload's key: what commitments to it are salted with. None where it was shredded."""
        key = self._key(item_id)
        return None if key is None else _secret(key)

    def update(self, item: Item) -> None:
        """Write an item's new state."""
        self._run(self._items, [("UPDATE items SET state = ?, item = ? WHERE id = ?", (item.state.value, _item.dump_json(item).decode(), item.id))])

    def replace_payload(self, item: Item, payload: Payload) -> None:
        """Seal a payload anew under its key (an approval with redactions adds what it releases)."""
        key = self._key(item.id)
        if key is None:
            raise StoreError("the payload's key is gone")
        self._run(self._items, [("UPDATE payloads SET sealed = ? WHERE id = ?", (_seal(key, item.id, payload), item.id))])

    def get(self, item_id: str) -> Item | None:
        rows = self._rows("SELECT item FROM items WHERE id = ?", (item_id,))
        return _item.validate_json(rows[0][0]) if rows else None

    def list_items(self, states: tuple[State, ...] = tuple(State), limit: int = 1000, before: tuple[float, str] | None = None) -> list[Item]:
        """Items in these states, oldest first, the newest `limit` of them. before: only those older than the item held then, with this id."""
        wanted = [state.value for state in states]
        marks = ",".join("?" * len(wanted))
        older = "" if before is None else " AND (held_at, id) < (?, ?)"
        rows = self._rows(f"SELECT item FROM items WHERE state IN ({marks}){older} ORDER BY held_at DESC, id DESC LIMIT ?", (*wanted, *(before or ()), limit))
        return [_item.validate_json(row[0]) for row in reversed(rows)]

    def counts(self) -> dict[str, int]:
        """How many items stand in each state."""
        return {state: count for state, count in self._rows("SELECT state, count(*) FROM items GROUP BY state", ())}

    def payload(self, item_id: str) -> Payload | None:
        """The payload, None where it was shredded. Raises StoreError where it was altered."""
        key = self._key(item_id)
        rows = self._rows("SELECT sealed FROM payloads WHERE id = ?", (item_id,))
        if key is None or not rows:
            return None
        return _unseal(key, item_id, rows[0][0])

    def shred(self, item: Item) -> None:
        """Destroy key and payload, then write the item's state. The key goes first: from then on nothing can be read."""
        self._run(self._keys, [("DELETE FROM keys WHERE id = ?", (item.id,))])
        self._run(self._items, [("DELETE FROM payloads WHERE id = ?", (item.id,))])
        self.update(item)
        self._items.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # --- tool definitions ---

    def tools(self, server: str) -> list[dict[str, Any]]:
        """What stands trusted and what was last offered, by tool: {name, offered, trusted} (definitions as JSON text or None)."""
        trusted: dict[str, list[tuple[str, str]]] = {}
        for name, digest, definition in self._rows("SELECT name, sha256, definition FROM tools WHERE server = ? ORDER BY trusted_at", (server,)):
            trusted.setdefault(name, []).append((digest, definition))
        offered = {row[0]: (row[1], row[2]) for row in self._rows("SELECT name, sha256, definition FROM offered WHERE server = ?", (server,))}
        found = []
        for name in sorted(trusted.keys() | offered.keys()):
            digest, definition = offered.get(name, (None, None))
            known = trusted.get(name, [])
            state = "trusted" if digest is None or digest in {d for d, _ in known} else ("changed" if known else "new")
            found.append({"name": name, "state": state, "offered": definition, "trusted": known[-1][1] if known else None})
        return found

    def trusted(self, server: str) -> tuple[frozenset[tuple[str, str]], bool]:
        """Digests of trusted definitions as (name, sha256), and whether the first listing is complete."""
        rows = self._rows("SELECT name, sha256 FROM tools WHERE server = ?", (server,))
        return frozenset((name, digest) for name, digest in rows), bool(self._rows("SELECT 1 FROM baselines WHERE server = ?", (server,)))

    def offer(self, server: str, tools: list[tuple[str, str, str]], at: float) -> None:
        """Remember the definitions last offered: (name, sha256, definition)."""
        self._run(self._items, [("INSERT OR REPLACE INTO offered VALUES (?, ?, ?, ?, ?)", (server, *tool, at)) for tool in tools])

    def withdraw(self, server: str, tools: list[tuple[str, str]]) -> None:
        """Forget definitions that were offered and never trusted: (name, sha256)."""
        self._run(self._items, [("DELETE FROM offered WHERE server = ? AND name = ? AND sha256 = ?", (server, *tool)) for tool in tools])

    def trust(self, server: str, tools: list[tuple[str, str, str]], by: str, at: float, complete: bool) -> None:
        """Trust definitions: (name, sha256, definition). complete: from now on any other definition is a change."""
        work: list[tuple[str, tuple[Any, ...]]] = [("INSERT OR REPLACE INTO tools VALUES (?, ?, ?, ?, ?, ?)", (server, *tool, at, by)) for tool in tools]
        if complete:
            work.append(("INSERT OR IGNORE INTO baselines VALUES (?)", (server,)))
        self._run(self._items, work)

    def offered(self, server: str) -> list[tuple[str, str, str]]:
        return [(row[0], row[1], row[2]) for row in self._rows("SELECT name, sha256, definition FROM offered WHERE server = ?", (server,))]

    # --- the kill switch ---

    def locked(self) -> tuple[str, str, float] | None:
        """(by, why, at) where a person has locked the server."""
        rows = self._rows("SELECT by, why, at FROM lock", ())
        return (rows[0][0], rows[0][1], rows[0][2]) if rows else None

    def lock(self, by: str, why: str, at: float) -> None:
        self._run(self._items, [("INSERT OR REPLACE INTO lock VALUES (1, ?, ?, ?)", (by, why, at))])

    def unlock(self) -> None:
        self._run(self._items, [("DELETE FROM lock", ())])

    # --- SQLite ---

    def _key(self, item_id: str) -> bytes | None:
        try:
            row = self._keys.execute("SELECT key FROM keys WHERE id = ?", (item_id,)).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"the store cannot be read: {error}") from None
        return row[0] if row else None

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            return self._items.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"the store cannot be read: {error}") from None

    def _run(self, database: sqlite3.Connection, work: list[tuple[str, tuple[Any, ...]]]) -> None:
        try:
            with database:
                database.execute("BEGIN IMMEDIATE")
                for statement, values in work:
                    database.execute(statement, values)
        except sqlite3.Error as error:
            raise StoreError(f"the store cannot be written: {error}") from None


def _open(path: Path, journal: str, schema: str) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2.0)
    except sqlite3.Error as error:
        raise StoreError(f"{path.name} cannot be opened: {error}") from None
    try:
        database.execute(f"PRAGMA journal_mode = {journal}").fetchall()
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA secure_delete = ON").fetchall()
        database.execute("PRAGMA temp_store = MEMORY")
        database.executescript(schema)
    except sqlite3.Error as error:
        database.close()
        raise StoreError(f"{path.name} cannot be opened: {error}") from None
    return database


def read_secret(directory: Path, item_id: str) -> bytes | None:
    """As `Store.secret`, beside a daemon that has the store: for commands. Raises StoreError."""
    try:
        database = sqlite3.connect(f"{(directory / 'keys.db').absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)
        try:
            row = database.execute("SELECT key FROM keys WHERE id = ?", (item_id,)).fetchone()
        finally:
            database.close()
    except sqlite3.Error as error:
        raise StoreError(f"the store's keys cannot be read: {error}") from None
    return None if row is None else _secret(row[0])


def _secret(key: bytes) -> bytes:
    return hashlib.sha256(b"holdfast evidence\0" + key).digest()[:16]


def _seal(key: bytes, item_id: str, payload: Payload) -> bytes:
    """AES-256-GCM, the item's id as associated data: a payload moved to another item does not open.

    Plaintext: a JSON head {headers, raw: bytes, released: bytes | null, sandbox: text | null} on one line, then the two byte strings.
    """
    released = payload.released
    head = json.dumps(
        {"headers": payload.headers, "raw": len(payload.raw), "released": None if released is None else len(released), "sandbox": payload.sandbox}
    )
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, head.encode() + b"\n" + payload.raw + (released or b""), item_id.encode())


def _unseal(key: bytes, item_id: str, sealed: bytes) -> Payload:
    try:
        plain = AESGCM(key).decrypt(sealed[:12], sealed[12:], item_id.encode())
    except Exception as error:  # cryptography raises InvalidTag or ValueError by what was altered
        raise StoreError(f"the payload of {item_id} was altered on disk ({type(error).__name__})") from None
    line, _, rest = plain.partition(b"\n")
    head = json.loads(line)
    raw = rest[: head["raw"]]
    released = None if head["released"] is None else rest[head["raw"] :]
    return Payload(raw, tuple((name, value) for name, value in head["headers"]), released, head.get("sandbox"))
