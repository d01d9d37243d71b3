"""Event streams: one reading, however the bytes are cut."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.sse import PING, Event, EventTooLarge, Reader, encode

MAX = 1 << 16
STREAM = (
    b"\xef\xbb\xbf: a comment\r\nevent: message\r\nid: 1\r\ndata: one\r\n\r\n"
    b"data:two\ndata\ndata: \n\n"
    b"retry: 250\revent: ping\rdata:  three\r\r"
    b"unknown: field\ndata: four\n\n"
    b"id\n\n"
    b"data: cut off in the middle"
)
EVENTS = [
    Event("message", b"one", "1"),
    Event("message", b"two\n\n"),
    Event("ping", b" three", None, 250),
    Event("message", b"four"),
    Event("message", b"", ""),
]


def whole(raw: bytes) -> list[Event]:
    return Reader(MAX).feed(raw)


def test_an_event_stream_is_read_as_the_standard_says() -> None:
    assert whole(STREAM) == EVENTS


def test_the_same_events_come_out_split_at_every_point() -> None:
    for cut in range(len(STREAM) + 1):
        reader = Reader(MAX)
        assert reader.feed(STREAM[:cut]) + reader.feed(STREAM[cut:]) == EVENTS, cut


def test_the_same_events_come_out_byte_by_byte() -> None:
    reader = Reader(MAX)
    assert [event for at in range(len(STREAM)) for event in reader.feed(STREAM[at : at + 1])] == EVENTS


_LINES = st.lists(st.sampled_from([b"data: a", b"data:", b"data", b":c", b"event: e", b"id: 9", b"retry: 5", b"", b"", b"x"]), max_size=20)
_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(_LINES, st.lists(_ENDS, min_size=20, max_size=20), st.integers(0, 200))
def test_any_lines_and_ends_cut_anywhere_read_alike(lines: list[bytes], ends: list[bytes], cut: int) -> None:
    raw = b"".join(line + end for line, end in zip(lines, ends, strict=False)) + b":end\n"
    reader = Reader(MAX)
    assert reader.feed(raw[:cut]) + reader.feed(raw[cut:]) == whole(raw)


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_cut_anywhere_read_alike(raw: bytes, cut: int) -> None:
    reader = Reader(MAX)
    assert reader.feed(raw[:cut]) + reader.feed(raw[cut:]) == whole(raw)


@given(st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")), st.none() | st.text("ab1-", max_size=8), st.none() | st.integers(0, 10**9 - 1))
def test_what_is_written_reads_back(data: bytes, event_id: str | None, retry: int | None) -> None:
    event = Event("message", data, event_id, retry)
    back = whole(encode(event))
    expected = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for end in "\x85\u2028\u2029":
        expected = expected.replace(end.encode(), f"\\u{ord(end):04x}".encode())
    if data or event_id is not None or retry is not None:
        assert back == [Event("message", expected, event_id, retry)]


@pytest.mark.parametrize("end", ["\x85", "\u2028", "\u2029"])
def test_no_client_finds_more_lines_than_there_are(end: str) -> None:
    """httpx-sse to 0.4.0 cuts lines as `str.splitlines` does: what follows such a line end would be an event that nobody judged."""
    forged = f'{end}{end}data: {{"jsonrpc": "2.0"}}{end}{end}'
    message = {"jsonrpc": "2.0", "id": 1, "result": {"text": forged}}
    raw = f"id: x{forged}\ndata: {json.dumps(message, ensure_ascii=False)}\n\n".encode()
    (event,) = whole(raw)
    written = encode(event).decode()
    assert event.id is None and written.splitlines() == written.split("\r\n")[:-1]
    assert json.loads(whole(encode(event))[0].data) == message


def test_an_event_name_or_id_never_holds_a_line_end() -> None:
    for event in whole(b"event: a\rid: b\rdata: c\n\nid: x\0y\ndata: d\n\n"):
        assert "\n" not in event.name and "\r" not in (event.id or "") and "\0" not in (event.id or "")


@pytest.mark.parametrize("raw", [b"data: " + b"x" * 2000, b":" + b"x" * 2000, b"data: xxxxxxxx\n" * 200, b"data\n" * 2000])
def test_an_event_past_the_bound_is_an_error_before_it_is_kept(raw: bytes) -> None:
    reader = Reader(1000)
    with pytest.raises(EventTooLarge):
        for at in range(0, len(raw), 100):
            reader.feed(raw[at : at + 100])


def test_many_events_within_the_bound_pass_it_together() -> None:
    assert len(Reader(100).feed(b"data: " + b"x" * 50 + b"\n\n" + b"data: y\n\n" * 100)) == 101


def test_a_long_event_in_many_pieces_is_read_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searched bytes are counted, not seconds: each byte is looked at for a line end about once."""
    import escrow.sse as sse

    class Counting:
        def __init__(self) -> None:
            self.searched = 0

        def search(self, buffer: bytearray, at: int = 0) -> object:
            self.searched += len(buffer) - at
            return pattern.search(buffer, at)

        def split(self, data: bytes) -> list[bytes]:
            return pattern.split(data)

    pattern, counting = sse._LINE, Counting()
    monkeypatch.setattr(sse, "_LINE", counting)
    reader = Reader(1 << 24)
    reader.feed(b"data: ")
    for _ in range(100):
        assert reader.feed(b"x" * 1000) == []
    assert len(reader.feed(b"\n\n")[0].data) == 100_000
    assert counting.searched < 400_000


def test_a_ping_is_a_comment() -> None:
    assert whole(PING) == []


def test_empty_lines_of_data_cost_what_they_say_they_do() -> None:
    reader, line = Reader(1 << 20), b"data\n" * 10_000
    tracemalloc.start()
    try:
        with pytest.raises(EventTooLarge):
            for _ in range(200):
                reader.feed(line)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_a_last_event_is_given_whatever_its_line_ends_are(end: bytes) -> None:
    """With CR, it once waited for the byte after it: for ever, at a stream's end."""
    raw = b"data: one" + end + end
    assert whole(raw) == [Event("message", b"one")]
    for cut in range(len(raw)):
        reader = Reader(MAX)
        events = [*reader.feed(raw[:cut]), *reader.feed(raw[cut:]), *reader.feed(b"\ndata: two\n\n")]
        assert [event.data for event in events] == [b"one", b"two"], cut
