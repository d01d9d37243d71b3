"""What a supervisor's token may do. Pure."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """Every token may read. Neither of the two others includes the other."""

    READ = "read"
    """See what is held and why, verdicts, the policy, whether the log is sound. No payloads."""
    POLICY = "policy"
    """Propose changes of the policy; lock and unlock."""
    APPROVE = "approve"
    """Decide held items, and see their payloads: not those of the principals it acts as, nor its own."""
