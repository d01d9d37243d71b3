"""The table of flows: the taps' events in, units out.

Pure. Each TCP connection and each TLS object is followed from its first event to its end. Of too many, those that were silent longest are let
go; what they carry afterwards counts as joined in the middle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from escrow.events import (
    Connection,
    Direction,
    Event,
    Linked,
    Lost,
    TcpFlags,
    TcpGap,
    TcpSlice,
    TlsClosed,
    TlsDirection,
    TlsEnd,
    TlsObject,
    TlsOpened,
    TlsSlice,
    Unlinked,
)
from escrow.flows.bounds import Bounds
from escrow.flows.conversation import Conversation
from escrow.flows.flow import TcpFlow, TlsFlow, joined, serves_by
from escrow.flows.hole import JOINED, Hole
from escrow.flows.http1 import SharedHeads
from escrow.flows.stream import TcpStream
from escrow.flows.unit import Unit

_TO_CLIENT, _TO_SERVER = Direction.TO_CLIENT, Direction.TO_SERVER
_NONE = TcpFlags.NONE
TOO_MUCH = "too many unfinished messages are kept at once"
_ROLE_BYTES = 64 << 10
"""Bytes of a TLS object that are kept until it shows which end it is."""


@dataclass(slots=True)
class Counts:
    """Since the start. dropped: flows let go because there were too many; shed: times at which unfinished messages were let go."""

    flows: int = 0
    dropped: int = 0
    shed: int = 0
    holes: dict[str, int] = field(default_factory=dict)


class Flows:
    """See the module. `tick` is to be called some times a second, after everything recorded before was fed."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.counts = Counts()
        self._tcp: dict[Connection, TcpFlow] = {}
        self._quick: dict[int, TcpFlow] = {}
        """By the identity of the connection's object (the decoder makes equal ones one): a third of the cost of comparing."""
        self._tls: dict[TlsObject, TlsFlow] = {}
        self._heads = SharedHeads()
        self._out: list[Unit] = []

    def feed(self, events: Iterable[Event]) -> list[Unit]:
        """Take events in the order they were read; give what they complete."""
        quick = self._quick
        flow: TcpFlow | None = None
        stream: TcpStream | None = None
        direction, time_ns = _TO_SERVER, 0
        for event in events:  # what follows each other on one stream is read at once
            if type(event) is TcpSlice:
                connection = event.connection
                if flow is None or flow.key is not connection or event.direction is not direction or event.flags is not _NONE:
                    if stream is not None and flow is not None and stream.out:
                        self._drain(flow.conversation, direction, stream, time_ns)
                    flow = quick.get(id(connection))
                    if flow is None or flow.key is not connection or event.flags is not _NONE:
                        flow = self._tcp_flow(connection, event)
                    direction = event.direction
                    stream = flow.to_client if direction is _TO_CLIENT else flow.to_server
                assert stream is not None
                stream.feed(event)
                time_ns = event.time_ns
            else:
                if stream is not None and flow is not None and stream.out:
                    self._drain(flow.conversation, direction, stream, time_ns)
                flow = stream = None
                self._other(event)
        if stream is not None and flow is not None and stream.out:
            self._drain(flow.conversation, direction, stream, time_ns)
        return self._take()

    def tick(self, now_ns: int) -> list[Unit]:
        """Time has passed: holes become gaps, ended flows go."""
        kept = history = 0
        over: list[TcpFlow] = []
        for flow in self._tcp.values():
            for direction, stream in ((_TO_SERVER, flow.to_server), (_TO_CLIENT, flow.to_client)):
                stream.tick(now_ns)
                if stream.out:
                    self._drain(flow.conversation, direction, stream, now_ns)
            flow.conversation.tick(now_ns)
            kept += flow.conversation.kept_bytes + flow.to_client.waiting_bytes + flow.to_server.waiting_bytes
            history += flow.to_client.history_bytes + flow.to_server.history_bytes
            if flow.over and now_ns - flow.touched_ns > self.bounds.hole_ns:
                over.append(flow)
        for tls in self._tls.values():
            for end in TlsDirection:
                tls.stream(end).tick(now_ns)
                self._drain_tls(tls, end, now_ns)
            tls.conversation.tick(now_ns)
            kept += tls.conversation.kept_bytes + tls.read.waiting_bytes + tls.write.waiting_bytes
        for flow in over:
            self._close(flow, now_ns)
        if kept > self.bounds.all_bytes:
            self._shed()
        if history > self.bounds.all_history_bytes:
            self._forget(history)
        return self._take()

    def close(self, now_ns: int) -> list[Unit]:
        """The taps are gone."""
        for flow in list(self._tcp.values()):
            self._close(flow, now_ns)
        for object in list(self._tls):
            self._close_tls(object, now_ns)
        return self._take()

    # --- TCP ---

    def _tcp_flow(self, connection: Connection, event: TcpSlice | TcpGap) -> TcpFlow:
        flow = self._tcp.get(connection)
        if flow is not None and isinstance(event, TcpSlice) and event.flags & TcpFlags.SYN and event.direction is _TO_SERVER:
            if flow.to_server.is_new(event.sequence):
                self._close(flow, event.time_ns)
                flow = None
        if flow is None:
            if len(self._tcp) + len(self._tls) >= self.bounds.flows:
                self._drop(event.time_ns)
            conversation = Conversation(connection, self._heads, self.bounds, self._out.append)
            flow = self._tcp[connection] = TcpFlow(connection, conversation, self.bounds)
            self._quick[id(connection)] = flow
            self.counts.flows += 1
        elif flow.key is not connection:
            self._quick.pop(id(flow.key), None)
            flow.key = connection
            self._quick[id(connection)] = flow
        return flow

    def _drain(self, conversation: Conversation, direction: Direction, stream: TcpStream, time_ns: int) -> None:
        out, stream.out = stream.out, []
        if len(out) > 1 and conversation.in_step(direction):
            out = joined(out)
        for chunk in out:
            if type(chunk) is Hole:
                self.counts.holes[chunk.why] = self.counts.holes.get(chunk.why, 0) + 1
            conversation.feed(direction, chunk, time_ns)

    def _close(self, flow: TcpFlow, time_ns: int) -> None:
        for direction, stream in ((_TO_SERVER, flow.to_server), (_TO_CLIENT, flow.to_client)):
            stream.close()
            self._drain(flow.conversation, direction, stream, time_ns)
        flow.conversation.tick(time_ns + 2 * self.bounds.hole_ns)
        del self._tcp[flow.connection]
        self._quick.pop(id(flow.key), None)

    # --- TLS and the rest ---

    def _other(self, event: Event) -> None:
        if isinstance(event, TlsSlice):
            tls = self._tls_flow(event.object, event.time_ns, from_start=False)
            tls.touched_ns = event.time_ns
            tls.stream(event.direction).feed(event)
            self._drain_tls(tls, event.direction, event.time_ns)
        elif isinstance(event, TcpGap):
            flow = self._tcp_flow(event.connection, event)
            stream = flow.to_client if event.direction is _TO_CLIENT else flow.to_server
            stream.gap(event)
            self._drain(flow.conversation, event.direction, stream, event.time_ns)
        elif isinstance(event, TlsOpened):
            self._tls_flow(event.object, event.time_ns, from_start=event.from_start)
        elif isinstance(event, TlsClosed):
            known = self._tls.get(event.object)
            if known is not None and event.how is TlsEnd.SHUTDOWN:
                known.write.close()
                self._drain_tls(known, TlsDirection.WRITE, event.time_ns)
            elif known is not None:
                self._close_tls(event.object, event.time_ns)
        elif isinstance(event, Linked):
            tls = self._tls_flow(event.object, event.time_ns, from_start=False)
            tls.connection = event.connection
            if tls.serves is None:
                self._role(tls, event.serves)
        elif isinstance(event, Unlinked):
            if (unlinked := self._tls.get(event.object)) is not None:
                unlinked.connection = None
        elif isinstance(event, Lost):
            for flow in self._tcp.values():
                flow.to_client.lost()
                flow.to_server.lost()
            for each in self._tls.values():
                each.read.lost()
                each.write.lost()

    def _tls_flow(self, object: TlsObject, time_ns: int, *, from_start: bool) -> TlsFlow:
        flow = self._tls.get(object)
        if flow is None:
            if len(self._tcp) + len(self._tls) >= self.bounds.flows:
                self._drop(time_ns)
            flow = self._tls[object] = TlsFlow(object, self._heads, self.bounds, from_start, self._out.append)
            flow.touched_ns = time_ns
            self.counts.flows += 1
        return flow

    def _drain_tls(self, flow: TlsFlow, end: TlsDirection, time_ns: int) -> None:
        stream = flow.stream(end)
        out, stream.out = stream.out, []
        for chunk in out:
            if type(chunk) is Hole:
                self.counts.holes[chunk.why] = self.counts.holes.get(chunk.why, 0) + 1
            if flow.serves is None:
                flow.early.append((end, chunk, time_ns))
                shown = serves_by(flow.early)
                if shown is not None:
                    self._role(flow, shown)
                elif sum(len(each) for _, each, _ in flow.early if isinstance(each, bytes)) > _ROLE_BYTES:
                    flow.early = [(end, Hole(None, JOINED), time_ns) for end in TlsDirection]
            else:
                flow.conversation.feed(flow.direction(end), chunk, time_ns)

    def _role(self, flow: TlsFlow, serves: bool) -> None:
        """It is known which end the object is."""
        flow.serves = serves
        early, flow.early = flow.early, []
        for end, chunk, time_ns in early:
            flow.conversation.feed(flow.direction(end), chunk, time_ns)

    def _close_tls(self, object: TlsObject, time_ns: int) -> None:
        flow = self._tls[object]
        for end in TlsDirection:
            flow.stream(end).close()
            self._drain_tls(flow, end, time_ns)
        if flow.serves is None and any(isinstance(chunk, bytes | Hole) for _, chunk, _ in flow.early):
            self._role(flow, True)  # whichever: it is no HTTP
        flow.conversation.tick(time_ns + 2 * self.bounds.hole_ns)
        del self._tls[object]

    # --- bounds ---

    def _drop(self, time_ns: int) -> None:
        """Let those go that were silent longest, an eighth of all: rarely, since it looks at every one."""
        ages = [(flow.touched_ns, key) for key, flow in self._tcp.items()] + [(flow.touched_ns, key) for key, flow in self._tls.items()]
        ages.sort(key=_age)
        for _, key in ages[: max(len(ages) // 8, 1)]:
            self.counts.dropped += 1
            if isinstance(key, Connection):
                self._close(self._tcp[key], time_ns)
            else:
                self._close_tls(key, time_ns)

    def _shed(self) -> None:
        self.counts.shed += 1
        for flow in self._tcp.values():
            flow.conversation.shed(TOO_MUCH)
        for tls in self._tls.values():
            tls.conversation.shed(TOO_MUCH)

    def _forget(self, history: int) -> None:
        """Histories go, of those that were silent longest first."""
        for flow in sorted(self._tcp.values(), key=_touched):
            if history <= self.bounds.all_history_bytes:
                return
            history -= flow.to_client.history_bytes + flow.to_server.history_bytes
            flow.to_client.forget()
            flow.to_server.forget()

    def _take(self) -> list[Unit]:
        out, self._out[:] = self._out[:], []
        return out


def _touched(flow: TcpFlow) -> int:
    return flow.touched_ns


def _age(entry: tuple[int, Connection | TlsObject]) -> int:
    return entry[0]
