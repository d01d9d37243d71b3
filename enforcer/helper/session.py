"""One daemon's life, from its fork to its end: its sockets, its requests, the processes beside it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass

from pydantic import ValidationError

from enforcer.helper import children, wire
from enforcer.helper.backoff import next_delay
from enforcer.helper.children import Child, Prepare
from enforcer.helper.messages import (
    REQUESTS,
    Accepting,
    Answer,
    AskStop,
    ChildEnded,
    ChildKind,
    ChildStarted,
    CountersRead,
    Fact,
    OpenUpstream,
    ReadCounters,
    Request,
    Stop,
    UpstreamOpened,
)
from enforcer.helper.upstream import Opener
from enforcer.kernel.steer import Steering
from enforcer.privilege.confine import Confinement

log = logging.getLogger("holdfast.helper")

CLOSED_S = 1.0
"""How long a daemon that closed its channel may take to end."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A kind of child that is started, and started again whenever it ends. prepare: given its end of a socket to the daemon.

    keep: descriptors that it uses beside that socket. packets: the socket is one of packets, not of a stream.
    grace_s: how long it may take to end by itself once the daemon has.
    """

    kind: ChildKind
    confinement: Confinement
    prepare: Callable[[socket.socket], Prepare]
    keep: tuple[int, ...] = ()
    packets: bool = False
    grace_s: float = 0.0


class Session:
    """child: the daemon. channel: our end. asked_to_stop: called when it asks for the end of the instance. steering, opener: None where nothing is steered."""

    def __init__(self, child: Child, channel: socket.socket, steering: Steering | None, opener: Opener | None, asked_to_stop: Callable[[], None]) -> None:
        self.child = child
        self.accepting = asyncio.Event()
        self._channel = channel
        self._steering = steering
        self._opener = opener
        self._asked_to_stop = asked_to_stop
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers: dict[ChildKind, int] = {}
        self._over = False
        self._stopping = False
        asyncio.get_running_loop().add_reader(channel.fileno(), self._readable)
        self.end: asyncio.Task[str] = asyncio.get_running_loop().create_task(self._until_end())
        """Done when the daemon has ended and all that was its is taken down; how it ended."""

    def tell(self, message: Answer | Fact, descriptor: int | None = None) -> None:
        if self._over:
            return
        try:
            wire.send(self._channel, message, *(() if descriptor is None else (descriptor,)))
        except wire.Malformed as error:
            self._distrust(str(error))
        except OSError:  # it has ended; `ended` says so in a moment
            return

    def keep(self, kept: Kept, count: int = 1) -> None:
        """Have so many of these from now on, as long as the daemon lives."""
        for _ in range(count):
            self._spawn(self._keep(kept))

    async def _until_end(self) -> str:
        how = await self.child.ended()
        self._over = True
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._channel.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return how

    async def stop(self, grace_s: float) -> None:
        """Ask the daemon to end; kill it if it does not."""
        self._stopping = True
        self.tell(Stop())
        await asyncio.wait({self.end}, timeout=grace_s)
        if not self.end.done():
            log.warning("the daemon did not end within %g s and is killed", grace_s)
            self._kill()
            await self.end

    async def _keep(self, kept: Kept) -> None:
        delay_s = 0.0
        loop = asyncio.get_running_loop()
        while True:
            number, started_at = self._numbers.get(kept.kind, 0) + 1, loop.time()
            self._numbers[kept.kind] = number
            ours, theirs = socket.socketpair(socket.AF_UNIX, (socket.SOCK_SEQPACKET if kept.packets else socket.SOCK_STREAM) | socket.SOCK_CLOEXEC)
            with ours, theirs:
                child = children.start(f"holdfast-{kept.kind}", kept.prepare(theirs), kept.confinement, [theirs.fileno(), *kept.keep])
                self.tell(ChildStarted(child=kept.kind, number=number), ours.fileno())
            try:
                how = await child.ended()
            except asyncio.CancelledError:
                ending = asyncio.ensure_future(child.ended())
                await asyncio.wait({ending}, timeout=kept.grace_s)
                child.kill()
                await asyncio.shield(ending)
                raise
            if self._stopping:
                return
            self.tell(ChildEnded(child=kept.kind, number=number))
            delay_s = next_delay(delay_s, loop.time() - started_at)
            log.warning("%s %d ended: %s; another starts in %g s", kept.kind, number, how, delay_s)
            await asyncio.sleep(delay_s)

    def _readable(self) -> None:
        try:
            packet = wire.receive(self._channel)
        except BlockingIOError:
            return
        except wire.Malformed as error:
            return self._distrust(str(error))
        except OSError:  # it ended before it read everything
            packet = None
        if packet is None:  # it is ending; if it is not, it can do nothing any more
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._channel.fileno())
            loop.call_later(CLOSED_S, self._kill)
            return
        data, descriptors = packet
        if descriptors:
            wire.close(descriptors)
            return self._distrust("it sent descriptors")
        try:
            request = REQUESTS.validate_json(data)
        except ValidationError:
            return self._distrust("it sent bytes that are no request")
        self._serve(request)

    def _serve(self, request: Request) -> None:
        match request:
            case Accepting():
                self.accepting.set()
            case OpenUpstream() if self._opener is not None:
                self._spawn(self._open_upstream(request, self._opener))
            case ReadCounters() if self._steering is not None:
                self.tell(CountersRead(id=request.id, **asdict(self._steering.counters())))
            case OpenUpstream() | ReadCounters():
                self._distrust("it asked for what only steering has")
            case AskStop():
                self._asked_to_stop()

    async def _open_upstream(self, request: OpenUpstream, opener: Opener) -> None:
        opened = await opener.open(request)
        if isinstance(opened, socket.socket):
            with opened:
                self.tell(UpstreamOpened(id=request.id), opened.fileno())
        else:
            self.tell(opened)

    def _distrust(self, why: str) -> None:
        if self._stopping:  # a daemon that ends in order closes its end: nothing to say
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            return
        log.error("the daemon is killed: %s", why)
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._kill()

    def _kill(self) -> None:
        if not self._over:
            self.child.kill()

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
