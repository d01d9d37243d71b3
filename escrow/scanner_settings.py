"""The scanner's settings, as the policy's `[scanner]` table has them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ScannerSettings(BaseModel):
    """hostile_at, unsure_at: scores from which a text is HOSTILE, or held as UNSURE. Defaults: see `python -m tests.bench.detection`.

    quick_bytes: largest message judged in the relay's own loop. deadline_s: a judge later than this is UNSURE. workers: processes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hostile_at: float = Field(0.98, gt=0, le=1)
    unsure_at: float = Field(0.9, gt=0, le=1)
    quick_bytes: int = Field(16 * 1024, ge=0, le=64 * 1024)
    deadline_s: float = Field(20.0, gt=0, le=600)
    workers: int = Field(2, ge=1, le=64)
