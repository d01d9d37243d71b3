"""Content codings: what peers that the gate does not stand between compress (RFC 9110, 8.4.1).

Every decoder is bounded: in what one call gives, and in the window it keeps (zstd: 8 MiB, RFC 9659; brotli: 16 MiB by itself, RFC 7932).
"""

from __future__ import annotations

import zlib
from typing import Any, Protocol

import brotli

try:
    from compression import zstd as zstd  # Python 3.14
except ImportError:
    from backports import zstd as zstd


class Undecodable(Exception):
    """The bytes are not what their coding says, or pass the bound. `str()` is our text."""


class Decoder(Protocol):
    def decode(self, data: bytes, most: int) -> bytes:
        """At most `most` bytes out. Raises Undecodable."""
        ...

    def finish(self) -> None:
        """Raises Undecodable: the end is missing."""
        ...


class _Identity:
    def decode(self, data: bytes, most: int) -> bytes:
        return data

    def finish(self) -> None:
        pass


class _Zlib:
    """gzip, or deflate with zlib's header or without: some servers leave it out (RFC 9110, 8.4.1.2)."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._inflate = zlib.decompressobj(31) if gzip else None
        self._first = b""

    def decode(self, data: bytes, most: int) -> bytes:
        if self._inflate is None:
            self._first += data
            if len(self._first) < 2:
                return b""
            data, self._first = self._first, b""
            with_header = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0  # RFC 1950, 2.2
            self._inflate = zlib.decompressobj(15 if with_header else -15)
        out = b""
        while data:
            if self._inflate.eof:
                if not self._gzip:
                    raise Undecodable("bytes follow what was compressed")
                self._inflate = zlib.decompressobj(31)  # a further member
            try:
                out += self._inflate.decompress(data, max(most - len(out), 0) + 1)
            except zlib.error:
                raise Undecodable("its content coding is broken") from None
            if len(out) > most:
                raise Undecodable("it is longer than what is read of one message")
            data = self._inflate.unused_data
        return out

    def finish(self) -> None:
        if self._inflate is None or not self._inflate.eof:
            raise Undecodable("its content coding is cut off")


class _Brotli:
    """RFC 7932."""

    def __init__(self) -> None:
        self._inner = brotli.Decompressor()

    def decode(self, data: bytes, most: int) -> bytes:
        try:
            out: bytes = self._inner.process(data, output_buffer_limit=most + 1)
        except brotli.error:
            raise Undecodable("its content coding is broken") from None
        if len(out) > most or not self._inner.can_accept_more_data():
            raise Undecodable("it is longer than what is read of one message")
        return out

    def finish(self) -> None:
        if not self._inner.is_finished():
            raise Undecodable("its content coding is cut off")


class _Zstd:
    """RFC 8878: one frame behind the other."""

    def __init__(self) -> None:
        self._inner = self._fresh()

    @staticmethod
    def _fresh() -> Any:
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 23})

    def decode(self, data: bytes, most: int) -> bytes:
        out = b""
        while data:
            if self._inner.eof:
                self._inner = self._fresh()
            try:
                out += self._inner.decompress(data, max(most - len(out), 0) + 1)
            except zstd.ZstdError:
                raise Undecodable("its content coding is broken") from None
            if len(out) > most or not (self._inner.eof or self._inner.needs_input):
                raise Undecodable("it is longer than what is read of one message")
            data = self._inner.unused_data
        return out

    def finish(self) -> None:
        if not self._inner.eof:
            raise Undecodable("its content coding is cut off")


def decoder(coding: bytes | None) -> Decoder:
    """The decoder of a `Content-Encoding`. Raises Undecodable: it is not one of ours."""
    name = (coding or b"identity").strip().lower()
    if name == b"identity" or not name:
        return _Identity()
    if name in (b"gzip", b"x-gzip", b"deflate"):
        return _Zlib(gzip=name != b"deflate")
    if name == b"br":
        return _Brotli()
    if name == b"zstd":
        return _Zstd()
    raise Undecodable("its content coding cannot be read here")
