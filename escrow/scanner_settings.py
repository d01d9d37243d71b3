"""The scanner's settings, as the policy's `[scanner]` table has them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ScannerSettings(BaseModel):
    """Thresholds and bounds. The defaults of the thresholds are measured: `python -m tests.bench.detection`.

    unsure_at, hostile_at: scores from which a text is held as UNSURE, and is HOSTILE.
    quick_bytes, quick_leaves, quick_windows: largest message, most leaves and most windows judged in the relay's own loop.
    outgoing_quick_bytes: largest message of a client judged in the relay's own loop; no model takes part in it.
    max_windows: most windows (about three sentences each) the classifier reads of one message; beyond it the message is UNSURE.
    max_leaves, max_forms, max_depth, max_chars: bounds of unpacking one message; beyond them it is UNSURE.
    deadline_s: a judge later than this is UNSURE. missing_s: how long a message waits for a worker to exist.
    queue_jobs, queue_bytes: most messages and bytes that wait for a worker; one more is UNSURE.
    small_bytes: messages up to this size have a worker that no larger one may take (with two workers or more).
    workers: processes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unsure_at: float = Field(0.5, gt=0, le=1)
    hostile_at: float = Field(0.9, gt=0, le=1)
    quick_bytes: int = Field(16 * 1024, ge=0, le=64 * 1024)
    quick_leaves: int = Field(512, ge=1)
    quick_windows: int = Field(256, ge=1)
    outgoing_quick_bytes: int = Field(4 * 1024, ge=0, le=64 * 1024)
    max_windows: int = Field(3000, ge=1)
    max_leaves: int = Field(1_000_000, ge=1)
    max_forms: int = Field(4096, ge=1)
    max_depth: int = Field(5, ge=1, le=16)
    max_chars: int = Field(64 * 1024 * 1024, ge=1)
    deadline_s: float = Field(30.0, gt=0, le=600)
    missing_s: float = Field(5.0, ge=0, le=600)
    queue_jobs: int = Field(256, ge=1)
    queue_bytes: int = Field(256 * 1024 * 1024, ge=1)
    small_bytes: int = Field(64 * 1024, ge=0)
    workers: int = Field(2, ge=1, le=64)

    @model_validator(mode="after")
    def _ordered(self) -> ScannerSettings:
        if self.unsure_at > self.hostile_at:
            raise ValueError("unsure_at must not be above hostile_at")
        return self
