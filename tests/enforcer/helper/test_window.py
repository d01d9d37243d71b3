"""Where the window listens."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import pytest

from enforcer.helper import window
from enforcer.helper.window import LocalWindow, NotListening, listen
from tests.enforcer.helper.world import status


def test_none_is_none() -> None:
    opened = listen("none")
    assert opened.listeners == () and opened.place.url is None and "none" in opened.place.why


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_it_listens_where_it_was_told(host: str) -> None:
    opened = listen(f"{host}:0")
    (listener,) = opened.listeners
    with listener:
        port = listener.getsockname()[1]
        assert opened.place.url in (f"http://127.0.0.1:{port}/mcp", f"http://[::1]:{port}/mcp") and opened.place.why == ""
        socket.create_connection(listener.getsockname()[:2], 5).close()


def test_beyond_loopback_it_says_that_tokens_pass_in_the_clear() -> None:
    opened = listen("0.0.0.0:0")
    opened.listeners[0].close()
    assert "in the clear" in opened.place.why


@pytest.mark.parametrize("where", ["", "8790", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:x", ":1", "no.such.host.invalid:1", "192.0.2.1:1"])
def test_what_is_no_address_of_this_machine_is_an_error(where: str) -> None:
    with pytest.raises(NotListening):
        listen(where)


def test_the_default_may_be_taken_and_an_address_that_was_given_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(window, "DEFAULT", where)
        opened = listen(None)
        assert opened.listeners == () and opened.place.url is None and "in use" in opened.place.why
        with pytest.raises(NotListening, match="in use"):
            listen(where)


@pytest.mark.anyio
async def test_without_a_helper_it_ends_with_the_daemon_and_another_is_started_when_it_ends_alone() -> None:
    opened = listen("127.0.0.1:0")
    given: asyncio.Queue[socket.socket] = asyncio.Queue()
    local = LocalWindow(opened.listeners, given.put_nowait)
    local.start()
    async with asyncio.timeout(30):
        first = await given.get()
        ended = pid(local)
        watched = os.pidfd_open(ended)  # readable once it has ended
        first.close()
        await readable(watched)
        os.close(watched)
        assert status(ended)["State"].startswith("Z"), "a daemon that is gone leaves no window that listens"
        local.lost()
        second = await given.get()
        assert pid(local) != ended
        second.close()
    local.close()
    opened.listeners[0].close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process gave up is read from /proc")
@pytest.mark.anyio
async def test_without_a_helper_it_gives_up_what_it_can() -> None:
    opened = listen("127.0.0.1:0")
    given: asyncio.Queue[socket.socket] = asyncio.Queue()
    local = LocalWindow(opened.listeners, given.put_nowait)
    local.start()
    daemon = await given.get()
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*opened.listeners[0].getsockname())
        writer.write(b"GET /mcp HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"405"
        writer.close()
    found = status(pid(local))
    assert [int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0] * 4
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    local.close()
    daemon.close()
    opened.listeners[0].close()


def pid(local: LocalWindow) -> int:
    assert local._process is not None
    return local._process.pid


async def readable(watched: int) -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(watched, done.set)
    await done.wait()
    loop.remove_reader(watched)
