"""At which line each key stands, whatever TOML allows between them."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.policy import PolicyError, load
from escrow.policy.places import Path, line_of, lines


@pytest.mark.parametrize(
    "text, path, line",
    [
        ("a = 1", ("a",), 1),
        ("\n\n# c\na = 1", ("a",), 4),
        ("[t]\na = 1", ("t", "a"), 2),
        ("[t.u]\n[t]\na = 1", ("t", "a"), 3),
        ("t.u.a = 1", ("t", "u", "a"), 1),
        ("t = { u = { a = 1 } }\nb = 2", ("t", "u", "a"), 1),
        ("t = { u = { a = 1 } }\nb = 2", ("b",), 2),
        ("a = [\n 1, # ]\n 2\n]\nb = 1", ("b",), 5),
        ('a = """\n[t]\nb = 1\n"""\nb = 2', ("b",), 5),
        ("a = '''\n[t]\nb = 1 ''\n'''\nb = 2", ("b",), 5),
        ('a = """x\\"""\n""""\nb = 2', ("b",), 3),
        ('a = "[" # [\nb = 2', ("b",), 2),
        ("a = '['\nb = 2", ("b",), 2),
        ('a = "\\"["\r\nb = 2\r\n', ("b",), 2),
        ('"a b" = 1\n"c.d" = 2', ("c.d",), 2),
        ("[[r]]\na = 1\n[[r]]\na = 2", ("r",), 1),
        ("[[r]]\na = 1\n[[r]]\na = 2", ("r", 1), 3),
        ("[[r]]\na = 1\n[[r]]\na = 2", ("r", 1, "a"), 4),
        ("[[r]]\n[r.s]\na = 1\n[[r]]\n[[r.t]]\n[[r.t]]\nb = 1", ("r", 1, "t", 1, "b"), 7),
        ("[[r]]\n[r.s]\na = 1", ("r", 0, "s", "a"), 3),
        ("[ 'q' . b ] # c\na = 1", ("q", "b", "a"), 2),
    ],
)
def test_a_key_is_found_at_its_line(text: str, path: Path, line: int) -> None:
    tomllib.loads(text)
    assert lines(text)[path] == line


def test_what_has_no_line_of_its_own_has_that_of_what_holds_it() -> None:
    found = lines("x = 1\n[t]\na = [1, 2]")
    assert (line_of(found, ("t", "a", 1)), line_of(found, ("t", "missing")), line_of(found, ("nowhere",)), line_of(found, ())) == (3, 2, None, None)


values = st.one_of(
    st.integers(), st.booleans(), st.text(alphabet="ab[]{}#'\"\\\n= ", max_size=12), st.lists(st.text(alphabet="[]\"'\n#", max_size=5), max_size=3)
)


@given(st.lists(st.tuples(values, st.booleans(), st.integers(0, 2)), max_size=6))
def test_any_values_between_do_not_move_the_lines(rows: list[tuple[object, bool, int]]) -> None:
    from escrow.policy.patch import render

    text, expected = "", {}
    for number, (value, literal, blanks) in enumerate(rows):
        text += "\n" * blanks
        expected[(f"k{number}",)] = text.count("\n") + 1
        if literal and isinstance(value, str) and "'" not in value:
            text += f"k{number} = '''{value}'''\n"
        else:
            text += render({f"k{number}": value})
    tomllib.loads(text)
    assert lines(text) == expected


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r"])
def test_the_last_line_may_end_in_any_way(end: str) -> None:
    """One that ended in a bare CR raised tomllib's own error."""
    with pytest.raises(PolicyError, match="line 2: unheard_of"):
        load("fail = 'closed'\nunheard_of = 1" + end)
    assert load("fail = 'closed'" + end).fail == "closed"
