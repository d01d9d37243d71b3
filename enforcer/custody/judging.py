"""Which judges speak about a message, and what they say together. A judge that fails says UNSURE."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from enforcer.custody.definitions import Definitions
from enforcer.custody.traffic import Arrival
from escrow import jsonrpc
from escrow.policy import ToolRules
from escrow.verdict import Finding, Verdict, unsure

Judge = Callable[[jsonrpc.Message], Awaitable[Verdict]]
"""A judge: takes a message, gives a verdict, never raises by contract; where it does, that is UNSURE."""
Quick = Callable[[jsonrpc.Message], Verdict | None]
"""The same at once, in the loop, within hard bounds; None: not at once."""
Juror = Callable[[jsonrpc.Message, Verdict], Awaitable[Verdict | None]]
"""A further judge of what the scanner is not sure about; None: not asked."""

Verdicts = tuple[Verdict, ...]


def _never(_message: jsonrpc.Message) -> Verdict | None:
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


class Judging:
    """See the module. locked: whether a person has locked the server, in which case whatever still comes is held."""

    def __init__(self, judges: Judges, definitions: Definitions, locked: Callable[[], bool]) -> None:
        self.judges, self._definitions, self._locked = judges, definitions, locked

    def at_once(self, arrival: Arrival, rules: ToolRules) -> Verdicts | None:
        """What comes back, judged in the loop; None where that cannot be."""
        if self._locked() or len(arrival.message.raw) > rules.result_bytes:
            return None
        message = arrival.message
        verdict = self.judges.quick(message)
        if verdict is None or (self._has_jury(rules) and self.judges.in_band(verdict)):
            return None
        if isinstance(message, jsonrpc.Response) and not message.is_error and (arrival.call is None or arrival.call.method == "tools/list"):
            return (verdict, *self._beside(arrival))
        return (verdict,)

    async def whole(self, arrival: Arrival, rules: ToolRules) -> Verdicts:
        """What comes back, judged by everybody who has a say."""
        verdict = await self.scan(arrival.message)
        verdicts = [verdict, *self._beside(arrival)]
        if len(arrival.message.raw) > rules.result_bytes:
            verdicts.append(unsure("bounds", "bounds.size", "It is larger than the policy allows for this tool."))
        if self.judges.jury is not None and self._has_jury(rules) and self.judges.in_band(verdict):
            try:
                said = await self.judges.jury(arrival.message, verdict)
            except Exception as error:
                said = unsure("jury", "jury.failed", f"The jury failed ({type(error).__name__}).")
            if said is not None:
                verdicts.append(said)
        if self._locked():
            verdicts.append(unsure("lock", "lock.held", "The server is locked: nothing is released until a person unlocks it."))
        return tuple(verdicts)

    def _beside(self, arrival: Arrival) -> list[Verdict]:
        message = arrival.message
        if not isinstance(message, jsonrpc.Response) or message.is_error:
            return []
        if arrival.call is None:
            return [unsure("pairing", "pairing.unknown", "It answers no request that passed here.")]
        return [self._definitions.judge(message)] if arrival.call.method == "tools/list" else []

    async def scan(self, message: jsonrpc.Message) -> Verdict:
        """What the scanner says of a message that comes back."""
        try:
            return await self.judges.result(message)
        except Exception as error:
            return unsure("scanner", "scanner.failed", f"The scanner failed ({type(error).__name__}).")

    def _has_jury(self, rules: ToolRules) -> bool:
        return self.judges.jury is not None and "jury" in rules.judges

    def leaving_at_once(self, message: jsonrpc.Message, rules: ToolRules) -> Verdicts | None:
        """What goes out, judged in the loop; None where that cannot be."""
        if self.judges.request is None or rules.outgoing == "off":
            return _UNJUDGED
        verdict = self.judges.request_quick(message)
        return None if verdict is None else (verdict,)

    async def leaving(self, message: jsonrpc.Message, rules: ToolRules) -> Verdicts:
        """What goes out."""
        if (quick := self.leaving_at_once(message, rules)) is not None:
            return quick
        assert self.judges.request is not None
        try:
            return (await self.judges.request(message),)
        except Exception as error:
            return (unsure("outgoing", "outgoing.failed", f"The judge of what goes out failed ({type(error).__name__})."),)


_UNJUDGED = (Verdict("outgoing", Finding.CLEAN, 0.0),)
