"""So many in any hour, and no more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enforcer.jury.budget import Budget


def test_an_hour_after_the_first_one_more_may_be_asked() -> None:
    budget = Budget(2)
    assert [budget.take(now) for now in (0, 10, 20, 3599, 3600, 3601, 3610)] == [True, True, False, False, True, False, True]


@given(st.integers(1, 5), st.lists(st.floats(0, 2000), max_size=60))
def test_no_sixty_minutes_hold_more(most: int, steps: list[float]) -> None:
    budget, now, taken = Budget(most), 0.0, []
    for step in steps:
        now += step
        if budget.take(now):
            taken.append(now)
    assert all(taken[at + most] - taken[at] > 3599.999 for at in range(len(taken) - most))
