"""Volatile places of tools' answers: what two twins, given one call and one state, answered differently (`escrow.sandbox.agreement.learn`).

In the keeper's memory, by tool: it has the twins, and a keeper that is new learns again. What is learned only says where answers *may* differ; the
comparison looks at the values' narrow shape each time, so a server that answers twins differently on purpose gains no place for text.

The first call of a tool waits for its second twin, so that it can agree already. The next few have theirs later than a second after the first, in
the background: that shows times of whole seconds, in which two twins that run at once agree.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from escrow.sandbox.agreement import general, learn

TIMES: Final = 3
"""Calls of a tool that are learned from."""
LATER_SECONDS: Final = 1.1
MAX_TOOLS: Final = 512
MAX_PLACES: Final = 256
"""Of one tool. One whose answers have more is not learned at all."""


@dataclass(slots=True)
class _Tool:
    tries: int = 0
    places: frozenset[str] = frozenset()


class Learned:
    """What is known of one server's tools in one era."""

    def __init__(self) -> None:
        self._tools: OrderedDict[str, _Tool] = OrderedDict()

    def of(self, tool: str) -> tuple[str, ...]:
        """Places with `-` for each list's index, in order."""
        found = self._tools.get(tool)
        return () if found is None else tuple(sorted(found.places))

    def tries(self, tool: str) -> int:
        """How many calls were taken to learn from so far."""
        return 0 if (found := self._tools.get(tool)) is None else found.tries

    def begin(self, tool: str) -> None:
        """One more is. Past its bound the tool that was called longest ago is forgotten, and learned again."""
        found = self._tools.setdefault(tool, _Tool())
        found.tries += 1
        self._tools.move_to_end(tool)
        if len(self._tools) > MAX_TOOLS:
            self._tools.popitem(last=False)

    def take(self, tool: str, one: bytes, another: bytes) -> None:
        """Two twins' answers to one call."""
        found = self._tools.get(tool)
        if found is not None:
            places = found.places | {general(place) for place in learn(one, another)}
            found.places = places if len(places) <= MAX_PLACES else frozenset()
