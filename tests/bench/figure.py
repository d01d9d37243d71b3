"""A measured figure with its goal: the shape of build/bench.json."""

from __future__ import annotations

from typing import TypedDict


class Figure(TypedDict):
    """goal: the bound in `unit`, or None where the figure only informs; met: None then."""

    id: str
    value: float
    unit: str
    goal: float | None
    met: bool | None


def figure(name: str, value: float, unit: str, *, at_most: float | None = None, at_least: float | None = None) -> Figure:
    """A figure, compared with at most one bound."""
    met = None
    if at_most is not None:
        met = value <= at_most
    elif at_least is not None:
        met = value >= at_least
    return {"id": name, "value": round(value, 3), "unit": unit, "goal": at_most if at_most is not None else at_least, "met": met}
