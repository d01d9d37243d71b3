"""What an executable file is to the taps: which TLS is in it, which of its functions can be probed, and what stays unseen."""

from __future__ import annotations

import mmap
import os
import stat
from dataclasses import dataclass
from enum import Enum

from enforcer.taps import elf

HOOKED = (
    "SSL_read",
    "SSL_read_ex",
    "SSL_write",
    "SSL_write_ex",
    "SSL_new",
    "SSL_free",
    "SSL_shutdown",
    "SSL_set_bio",
    "SSL_set0_rbio",
    "SSL_set0_wbio",
    "SSL_set_fd",
    "SSL_set_rfd",
    "SSL_set_wfd",
    "BIO_write",
    "BIO_write_ex",
)
"""Functions with a probe, each optional (enforcer/taps/probes.py)."""

_ALSO = ("gnutls_record_send", "SSL_ImportFD")
_SEARCHED_BYTES = 512 << 20


class TlsKind(Enum):
    """Of a file. NOTHING: no TLS that is known of."""

    OPENSSL = "OpenSSL"
    LIBCRYPTO = "OpenSSL's libcrypto"
    GNUTLS = "GnuTLS"
    NSS = "NSS"
    GO = "Go"
    RUSTLS = "rustls"
    BORINGSSL_STRIPPED = "BoringSSL without symbols"
    NOTHING = "nothing"


UNCOVERED = {
    TlsKind.OPENSSL: "what a program sends through OpenSSL's SSL BIO (BIO_f_ssl), SSL_sendfile or QUIC is not seen",
    TlsKind.GNUTLS: "GnuTLS is not probed: what it carries is not seen",
    TlsKind.NSS: "NSS is not probed: what it carries is not seen",
    TlsKind.GO: "Go programs have TLS of their own, which is not probed: what they carry is not seen",
    TlsKind.RUSTLS: "rustls is not probed: what it carries is not seen",
    TlsKind.BORINGSSL_STRIPPED: "BoringSSL without symbols cannot be probed: what it carries is not seen",
}


@dataclass(frozen=True, slots=True)
class Found:
    """functions: those of HOOKED that the file defines, with their file offsets. problem: why the file could not be read, or None."""

    kind: TlsKind
    functions: dict[str, int]
    problem: str | None = None


def inspect(fd: int, program: bool) -> Found:
    """What the open file is. program: it was executed, and is searched for TLS without symbols. Reads only; never blocks on a device."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return Found(TlsKind.NOTHING, {})

    def read(at: int, size: int) -> bytes:
        return os.pread(fd, size, at) if at < 1 << 62 else b""

    try:
        found = elf.functions(read, (*HOOKED, *_ALSO))
        sections = elf.headers(read)[0].sections
    except elf.NotElf as error:
        return Found(TlsKind.NOTHING, {}, str(error))
    hooks = {name: offset for name, offset in found.items() if name in HOOKED}
    if "SSL_read" in hooks and "SSL_write" in hooks:
        return Found(TlsKind.OPENSSL, hooks)
    if "BIO_write" in hooks:
        return Found(TlsKind.LIBCRYPTO, hooks)
    if "gnutls_record_send" in found:
        return Found(TlsKind.GNUTLS, {})
    if "SSL_ImportFD" in found:
        return Found(TlsKind.NSS, {})
    if {".go.buildinfo", ".gopclntab"} & sections:
        return Found(TlsKind.GO, {})
    return Found(_by_words(fd) if program else TlsKind.NOTHING, {})


def _by_words(fd: int) -> TlsKind:
    """Paths of source files stay in a stripped program, in the messages of its assertions."""
    size = os.fstat(fd).st_size
    if not 0 < size <= _SEARCHED_BYTES:
        return TlsKind.NOTHING
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as content:
        if content.find(b"boringssl/src/ssl/") >= 0 or content.find(b"boringssl/ssl/") >= 0:
            return TlsKind.BORINGSSL_STRIPPED
        if content.find(b"/rustls-0.") >= 0:
            return TlsKind.RUSTLS
    return TlsKind.NOTHING
