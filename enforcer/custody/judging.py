"""Which judges speak about a message, and what they say together. A judge that fails says UNSURE."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from enforcer.custody.definitions import Definitions, begins
from enforcer.custody.records import Outcome
from enforcer.custody.reverting import Clones
from enforcer.custody.speculating import Speculator
from enforcer.custody.traffic import Arrival
from escrow import jsonrpc
from escrow.decision import Decision, Ruling, decide
from escrow.policy import ToolRules
from escrow.taint import NOTHING, Sightings, Taint
from escrow.verdict import Finding, Verdict, unsure

Verdicts = tuple[Verdict, ...]


class Heard(NamedTuple):
    """All that was said of one message."""

    verdicts: Verdicts
    seen: Sightings = NOTHING


@dataclass(frozen=True, slots=True)
class Said:
    """What a judge says of a message, and whom the message names."""

    verdict: Verdict
    seen: Sightings = NOTHING
    alone: Heard = field(init=False, repr=False, compare=False)
    """This, where no other judge speaks. Made once: what is said of a message is said again of many."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "alone", Heard((self.verdict,), self.seen))


Judge = Callable[[jsonrpc.Message], Awaitable[Said]]
"""A judge: takes a message, never raises by contract; where it does, that is UNSURE."""
Quick = Callable[[jsonrpc.Message], Said | None]
"""The same at once, in the loop, within hard bounds; None: not at once."""
Juror = Callable[[jsonrpc.Message, Verdict], Awaitable[Verdict | None]]
"""A further judge of what the scanner is not sure about; None: not asked."""

MOST_SESSIONS = 1024
"""Sessions whose taint is remembered; the least recently used go first."""


def _never(_message: jsonrpc.Message) -> Said | None:
    return None


@dataclass(frozen=True, slots=True)
class Judges:
    """The judges there are. result, quick: of what comes back. request, request_quick: of what goes out (None: nobody judges that)."""

    result: Judge
    quick: Quick = _never
    request: Judge | None = None
    request_quick: Quick = _never
    jury: Juror | None = None
    in_band: Callable[[Verdict], bool] = lambda _verdict: False
    """Whether the jury is to be asked about a message of which the scanner says this."""
    twins: Speculator | None = None
    """Who runs calls in twins."""
    clones: Clones | None = None
    """Who keeps clones of servers' state."""


class Judging:
    """See the module. locked: whether a person has locked the server, in which case whatever still comes is held."""

    def __init__(self, judges: Judges, definitions: Definitions, locked: Callable[[], bool]) -> None:
        self.judges, self._definitions, self._locked = judges, definitions, locked
        self._taints: OrderedDict[str, Taint] = OrderedDict()

    # --- what comes back ---

    def at_once(self, arrival: Arrival, rules: ToolRules) -> Heard | None:
        """What comes back, judged in the loop; None where that cannot be."""
        if self._locked() or len(arrival.message.raw) > rules.result_bytes:
            return None
        message = arrival.message
        said = self.judges.quick(message)
        if said is None or (self._has_jury(rules) and self.judges.in_band(said.verdict)):
            return None
        beside = self._beside(arrival)
        return Heard((said.verdict, *beside), said.seen) if beside else said.alone

    async def whole(self, arrival: Arrival, rules: ToolRules) -> Heard:
        """What comes back, judged by everybody who has a say."""
        said = await self.scan(arrival.message)
        verdicts = [said.verdict, *self._beside(arrival)]
        if len(arrival.message.raw) > rules.result_bytes:
            verdicts.append(unsure("bounds", "bounds.size", "It is larger than the policy allows for this tool."))
        if self.judges.jury is not None and self._has_jury(rules) and self.judges.in_band(said.verdict):
            try:
                juror = await self.judges.jury(arrival.message, said.verdict)
            except Exception as error:
                juror = unsure("jury", "jury.failed", f"The jury failed ({type(error).__name__}).")
            if juror is not None:
                verdicts.append(juror)
        if self._locked():
            verdicts.append(unsure("lock", "lock.held", "The server is locked: nothing is released until a person unlocks it."))
        return Heard(tuple(verdicts), said.seen)

    def _beside(self, arrival: Arrival) -> Verdicts:
        message = arrival.message
        if not isinstance(message, jsonrpc.Response) or message.is_error:
            return ()
        if arrival.call is None:
            return (unsure("pairing", "pairing.unknown", "It answers no request that passed here."),)
        return (self._definitions.judge(message, begins(arrival)),) if arrival.call.method == "tools/list" else ()

    async def scan(self, message: jsonrpc.Message) -> Said:
        """What the scanner says of a message that comes back."""
        try:
            return await self.judges.result(message)
        except Exception as error:
            return Said(unsure("scanner", "scanner.failed", f"The scanner failed ({type(error).__name__})."))

    def _has_jury(self, rules: ToolRules) -> bool:
        return self.judges.jury is not None and "jury" in rules.judges

    def came(self, session: str, tool: str, seen: Sightings) -> None:
        """A message went to the client: from now on its session knows whom it named."""
        if seen is not NOTHING:
            self._taint(session).seen_in_result(tool, seen)

    # --- what goes out ---

    def leaving_at_once(self, message: jsonrpc.Message, rules: ToolRules, session: str, tool: str = "") -> Heard | None:
        """What goes out, judged in the loop; None where that cannot be. session: see `memory_of`. tool: which it calls."""
        if self.judges.request is None or rules.outgoing == "off":
            return _UNJUDGED
        said = self.judges.request_quick(message)
        return None if said is None else self._tainted(said, rules, session, tool)

    async def leaving(self, message: jsonrpc.Message, rules: ToolRules, session: str, tool: str = "") -> Heard:
        """What goes out."""
        if (quick := self.leaving_at_once(message, rules, session, tool)) is not None:
            return quick
        assert self.judges.request is not None
        try:
            said = await self.judges.request(message)
        except Exception as error:
            said = Said(unsure("outgoing", "outgoing.failed", f"The judge of what goes out failed ({type(error).__name__})."))
        return self._tainted(said, rules, session, tool)

    def _tainted(self, said: Said, rules: ToolRules, session: str, tool: str) -> Heard:
        memory = self._taints.get(session)
        if rules.taint == "off" or memory is None or said.seen is NOTHING:
            return said.alone
        verdict = memory.judge(said.seen, tool)
        return Heard((said.verdict, verdict), said.seen) if verdict.reasons else said.alone

    def went(self, session: str, seen: Sightings) -> None:
        """A request went to the server: what it names is the client's own from now on."""
        if seen is not NOTHING:
            self._taint(session).seen_in_arguments(seen)

    def _taint(self, session: str) -> Taint:
        memory = self._taints.get(session)
        if memory is None:
            memory = self._taints[session] = Taint()
            if len(self._taints) > MOST_SESSIONS:
                self._taints.popitem(last=False)
        else:
            self._taints.move_to_end(session)
        return memory


_UNJUDGED = Heard((Verdict("outgoing", Finding.CLEAN, 0.0),))


OUTCOMES: dict[Ruling, Outcome] = {Ruling.RELEASE: "approved", Ruling.HOLD: "held", Ruling.REFUSE: "denied"}
"""What is recorded of what goes into escrow."""


def ruled(verdicts: Verdicts, rules: ToolRules) -> Decision:
    """What all judges say together."""
    return decide(verdicts, rules.require, rules.on_hostile, rules.on_unsure, rules.trial, rules.outside)
