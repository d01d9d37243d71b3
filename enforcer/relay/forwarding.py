"""A request at the server: put on a connection, its answer collected, or handed on where it is a stream."""

from __future__ import annotations

from enforcer.relay import answering
from enforcer.relay.events import EventRelay
from enforcer.relay.exchange import AtServer, Exchange
from enforcer.relay.head import carries, check_redirect, forwarded, told
from enforcer.relay.upstream import Connection
from escrow.http.head import BadMessage, Head


class Forwarding(AtServer):
    """See the module. It is the asker on its connection until the answer is whole, or turns out to be a stream."""

    __slots__ = ("_connection", "_head", "_parts", "_size", "exchange")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._connection: Connection | None = None
        self._head: Head | None = None
        self._parts: list[bytes] = []
        self._size = 0

    def start(self) -> None:
        client = self.exchange.client
        connection = self.exchange.context.upstream.take(client.local)
        if connection is None:
            self._open()
        else:
            self._put(connection)

    def _open(self) -> None:
        client = self.exchange.client
        self.exchange.later(self.exchange.context.upstream.open(client.transport, client.local), self._put)

    def _put(self, connection: Connection) -> None:
        exchange = self.exchange
        self._connection, exchange.forwarded = connection, True
        if exchange.client.gone:
            self.client_gone()
            if exchange.over:
                return
        connection.ask(self, forwarded(exchange.head, len(exchange.body)), exchange.body)

    # --- for the exchange ---

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._parts = []

    def client_gone(self) -> None:
        exchange = self.exchange
        if self._connection is None:
            return  # not asked yet, or answered already
        if not exchange.runs_on:
            exchange.end(False)
        elif exchange.running is not None:
            exchange.running.orphaned = True

    # --- for the connection ---

    def server_head(self, head: Head) -> None:
        self._head = head
        self.exchange.step(self._headed, head)

    def _headed(self, head: Head) -> None:
        exchange = self.exchange
        carried = carries(head)
        if carried == "redirect" and not exchange.context.policy.passes(exchange.head.method, exchange.head.target):
            check_redirect(head, exchange.head, exchange.client.transport.get_extra_info("ssl_object") is not None)
        if carried == "events" and exchange.head.method != "HEAD":
            assert self._connection is not None
            exchange.at_server = self._connection.asker = EventRelay(exchange, self._connection, head)
            self._connection = None
        elif exchange.head.method == "HEAD":  # what may come behind it would be no body
            exchange.send(head.status, told(head), b"", keep_alive=False)
            exchange.end(False)

    def server_piece(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self.exchange.context.policy.bounds.result_bytes:
            self.server_bad(BadMessage("the body passes the bound", 413))
        else:
            self._parts.append(data)

    def server_end(self) -> None:
        connection, head, parts = self._connection, self._head, self._parts
        self._connection, self._parts = None, []
        if connection is None or head is None:
            return
        if head.keep_alive:  # now, not after a person has decided
            self.exchange.context.upstream.give_back(connection)
        else:
            connection.close()
        self.exchange.step(answering.whole, self.exchange, head, parts[0] if len(parts) == 1 else b"".join(parts))

    def server_read(self) -> None:
        pass

    def server_lost(self) -> None:
        exchange, connection = self.exchange, self._connection
        self._connection = None
        if self._head is None and connection is not None and connection.used and exchange.call is None:
            # The server closed an idle connection as we took it. A call may have begun to run and is never sent twice; the rest may.
            self._open()
        else:
            exchange.step(exchange.fail, "the guarded server closed the connection in the middle of its answer")

    def server_bad(self, error: BadMessage) -> None:
        self.exchange.step(self.exchange.server_bad, error)
