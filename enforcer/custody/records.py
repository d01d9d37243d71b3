"""The place that every decision passes before it takes effect, and where it is told to whoever follows."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from typing import Any

from enforcer.custody.traffic import Arrival
from escrow import jsonrpc
from escrow.call import Call
from escrow.item import Item, verdict_json
from escrow.principal import Principal
from escrow.supervisor.arguments import VerdictQuery
from escrow.verdict import Verdict, worst


class Records:
    """See the module. recent: the last thousand, oldest first. Their ids are this daemon's start and a number that grows by one."""

    def __init__(self) -> None:
        self.recent: deque[dict[str, Any]] = deque(maxlen=1000)
        self._epoch, self._number = f"{int(time.time()):x}", 0
        self._followers: set[asyncio.Queue[dict[str, Any]]] = set()

    def judged(self, arrival: Arrival, verdicts: tuple[Verdict, ...], outcome: str, recorded: str, item_id: str | None) -> None:
        """A message that came back."""
        self._say(arrival.kind.value, arrival.tool, arrival.server, str(arrival.principal), arrival.session, verdicts, outcome, recorded, item_id)

    def asked(self, call: Call, verdicts: tuple[Verdict, ...], outcome: str, recorded: str, item_id: str | None) -> None:
        """A call that is to go out."""
        self._say(f"request {call.kind.value}", call.name, call.server, str(call.principal), call.session, verdicts, outcome, recorded, item_id)

    def left(self, message: jsonrpc.Message, server: str, principal: Principal, session: str | None, verdicts: tuple[Verdict, ...]) -> None:
        """A client's notification or answer that may not go out."""
        what = getattr(message, "method", "response")
        self._say("client message", what, server, str(principal), session, verdicts, "refused", "outgoing", None)

    def decided(self, item: Item) -> None:
        """A person's decision."""
        self._publish({"at": time.time(), "outcome": item.state.value, "item": item.id, "by": item.decided_by, "tool": item.tool})

    def unreadable(self, where: str) -> None:
        """A message that cannot be read in one way only."""
        self._publish({"at": time.time(), "outcome": "refused", "recorded": "unreadable", "where": where})

    def switched(self, outcome: str, by: str, why: str) -> None:
        """The kill switch was used."""
        self._publish({"at": time.time(), "outcome": outcome, "by": by, "reason": why})

    def follow(self) -> asyncio.Queue[dict[str, Any]]:
        """A queue of decisions as they come; give it back to `unfollow`."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1000)
        self._followers.add(queue)
        return queue

    def unfollow(self, queue: asyncio.Queue[dict[str, Any]]) -> None:
        self._followers.discard(queue)

    def _say(
        self,
        kind: str,
        tool: str,
        server: str,
        principal: str,
        session: str | None,
        verdicts: tuple[Verdict, ...],
        outcome: str,
        recorded: str,
        item_id: str | None,
    ) -> None:
        self._publish(
            {
                "at": time.time(),
                "outcome": outcome,
                "recorded": recorded,
                "item": item_id,
                "kind": kind,
                "tool": tool[:512],
                "server": server,
                "principal": principal,
                "session": session,
                "verdicts": verdicts,
            }
        )

    def page(self, query: VerdictQuery) -> tuple[list[dict[str, Any]], str | None]:
        """Records that fit, newest first, and the cursor of the next page. Raises KeyError: the cursor is of another start."""
        below = self._number + 1
        if query.cursor is not None:
            epoch, _, number = query.cursor.partition(".")
            if epoch != self._epoch or not number.isdecimal():
                raise KeyError(query.cursor)
            below = int(number)
        found: list[dict[str, Any]] = []
        for record in reversed(self.recent):
            if int(record["id"].partition(".")[2]) < below and _fits(record, query):
                if len(found) == query.limit:
                    return found, found[-1]["id"]
                found.append(record)
        return found, None

    def find(self, record_id: str) -> dict[str, Any] | None:
        return next((record for record in self.recent if record["id"] == record_id), None)

    def _publish(self, record: dict[str, Any]) -> None:
        self._number += 1
        record["id"] = f"{self._epoch}.{self._number}"
        self.recent.append(record)
        for queue in self._followers:
            if not queue.full():
                queue.put_nowait(record)


def _fits(record: dict[str, Any], query: VerdictQuery) -> bool:
    at = record["at"]
    return (
        (query.since is None or at >= query.since)
        and (query.until is None or at < query.until)
        and (query.tool is None or record.get("tool") == query.tool)
        and (query.session is None or record.get("session") == query.session)
        and (query.finding is None or (bool(record.get("verdicts")) and worst(record["verdicts"]) is query.finding))
    )


def record_json(record: dict[str, Any]) -> str:
    """A published decision as one line of JSON."""
    return json.dumps({**record, "verdicts": [verdict_json(verdict) for verdict in record.get("verdicts", ())]})
