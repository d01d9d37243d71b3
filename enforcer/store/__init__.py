"""Where held messages are kept: SQLite files in the state directory (0700), payloads encrypted with a key each.

`items.db` (WAL, synced at every commit) has the items and the encrypted payloads; `keys.db` (no WAL, `secure_delete`) the keys, so that
destroying one row destroys one payload. A `Store` belongs to one thread.
"""

from enforcer.store.store import Store, StoreError, read_secret

__all__ = ["Store", "StoreError", "read_secret"]
