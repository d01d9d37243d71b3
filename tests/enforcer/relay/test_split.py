"""The same bytes, whole and split anywhere, on both sides of the gate: the same outcome, and never a byte too much."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enforcer.custody import Judges
from escrow.http.head import BadMessage, Head
from escrow.http.wire import END, Closed, Heads, Wire
from tests.enforcer.relay.rig import AT_ONCE, QUICK, SECRET, SLOWLY, Server, call, chunked, gate, post, reply, result, stream, until

NAMES = st.sampled_from([b"Host", b"X-A", b"Content-Type", b"Accept", b"x-b"])
VALUES = st.binary(max_size=12).map(lambda raw: bytes(byte for byte in raw if byte > 32 and byte != 127))
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
BODIES = st.binary(max_size=40)
SPLIT = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
HOSTILE = st.sampled_from(
    [
        b"Content-Length: 3",
        b"Content-Length: 30",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b" folded",
        b"X: a\nY: b",
        b"Host: evil",
        b"X : y",
        b"X: \0",
    ]
)


@st.composite
def messages(draw: st.DrawFn, *, client: bool) -> bytes:
    """A well-formed message, its body counted or in chunks."""
    first = b"POST /mcp HTTP/1.1" if client else b"HTTP/1.1 200 OK"
    lines = [name + b": " + value for name, value in draw(FIELDS) if not (client and name == b"Host")]
    body = draw(BODIES)
    if draw(st.booleans()):
        return b"\r\n".join([first, *lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body
    cuts = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=3))})
    pieces = [body[start:end] for start, end in pairwise(cuts) if end > start]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return b"\r\n".join([first, *lines, b"Transfer-Encoding: chunked"]) + b"\r\n\r\n" + framed


def pieces_of(raw: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[start:end] for start, end in pairwise(at)]


def outcome(pieces: list[bytes], heads: Heads, *, client: bool) -> tuple[list[object], str]:
    """What was read before the end or the first fault, and which fault that was."""
    wire, fault = Wire(heads, client=client, max_head_bytes=4096), ""
    seen: list[object] = []
    try:
        for piece in pieces:
            if not wire.events and (whole := wire.whole(piece)) is not None:
                wire.events.extend([*whole, END])
            else:
                wire.feed(piece)
            seen += _shown(wire)
        wire.eof()
        seen += _shown(wire)
    except (BadMessage, Closed) as error:
        seen, fault = [], type(error).__name__
    return _joined(seen), fault


def _shown(wire: Wire) -> list[object]:
    found: list[object] = []
    while wire.events:
        event = wire.events.popleft()
        if isinstance(event, Head):
            found.append((event.method, event.target, event.status, event.keep_alive, event.headers))
        else:
            found.append(event if isinstance(event, bytes) else "end")
    return found


def _joined(seen: list[object]) -> list[object]:
    """Bodies in one piece."""
    found: list[object] = []
    for one in seen:
        if isinstance(one, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += one
        elif one != b"":
            found.append(one)
    return found


@pytest.mark.parametrize("client", [True, False])
@SPLIT
@given(data=st.data())
def test_well_formed_messages_are_read_alike_however_they_are_cut_and_whether_or_not_their_heads_are_known(client: bool, data: st.DataObject) -> None:
    row = data.draw(st.lists(messages(client=client), min_size=1, max_size=3))
    raw = b"".join(row)
    heads = Heads()
    expected = outcome([raw], Heads(), client=client)
    assert expected[1] == "" and expected[0].count("end") == len(row)
    for heads_known in (Heads(), heads, heads):
        assert outcome(pieces_of(raw, data.draw(st.lists(st.integers(0, 1 << 16), max_size=6))), heads_known, client=client) == expected
    assert outcome(row, heads, client=client) == expected, "each whole, its head known"


@pytest.mark.parametrize("client", [True, False])
@SPLIT
@given(data=st.data())
def test_what_is_refused_is_refused_however_it_is_cut(client: bool, data: st.DataObject) -> None:
    raw = data.draw(messages(client=client))
    first, _, rest = raw.partition(b"\r\n")
    broken = first + b"\r\n" + data.draw(HOSTILE) + b"\r\n" + data.draw(HOSTILE) + b"\r\n" + rest
    heads = Heads()
    outcome([raw], heads, client=client)
    whole = outcome([broken], heads, client=client)
    for cuts in (data.draw(st.lists(st.integers(0, 1 << 16), max_size=6)), list(range(len(broken)))):
        assert (outcome(pieces_of(broken, cuts), heads, client=client)[1] == "") == (whole[1] == "")


@SPLIT
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5), st.booleans())
def test_no_bytes_break_the_reader(raw: bytes, cuts: list[int], client: bool) -> None:
    outcome(pieces_of(raw, cuts), Heads(), client=client)


REQUEST = call(1, "read", b"Mcp-Name: read")
ANSWERS = {
    "a body": reply(result("ok")),
    "chunks": chunked(result("ok")[:9], result("ok")[9:]),
    "an event": stream(b"data: " + result("ok") + b"\n\n"),
    "an event after another": stream(b'data: {"jsonrpc":"2.0","method":"notifications/progress"}\n\n', b"data: " + result("ok") + b"\n\n"),
    "held": reply(result(SECRET)),
    "held, an event": stream(b"data: " + result(SECRET) + b"\n\n"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("judges", [AT_ONCE, SLOWLY], ids=["at once", "slowly"])
@pytest.mark.parametrize("name", ANSWERS)
async def test_an_exchange_is_the_same_with_both_sides_cut_at_every_point(name: str, judges: Judges, tmp_path: Path) -> None:
    raw = ANSWERS[name]
    cuts = iter(range(1, len(raw)))

    async def split(_server: Server, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut = next(cuts)
        for piece in (raw[:cut], raw[cut:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    policy = QUICK if "held" not in name else QUICK.model_copy(update={"escrow": QUICK.escrow.model_copy(update={"claim_after_s": 0.0001})})
    async with gate(tmp_path, policy, *[split] * (len(raw) - 1), judges=judges) as rig:
        client = await rig.client()
        for cut in range(1, len(raw)):
            request = call(1, "read", b"Mcp-Name: read", n=cut) if "held" in name else REQUEST
            at = cut % (len(request) - 1) + 1
            await client.send(request[:at])
            await asyncio.sleep(0)
            await client.send(request[at:])
            answer = await client.response()
            assert answer.status == 200
            assert (result("ok") in answer.body) == ("held" not in name), cut
        assert not rig.leaked()


SMUGGLING = [
    post(call(1).partition(b"\r\n\r\n")[2], b"Transfer-Encoding: chunked"),
    REQUEST.replace(b"Content-Length", b"Content-Length : 1\r\nContent-Length"),
    REQUEST.replace(b"Host: gate\r\n", b"Host: gate\r\n Transfer-Encoding: chunked\r\n"),
    REQUEST.replace(b"Host: gate\r\n", b"Host: gate\r\nX: y\nTransfer-Encoding: chunked\r\n"),
    REQUEST.replace(b"Content-Length: ", b"Content-Length: 1\r\nContent-Length: "),
    REQUEST.replace(b"Content-Length: ", b"Content-Length: +"),
]


@pytest.mark.anyio
@pytest.mark.parametrize("number", range(len(SMUGGLING)))
async def test_a_known_head_opens_no_way_for_a_smuggled_one(number: int, tmp_path: Path) -> None:
    """The gate has just read the same head without the trick, so that every short cut it has is warm."""
    raw = SMUGGLING[number]
    async with gate(tmp_path, QUICK, *[reply(result("ok"))] * 40) as rig:
        client = await rig.client()
        for _ in range(3):
            await client.send(REQUEST)
            assert (await client.response()).body == result("ok")
        before = len(rig.server.asked)
        await client.send(raw + b"GET /smuggled HTTP/1.1\r\nHost: gate\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 4")
        for cut in (1, len(raw) // 2, len(raw) - 1):
            other = await rig.client()
            await other.send(REQUEST)
            assert (await other.response()).body == result("ok")
            before += 1
            await other.send(raw[:cut])
            await asyncio.sleep(0)
            await other.send(raw[cut:])
            other.writer.write_eof()
            assert (await other.rest()).startswith(b"HTTP/1.1 4")
        assert len(rig.server.asked) == before


@pytest.mark.anyio
async def test_what_the_server_sends_unasked_is_nobodys_answer(tmp_path: Path) -> None:
    """Response splitting: an answer that came before its question, on a kept connection, would be taken for the next client's."""

    async def twice(_server: Server, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(result("ok")))
        await writer.drain()
        await first_is_through.wait()
        writer.write(reply(result("planted"))[:-5])

    first_is_through = asyncio.Event()
    async with gate(tmp_path, QUICK, twice, reply(result("own"))) as rig:
        assert (await rig.ask(call())).body == result("ok")
        [[kept]] = rig.listener.context.upstream._idle.values()
        first_is_through.set()
        await until(kept.transport.is_closing)
        assert (await rig.ask(call(n=2))).body == result("own")
