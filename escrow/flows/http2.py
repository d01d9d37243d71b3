"""HTTP/2 as overheard: both directions of a connection.

Frames by hyperframe, heads by hpack: h2 itself plays an endpoint and would refuse what the other end began. A lost byte in a head leaves the
compression's state unknown, so from there the whole direction is unread; one in a DATA frame costs that stream's message only.
Sources: RFC 9113 (4.1 frames, 6.10 CONTINUATION, 8.1 messages), RFC 7541, 4.2 (table sizes).
"""

from __future__ import annotations

from typing import Final

from hpack import Decoder, HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, PushPromiseFrame, RstStreamFrame, SettingsFrame

from escrow.events import Direction
from escrow.flows.body import Body, Emit
from escrow.flows.bounds import Bounds
from escrow.flows.hole import ENDED, Chunk, Hole
from escrow.flows.unit import Source, Unit, UnitKind
from escrow.http.head import Head

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER_BYTES = 9
_FRAME_BYTES = 1 << 20
"""Peers allow 16 KiB unless they say more (6.5.2); hardly one says more than this."""
_TABLE_BYTES = 65536
MALFORMED = "it is malformed HTTP/2"


class _Side:
    """One direction: bytes of a frame that is not whole, the decoder of its heads, a head in several frames, messages being read by stream."""

    __slots__ = ("block", "bodies", "buffer", "dead", "decoder", "direction", "doubt", "ends", "opener", "preface")

    def __init__(self, direction: Direction, bounds: Bounds) -> None:
        self.direction = direction
        self.buffer = bytearray()
        self.decoder = Decoder(max_header_list_size=bounds.head_bytes)
        self.block = bytearray()
        self.opener: HeadersFrame | PushPromiseFrame | None = None
        self.ends = False
        self.bodies: dict[int, Body] = {}
        self.preface = len(PREFACE) if direction is Direction.TO_SERVER else 0
        self.dead = False
        self.doubt = ""


class Http2:
    """Feed chunks of either direction in order; units come out of `emit`. A request's stream number is its `exchange`."""

    __slots__ = ("_asked", "_bounds", "_emit", "_sides", "_source")

    def __init__(self, source: Source, bounds: Bounds, emit: Emit) -> None:
        self._source, self._bounds, self._emit = source, bounds, emit
        self._sides = {direction: _Side(direction, bounds) for direction in Direction}
        self._asked: dict[int, Head] = {}

    @property
    def kept_bytes(self) -> int:
        return sum(len(side.buffer) + sum(body.size for body in side.bodies.values()) for side in self._sides.values())

    def feed(self, direction: Direction, chunk: Chunk, time_ns: int) -> None:
        """Take the next chunk of a direction."""
        if isinstance(chunk, bytes):
            self._data(direction, chunk, time_ns)
        elif isinstance(chunk, Hole):
            self._hole(direction, chunk, time_ns)
        else:
            self._end(direction, time_ns)

    def in_step(self, direction: Direction) -> bool:
        """Whether it does not matter where segments begin."""
        return True

    def tick(self, now_ns: int) -> None:
        """Time has passed."""

    def _data(self, direction: Direction, data: bytes, time_ns: int) -> None:
        side = self._sides[direction]
        if side.dead:
            return
        side.buffer += data
        if side.preface:
            taken = min(side.preface, len(side.buffer))
            at = len(PREFACE) - side.preface
            if side.buffer[:taken] != PREFACE[at : at + taken]:
                self._die(side, MALFORMED, time_ns)
                return
            side.preface -= taken
            del side.buffer[:taken]
        try:
            self._frames(side, time_ns)
        except (HyperframeError, HPACKError, ValueError, KeyError, IndexError):
            self._die(side, MALFORMED, time_ns)

    def _hole(self, direction: Direction, hole: Hole, time_ns: int) -> None:
        side = self._sides[direction]
        if side.dead:
            return
        if hole.size == 0:
            side.doubt = side.doubt or hole.why
            for each in side.bodies.values():
                each.touch(hole.why, time_ns, all=True)
            self._broken(direction, hole.why, time_ns)
            return
        length, kind, stream = self._next(side.buffer)
        body = side.bodies.get(stream)
        if kind != DataFrame.type or body is None or hole.size is None or len(side.buffer) + hole.size > _HEADER_BYTES + length:
            self._die(side, hole.why, time_ns)
            return
        if side.buffer[4] & 0x8 and len(side.buffer) == _HEADER_BYTES:  # the length of the padding is lost
            self._die(side, hole.why, time_ns)
            return
        body.touch(hole.why, time_ns)
        self._data(direction, bytes(hole.size), time_ns)
        if side.bodies.get(stream) is body:
            body.touch(hole.why, time_ns)

    def _end(self, direction: Direction, time_ns: int) -> None:
        side = self._sides[direction]
        for body in side.bodies.values():
            body.cut(ENDED, time_ns)
        side.bodies.clear()
        if side.buffer and not side.dead:
            self._die(side, ENDED, time_ns)

    def shed(self, why: str) -> None:
        for side in self._sides.values():
            for body in side.bodies.values():
                body.drop(why)

    # ---

    @staticmethod
    def _next(buffer: bytearray) -> tuple[int, int, int]:
        """Length, type and stream of the frame that the buffer begins with; type -1 where its header is not whole."""
        if len(buffer) < _HEADER_BYTES:
            return 0, -1, 0
        return int.from_bytes(buffer[:3], "big"), buffer[3], int.from_bytes(buffer[5:9], "big") & 0x7FFFFFFF

    def _frames(self, side: _Side, time_ns: int) -> None:
        while len(side.buffer) >= _HEADER_BYTES:
            length, _, _ = self._next(side.buffer)
            if length > _FRAME_BYTES:
                raise ValueError
            if len(side.buffer) < _HEADER_BYTES + length:
                return
            whole = bytes(side.buffer[: _HEADER_BYTES + length])
            del side.buffer[: _HEADER_BYTES + length]
            frame, _ = Frame.parse_frame_header(memoryview(whole)[:_HEADER_BYTES])
            frame.parse_body(memoryview(whole)[_HEADER_BYTES:])
            self._frame(side, frame, time_ns)

    def _frame(self, side: _Side, frame: Frame, time_ns: int) -> None:
        if side.opener is not None and not (isinstance(frame, ContinuationFrame) and frame.stream_id == side.opener.stream_id):
            raise ValueError  # nothing may come between
        if isinstance(frame, DataFrame):
            if (body := side.bodies.get(frame.stream_id)) is not None:
                body.piece(bytes(frame.data), time_ns)
                if "END_STREAM" in frame.flags:
                    self._finish(side, frame.stream_id, time_ns)
        elif isinstance(frame, HeadersFrame | PushPromiseFrame | ContinuationFrame):
            if isinstance(frame, ContinuationFrame):
                if side.opener is None:
                    raise ValueError
            else:
                side.opener, side.ends = frame, "END_STREAM" in frame.flags
            side.block += frame.data
            if len(side.block) > self._bounds.head_bytes:
                raise ValueError
            if "END_HEADERS" in frame.flags:
                opener, block = side.opener, bytes(side.block)
                side.opener = None
                side.block.clear()
                fields = tuple((bytes(name), bytes(value)) for name, value in side.decoder.decode(block, raw=True))
                if isinstance(opener, HeadersFrame):
                    self._headers(side, opener.stream_id, fields, time_ns)
        elif isinstance(frame, SettingsFrame):
            if (size := frame.settings.get(SettingsFrame.HEADER_TABLE_SIZE)) is not None:
                other = self._sides[Direction.TO_CLIENT if side.direction is Direction.TO_SERVER else Direction.TO_SERVER]
                other.decoder.max_allowed_table_size = min(max(size, 4096), _TABLE_BYTES)
        elif isinstance(frame, RstStreamFrame):
            for each in self._sides.values():
                if (body := each.bodies.pop(frame.stream_id, None)) is not None:
                    body.cut(ENDED, time_ns)
            self._asked.pop(frame.stream_id, None)

    def _headers(self, side: _Side, stream: int, fields: tuple[tuple[bytes, bytes], ...], time_ns: int) -> None:
        pseudo = {name: value for name, value in fields if name.startswith(b":")}
        plain = tuple((name, value) for name, value in fields if not name.startswith(b":"))
        if not pseudo:  # trailers
            if side.ends:
                self._finish(side, stream, time_ns)
            return
        if side.direction is Direction.TO_SERVER:
            host = ((b"host", pseudo[b":authority"]),) if b":authority" in pseudo else ()
            head = Head((*host, *plain), True, pseudo[b":method"].decode("ascii"), pseudo.get(b":path", b"").decode("latin-1"))
            asked = None
            self._asked[stream] = head
            if len(self._asked) > self._bounds.exchanges:
                del self._asked[next(iter(self._asked))]
        else:
            head = Head(plain, True, status=int(pseudo[b":status"]))
            if head.status < 200:
                return
            asked = self._asked.pop(stream, None)
        if len(side.bodies) >= self._bounds.exchanges:
            raise ValueError
        side.bodies[stream] = Body(self._emit, self._bounds, self._source, side.direction, stream, head, asked, time_ns, side.doubt)
        if side.ends:
            self._finish(side, stream, time_ns)

    def _finish(self, side: _Side, stream: int, time_ns: int) -> None:
        body = side.bodies.pop(stream, None)
        if body is not None:
            body.end(time_ns)

    def _die(self, side: _Side, why: str, time_ns: int) -> None:
        side.dead = True
        side.buffer.clear()
        for body in side.bodies.values():
            body.cut(why, time_ns)
        side.bodies.clear()
        self._broken(side.direction, why, time_ns)

    def _broken(self, direction: Direction, why: str, time_ns: int) -> None:
        self._emit(Unit(self._source, direction, UnitKind.BROKEN, began_ns=time_ns, time_ns=time_ns, why=why))
