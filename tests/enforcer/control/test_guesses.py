from __future__ import annotations

from enforcer.control.guesses import FREE, MOST_ORIGINS, WINDOW_S, Guesses


def test_the_first_few_are_answered_at_once_and_the_rest_are_too_many() -> None:
    guesses = Guesses()
    assert [guesses.failed("a", 0.0) for _ in range(FREE + 3)] == [False] * FREE + [True] * 3
    assert (guesses.refused, guesses.slowed) == (FREE + 3, 3)
    assert guesses.failed("b", 0.0) is False, "another origin's are its own"


def test_after_a_while_it_begins_anew() -> None:
    guesses = Guesses()
    for _ in range(FREE + 1):
        guesses.failed("a", 0.0)
    assert guesses.failed("a", WINDOW_S) is True
    assert guesses.failed("a", WINDOW_S + 0.1) is False


def test_the_table_is_bounded_and_forgets_whom_it_heard_of_longest_ago() -> None:
    guesses = Guesses()
    for _ in range(FREE):
        guesses.failed("insistent", 0.0)
    for number in range(MOST_ORIGINS * 3):
        guesses.failed(str(number), 0.0)
        if number % 1000 == 0:
            assert guesses.failed("insistent", 0.0) is True
    assert guesses.origins == MOST_ORIGINS and guesses.refused > MOST_ORIGINS * 3
