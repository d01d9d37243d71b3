"""OpenSSL itself, by ctypes, in this process: two ends of a TLS connection over memory, with every call made by hand."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

_ssl = ctypes.CDLL("libssl.so.3")
_crypto = ctypes.CDLL("libcrypto.so.3")
for _name in ("TLS_method", "SSL_CTX_new", "SSL_new"):
    getattr(_ssl, _name).restype = ctypes.c_void_p
for _name in ("BIO_new", "BIO_s_mem"):
    getattr(_crypto, _name).restype = ctypes.c_void_p
_p = ctypes.c_void_p


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} -out {cert} -days 2 -subj /CN=localhost"
    subprocess.run([*words.split(), "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True, timeout=20)
    return cert, key


class End:
    """One SSL object with memory BIOs, or with one end of a BIO pair of so many bytes."""

    def __init__(self, context: Context, server: bool) -> None:
        self.ssl = _ssl.SSL_new(_p(context.pointer))
        self._in, self._out = (_crypto.BIO_new(_p(_crypto.BIO_s_mem())) for _ in range(2))
        for bio in (self._in, self._out):
            _crypto.BIO_ctrl(_p(bio), 130, ctypes.c_long(-1), None)  # BIO_C_SET_BUF_MEM_EOF_RETURN: empty means retry
        _ssl.SSL_set_bio(_p(self.ssl), _p(self._in), _p(self._out))
        (_ssl.SSL_set_accept_state if server else _ssl.SSL_set_connect_state)(_p(self.ssl))

    def handshake(self) -> int:
        return int(_ssl.SSL_do_handshake(_p(self.ssl)))

    def take(self) -> bytes:
        """The ciphertext it has to send."""
        whole = b""
        buffer = ctypes.create_string_buffer(65536)
        while (size := _crypto.BIO_read(_p(self._out), buffer, 65536)) > 0:
            whole += buffer.raw[:size]
        return whole

    def give(self, ciphertext: bytes) -> None:
        if ciphertext:
            assert _crypto.BIO_write(_p(self._in), ciphertext, len(ciphertext)) == len(ciphertext)

    def write(self, data: bytes) -> int:
        return int(_ssl.SSL_write(_p(self.ssl), data, len(data)))

    def write_ex(self, data: bytes) -> int:
        done = ctypes.c_size_t(0)
        return done.value if _ssl.SSL_write_ex(_p(self.ssl), data, ctypes.c_size_t(len(data)), ctypes.byref(done)) == 1 else -1

    def read(self, size: int = 65536) -> bytes | None:
        buffer = ctypes.create_string_buffer(size)
        got = _ssl.SSL_read(_p(self.ssl), buffer, size)
        return buffer.raw[:got] if got > 0 else None

    def read_ex(self, size: int = 65536) -> bytes | None:
        buffer, done = ctypes.create_string_buffer(size), ctypes.c_size_t(0)
        return buffer.raw[: done.value] if _ssl.SSL_read_ex(_p(self.ssl), buffer, ctypes.c_size_t(size), ctypes.byref(done)) == 1 else None

    def peek(self, size: int = 65536) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        got = _ssl.SSL_peek(_p(self.ssl), buffer, size)
        return buffer.raw[: max(0, got)]

    def shutdown(self) -> None:
        _ssl.SSL_shutdown(_p(self.ssl))

    def free(self) -> None:
        _ssl.SSL_free(_p(self.ssl))


def narrow(end: End, size_bytes: int) -> Callable[[], bytes]:
    """From now on what the end sends goes into a pipe of so many bytes: a write waits when it is full. Returns what empties it."""
    inner, outer = _p(), _p()
    assert _crypto.BIO_new_bio_pair(ctypes.byref(inner), ctypes.c_size_t(size_bytes), ctypes.byref(outer), ctypes.c_size_t(size_bytes)) == 1
    _ssl.SSL_set0_wbio(_p(end.ssl), inner)

    def empty() -> bytes:
        buffer = ctypes.create_string_buffer(size_bytes)
        got = _crypto.BIO_read(outer, buffer, size_bytes)
        return buffer.raw[: max(0, got)]

    return empty


class Context:
    def __init__(self, cert: Path | None = None, key: Path | None = None) -> None:
        self.pointer = _ssl.SSL_CTX_new(_p(_ssl.TLS_method()))
        if cert is not None and key is not None:
            assert _ssl.SSL_CTX_use_certificate_file(_p(self.pointer), str(cert).encode(), 1) == 1
            assert _ssl.SSL_CTX_use_PrivateKey_file(_p(self.pointer), str(key).encode(), 1) == 1


def pair(cert: Path, key: Path) -> tuple[End, End]:
    """Client and server, shaken hands."""
    client, server = End(Context(), False), End(Context(cert, key), True)
    for _ in range(4):
        client.handshake()
        server.give(client.take())
        server.handshake()
        client.give(server.take())
    return client, server


def carry(source: End, target: End) -> None:
    target.give(source.take())
