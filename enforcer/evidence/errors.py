"""What goes wrong with the evidence log."""

from __future__ import annotations


class EvidenceError(Exception):
    """The log cannot be opened, written or synced. `str()` says why and what to do; it holds nothing an attacker wrote."""
