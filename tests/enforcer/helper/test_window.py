"""Where the window listens."""

from __future__ import annotations

import socket

import pytest

from enforcer.helper import window
from enforcer.helper.window import NotListening, listen


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
