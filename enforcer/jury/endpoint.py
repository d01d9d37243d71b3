"""One question to an OpenAI-compatible endpoint, and what of its answer may come back: a status and at most 64 KiB.

Certificates are verified, redirects are not followed, proxies and keys named in the environment are not used, nothing is logged.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from escrow.jury_settings import JurySettings

MAX_REPLY_BYTES: Final = 64 * 1024
ATTEMPTS: Final = 3
_BACKOFF_S: Final = 0.2
_MAX_BACKOFF_S: Final = 2.0


class NotUsable(Exception):
    """The key file or the system's authorities cannot be used; `str()` says which and why, never what is in them."""


class Failed(Exception):
    """There is no reply. rule: how that is recorded (`escrow.jury.OUTCOMES`)."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


class _Passing(Failed):
    """A failure that may be over in a moment."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What must be read before the process is confined. headers: with the key, if there is one."""

    headers: dict[str, str]
    authorities: ssl.SSLContext

    def __repr__(self) -> str:
        return "Credentials(…)"


def read_credentials(settings: JurySettings) -> Credentials:
    """Open the key file and the system's authorities. Raises NotUsable."""
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "holdfast"}
    if settings.api_key_file is not None:
        try:
            key = Path(settings.api_key_file).read_text(encoding="ascii").strip()
        except OSError as error:
            raise NotUsable(f"the jury's key file cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise NotUsable("the jury's key file holds more than ASCII") from None
        if not key or len(key) > 4096 or any(not "!" <= char <= "~" for char in key):
            raise NotUsable("the jury's key file holds no single word of printable ASCII")
        headers["Authorization"] = f"Bearer {key}"
    return Credentials(headers, _authorities(https=settings.endpoint.startswith("https:")))


def _authorities(https: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not https:
        return context
    if not context.get_ca_certs():  # in a folder that is searched at each handshake, where a confined process cannot look
        folder = ssl.get_default_verify_paths().capath
        for path in sorted(Path(folder).iterdir()) if folder else ():
            try:
                context.load_verify_locations(path)
            except (OSError, ssl.SSLError):
                continue
    if not context.get_ca_certs():
        raise NotUsable("this system names no certificate authorities (install ca-certificates, or set SSL_CERT_FILE)")
    return context


class Endpoint:
    """Lives on one event loop, within `async with`."""

    def __init__(self, settings: JurySettings, credentials: Credentials) -> None:
        self._url = settings.endpoint
        self._headers = credentials.headers
        self._client = httpx.AsyncClient(
            verify=credentials.authorities, trust_env=False, follow_redirects=False, timeout=httpx.Timeout(settings.timeout_s),
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=8),
        )  # fmt: skip

    async def __aenter__(self) -> Endpoint:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self._client.aclose()

    async def ask(self, body: dict[str, object]) -> tuple[int, bytes]:
        """Status (200, or one of 4xx) and body of the reply. Tries again what may pass in a moment; the caller sets the deadline. Raises Failed."""
        content = json.dumps(body).encode("ascii")
        again = AsyncRetrying(
            retry=retry_if_exception_type(_Passing), stop=stop_after_attempt(ATTEMPTS), wait=wait_random_exponential(_BACKOFF_S, _MAX_BACKOFF_S),
            sleep=asyncio.sleep, reraise=True,
        )  # fmt: skip
        async for attempt in again:
            with attempt:
                return await self._post(content)
        raise AssertionError("unreachable: the last attempt returned or raised")

    async def _post(self, content: bytes) -> tuple[int, bytes]:
        try:
            async with self._client.stream("POST", self._url, content=content, headers=self._headers) as response:
                status = response.status_code
                if status == 429 or status >= 500:
                    raise _Passing("jury.refused")
                if 300 <= status < 400:
                    raise Failed("jury.redirected")
                if status != 200:
                    return status, b""
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise Failed("jury.malformed")
                return status, await _bounded(response)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise _Passing("jury.unreachable") from None
        except httpx.TimeoutException:
            raise Failed("jury.late") from None
        except httpx.HTTPError:
            raise Failed("jury.broken") from None


async def _bounded(response: httpx.Response) -> bytes:
    whole = bytearray()
    async for part in response.aiter_raw(MAX_REPLY_BYTES):
        whole += part
        if len(whole) > MAX_REPLY_BYTES:
            raise Failed("jury.oversized")
    return bytes(whole)
