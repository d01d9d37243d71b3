from __future__ import annotations

from enforcer.helper.backoff import HEALTHY_S, next_delay


def test_restarts_come_after_1_2_4_and_at_most_30_seconds() -> None:
    delays, delay = [], 0.0
    for _ in range(8):
        delay = next_delay(delay, lived_s=0.1)
        delays.append(delay)
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]


def test_one_that_lived_for_long_starts_anew() -> None:
    assert next_delay(30, lived_s=HEALTHY_S) == 1
