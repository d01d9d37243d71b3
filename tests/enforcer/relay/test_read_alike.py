"""A client reads what was judged, and nothing else: no other charset, no other address, no other line ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enforcer.relay.head import check_redirect
from escrow.http.head import BadMessage, Head
from tests.enforcer.relay.rig import QUICK, call, chunked, gate, post, reply, result

pytestmark = pytest.mark.anyio
FOREIGN = [b"; charset=utf-7", b"; charset=utf-8; charset=utf-7", b';charset="utf-7"', b"; charset*=utf-7", b"; CharSet=UTF-16"]


@pytest.mark.parametrize("charset", FOREIGN)
@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
async def test_a_client_is_told_no_charset_but_the_judged_one(kind: bytes, charset: bytes, tmp_path: Path) -> None:
    answer = reply(result("ok"), kind=kind + charset) if b"json" in kind else chunked(b"data: " + result("ok") + b"\n\n", kind=kind + charset)
    async with gate(tmp_path, QUICK, answer) as rig:
        assert (await rig.ask(call())).headers[b"content-type"] == kind


async def test_nor_is_the_server(tmp_path: Path) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    async with gate(tmp_path, QUICK, reply(result("ok")), reply(result("ok"))) as rig:
        await rig.ask(post(body).replace(b"application/json", b"application/json; charset=utf-7"))
        await rig.ask(post(body).replace(b"application/json", b"application/json; charset=utf-8"))
        assert b"utf-7" not in rig.server.asked[0].head and b"charset=utf-8" in rig.server.asked[1].head


@pytest.mark.parametrize("body", [
    {"id": 1, "method": "tools/call", "params": {"name": "x" * 20_000}},
    {"id": 1, "method": "resources/read", "params": {"uri": "file:///" + "x" * 20_000}},
    {"id": 1, "method": "x" * 20_000},
    {"method": "x" * 20_000},
])  # fmt: skip
async def test_names_that_are_megabytes_meet_no_glob(body: dict[str, object], tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK) as rig:
        response = await rig.ask(post({"jsonrpc": "2.0", **body}))
        assert response.status == 400 and "passes the bound" in response.json["error"]["message"] and rig.server.asked == []


ELSEWHERE = [
    b"http://198.51.100.7/mcp",
    b"//198.51.100.7/mcp",
    b"/\\198.51.100.7/",
    b"http://gate@198.51.100.7/",
    b"https://gate/mcp",
    b"http://gate:81/",
    b"mcp",
]


@pytest.mark.parametrize("location", ELSEWHERE)
async def test_a_client_is_not_sent_where_nobody_judges(location: bytes, tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, reply(b"", b"Location: " + location, status=b"307 Temporary Redirect")) as rig:
        response = await rig.ask(call())
        assert b"location" not in response.headers and "another address" in response.json["error"]["message"]


@pytest.mark.parametrize("location", [b"/mcp/", b"http://gate/mcp/", b"/"])
async def test_it_is_sent_on_at_the_same_address(location: bytes, tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, reply(b"", b"Location: " + location, status=b"307 Temporary Redirect")) as rig:
        response = await rig.ask(call())
        assert (response.status, response.headers[b"location"]) == (307, location)


async def test_what_passthrough_names_may_lead_elsewhere(tmp_path: Path) -> None:
    async with gate(tmp_path, QUICK, reply(b"", b"Location: http://198.51.100.7/", status=b"302 Found")) as rig:
        assert (await rig.ask(b"GET /.well-known/x HTTP/1.1\r\nHost: gate\r\n\r\n")).headers[b"location"] == b"http://198.51.100.7/"


@pytest.mark.parametrize(("host", "location", "tls", "same"), [
    (b"gate", b"https://gate/", True, True),
    (b"gate", b"http://gate/", True, False),
    (b"gate:8443", b"http://gate:8443/", True, True),
    (b"[::1]", b"http://[::1]/", False, True),
    (b"[::1]", b"https://[::1]/", False, False),
])  # fmt: skip
def test_another_scheme_is_another_port_unless_the_address_has_one(host: bytes, location: bytes, tls: bool, same: bool) -> None:
    answer, request = Head(((b"location", location),), True, status=308), Head(((b"host", host),), True, "POST", "/mcp")
    if same:
        check_redirect(answer, request, tls)
    else:
        with pytest.raises(BadMessage):
            check_redirect(answer, request, tls)
