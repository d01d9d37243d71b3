"""The jury's own process: takes questions over one socket, asks the endpoint, answers with an opinion.

Two steps, so that whoever forks it can drop every right between them: `prepare` imports and reads all that is needed (the key, the
authorities), `serve` opens connections to the endpoint and, to find its address, what the system's resolver reads: /etc/resolv.conf, hosts,
nsswitch.conf, host.conf and gai.conf. `python -m enforcer.jury.member --fd N --settings JSON` is both, for a gate without the helper.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
from dataclasses import dataclass

from enforcer.jury import frames
from enforcer.jury.endpoint import Credentials, Endpoint, Failed, NotUsable, read_credentials
from escrow import jury, jury_evidence
from escrow.jury import Opinion, Tokens
from escrow.jury_evidence import Mark, Shown
from escrow.jury_settings import JurySettings

_TOKEN_BYTES = 16


@dataclass(frozen=True, slots=True)
class Member:
    """All that a member has."""

    settings: JurySettings
    credentials: Credentials


def prepare(settings: JurySettings) -> Member:
    """Import what is imported late elsewhere, read the key file and the authorities, and unpack once. Raises NotUsable."""
    import concurrent.futures.thread  # noqa: F401
    import encodings.idna
    import encodings.utf_16_be
    import encodings.utf_16_le  # noqa: F401

    import anyio._backends._asyncio  # noqa: F401
    import h11  # noqa: F401
    import httpcore._async.connection_pool
    import httpcore._backends.anyio
    import httpcore._backends.auto  # noqa: F401

    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # what it logs of failures may quote what was received
    text = "<p title='a b'>VGhpcyBpcyBhIHRlc3Qgb2YgdGhl%20 café &amp; \u200b\U000e0041 Ünïcode gur naq eht dna 1gn0r3 4ll \ud800"
    jury_evidence.choose(text.encode("utf-8", "replace"), (), 500)
    return Member(settings, read_credentials(settings))


def serve(sock: socket.socket, member: Member) -> None:
    """Answer questions until the other end closes, or sends what is none."""
    sock.setblocking(False)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_Service(sock, member).run())
    finally:
        loop.close()  # a name that is still being looked up is not waited for


class _Service:
    def __init__(self, sock: socket.socket, member: Member) -> None:
        self._sock, self._settings, self._credentials = sock, member.settings, member.credentials
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._plain = False
        """The endpoint refuses the optional members of a request."""

    async def run(self) -> None:
        async with Endpoint(self._settings, self._credentials) as endpoint:
            try:
                while (head := await _receive(self._sock, frames.QUESTION.size)) is not None:
                    number, table_bytes, raw_bytes = frames.QUESTION.unpack(head)
                    if table_bytes > frames.MAX_MARKS_BYTES or raw_bytes > frames.MAX_RAW_BYTES:
                        return
                    table, raw = await _receive(self._sock, table_bytes), await _receive(self._sock, raw_bytes)
                    if table is None or raw is None:
                        return
                    if len(self._tasks) >= 2 * frames.IN_FLIGHT:
                        await self._reply(number, Opinion("jury.busy"))
                        continue
                    task = asyncio.get_running_loop().create_task(self._answer(endpoint, number, frames.marks(table), raw))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            except (frames.Garbled, OSError):
                return
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, endpoint: Endpoint, number: int, marked: tuple[Mark, ...], raw: bytes) -> None:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                opinion = await self._ask(endpoint, self._show(marked, raw))
        except TimeoutError:
            opinion = Opinion("jury.late")
        except Failed as failure:
            opinion = Opinion(failure.rule)
        except Exception:  # whatever an attacker found: the opinion is UNSURE, and the next question is another
            opinion = Opinion("jury.failed")
        await self._reply(number, opinion)

    async def _reply(self, number: int, opinion: Opinion) -> None:
        async with self._writing:
            await asyncio.get_running_loop().sock_sendall(self._sock, frames.answer(number, opinion))

    def _show(self, marked: tuple[Mark, ...], raw: bytes) -> Shown:
        """Choose the evidence. It cannot be interrupted, so one that takes longer than an answer may ends the process (SIGALRM)."""
        signal.setitimer(signal.ITIMER_REAL, self._settings.timeout_s)
        try:
            return jury_evidence.choose(raw, marked, self._settings.max_chars)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    async def _ask(self, endpoint: Endpoint, shown: Shown) -> Opinion:
        plain = self._plain
        status, reply, nonce = await self._put(endpoint, shown, plain)
        if status in (400, 422) and not plain:
            status, reply, nonce = await self._put(endpoint, shown, True)
            self._plain = status == 200
        return jury.within(jury.read(reply, nonce), shown) if status == 200 else Opinion("jury.refused")

    async def _put(self, endpoint: Endpoint, shown: Shown, plain: bool) -> tuple[int, bytes, str]:
        while True:
            tokens = Tokens(secrets.token_hex(_TOKEN_BYTES), secrets.token_hex(_TOKEN_BYTES))
            try:
                body = jury.request(shown, self._settings.model, tokens, plain)
            except jury.TokenTaken:
                continue
            return *await endpoint.ask(body), tokens.nonce


async def _receive(sock: socket.socket, size: int) -> bytes | None:
    """Exactly so many bytes; None at the end of the stream."""
    loop = asyncio.get_running_loop()
    whole = bytearray()
    while len(whole) < size:
        try:
            part = await loop.sock_recv(sock, size - len(whole))
        except OSError:
            return None
        if not part:
            return None
        whole += part
    return bytes(whole)


def limit() -> None:
    """Resource limits for the rest of the process's life: no files written, few descriptors, bounded memory."""
    import resource

    for what, most in ((resource.RLIMIT_AS, 4 << 30), (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(what)[1]
        if hard == resource.RLIM_INFINITY or most < hard:
            try:
                resource.setrlimit(what, (most, most))
            except (ValueError, OSError):  # macOS knows fewer of them
                continue


def main() -> int:
    """Entry of a member that the daemon started itself."""
    parser = argparse.ArgumentParser(prog="enforcer.jury.member")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--settings", required=True)
    given = parser.parse_args()
    with socket.socket(fileno=given.fd) as sock:
        try:
            member = prepare(JurySettings.model_validate_json(given.settings))
        except NotUsable as problem:
            print(f"jury: {problem}", file=sys.stderr, flush=True)
            return 1
        limit()
        serve(sock, member)
    return 0


if __name__ == "__main__":
    os._exit(main())  # a thread that still looks a name up is not waited for
