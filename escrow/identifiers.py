"""What names a party or opens a door, in a text: e-mail addresses, URLs and their hosts, accounts, phone numbers, credentials by name.

Pure. An identifier is sixteen bytes: a letter for its kind and a digest of its normalised form; no text is kept. The forms: e-mail (case, dots before the
`@` and what stands after a `+` do not count), URL (fragment, scheme, port, percent-encoding and the spelling of the host do not count),
IBAN (ISO 13616, check digits verified), Bitcoin and its kin (Base58Check verified, or Bech32 by shape), Ethereum by shape, telephone numbers in
E.164 with their plus sign, and values that stand behind a name such as `password` or `token`. Not: @handles, which are also decorators, scopes and
mentions, card numbers, whose check digit one in ten numbers has, and names of people.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from encodings.idna import ToASCII
from typing import Final
from urllib.parse import unquote

import re2

MOST: Final = 4096
"""Identifiers taken from one text, and from one message."""

URL_CHARS: Final = 2048

EMAIL, URL, HOST, ACCOUNT, PHONE, TOKEN = b"e", b"u", b"h", b"a", b"p", b"t"
KINDS: Final = {EMAIL: "email", URL: "url", HOST: "host", ACCOUNT: "account", PHONE: "phone", TOKEN: "token"}
SIZE: Final = 16
_HOST_BYTES: Final = 8
_ROOT: Final = bytes(7)
WORD_BYTES: Final = 8
MOST_WORDS: Final = 32768
"""Words of an argument that are compared with the credentials results have named."""


@dataclass(frozen=True, slots=True)
class Mention:
    """An identifier in a text, and where: a half-open range of code points."""

    identifier: bytes
    span: tuple[int, int]


_TRIGGER = re2.compile(
    r"(?i)\+\(?\d|0x[0-9a-f]{40}|\b(?:bc|tb|ltc)1[a-z0-9]{25}|\b[a-z]{2}\d{2} ?[a-z0-9]{4}|\b[1-9A-HJ-NP-Za-km-z]{26}"
    r"|pass(?:wor|w|phrase|code)|pwd|token|secret|key|credential|auth"
)
_LOCAL = re.compile(r"[\w.%+-]{1,64}$")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?[.\u3002\uff0e\uff61]){1,8}[^\W\d_]{2,24}")
_SCHEME = re.compile(r"(?:https?|wss?|ftps?|sftp|ssh|git|smb|ldaps?|gopher|dict|tcp|udp|redis|s3|gs)$", re.IGNORECASE)
_REST = re.compile(rf"[^\s\"'<>\\^`{{|}}]{{1,{URL_CHARS}}}")
_BARE = re.compile(r"(?<![\w@./:%-])(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,8}[a-z]{2,24}(?=[/?])", re.IGNORECASE)
_PHONE = re.compile(r"(?<![\w+])\+\(?\d(?:[ ().-]{0,2}\d){7,14}(?!\d)")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?(?![A-Za-z0-9])")
_ETHEREUM = re.compile(r"0x[0-9a-fA-F]{40}(?![0-9a-fA-F])")
_BECH32 = re.compile(r"\b(?:bc|tb|ltc)1[ac-hj-np-z02-9]{25,87}\b", re.IGNORECASE)
_BASE58 = re.compile(r"(?<![A-Za-z0-9])[1-9A-HJ-NP-Za-km-z]{26,35}(?![A-Za-z0-9])")
_NAMED = re.compile(
    r"(?:passw(?:or)?d|passphrase|passcode|pwd|secret|token|api[ _-]?key|access[ _-]?key|private[ _-]?key|credential|auth)\w{0,20}"
    r"[\"'`\\]{0,3}\s{0,3}(?:=>|:=|[:=]|\bis\b)\s{0,3}[\"'`\\]{0,3}([^\s\"'`,;<>\\]{8,200})",
    re.IGNORECASE,
)
_TURNING = re.compile(r"(?:page|next|prev(?:ious)?|continu\w*|sync|progress|cursor|start|resume|delta)[ _-]?token", re.IGNORECASE)
_STOPS: Final = ".:!?"
_PARTS = re.compile(r"[=:]+")
_WORD = re.compile(r"[^\s\"'`,;<>\\(){}\[\]]{8,200}")
_BASE58_DIGITS = {char: value for value, char in enumerate("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")}
_PORT = re.compile(r":\d*$")
_DOTS: Final = str.maketrans("\u3002\uff0e\uff61", "...")
_FOUR = re.compile(r"(?:0x[0-9a-f]{1,8}|\d{1,11})(?:\.(?:0x[0-9a-f]{1,8}|\d{1,11})){0,3}")
_ODD = re.compile(r"\b(?:https?|wss?|ftp):(?!//[^\\/])[\\/]*(?=[\w\[])", re.IGNORECASE)
_ALONE = re.compile(
    r"(?<![\w@./:%-])(?:(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,8}(?:com|net|org|info|biz|io|co|dev|app|xyz|online|site|top|me|cloud|link|live|click)"
    r"|\d{1,3}(?:\.\d{1,3}){3})(?![\w@/?-]|\.\w)",
    re.IGNORECASE,
)


def mentions(text: str) -> list[Mention]:
    """Identifiers in one text, at most `MOST` and one more, which says that there were more."""
    found: list[Mention] = []
    for mention in _all(text):
        found.append(mention)
        if len(found) > MOST:
            break
    return found


def credential(text: str) -> bytes:
    """The identifier of a value that its place names as a credential."""
    return TOKEN + _digest(text.strip().rstrip(_STOPS))[:WORD_BYTES] + bytes(SIZE - 1 - WORD_BYTES)


def words(text: str) -> bytes:
    """Every word of an argument that could be a credential, as the digests (`WORD_BYTES` each) that `credential` would give it."""
    found: list[bytes] = []
    for match in _WORD.finditer(text):
        word = match.group().rstrip(_STOPS)
        if len(word) >= 8 and not (word.isalpha() and word.islower()):
            found.append(_digest(word)[:WORD_BYTES])
            if "=" in word or ":" in word:
                found.extend(_digest(part)[:WORD_BYTES] for part in _PARTS.split(word) if len(part) >= 8)
            if len(found) > MOST_WORDS:
                break
    return b"".join(found)


def words_in(digests: bytes) -> Iterator[bytes]:
    """The identifiers that `words` packed."""
    for at in range(0, len(digests), WORD_BYTES):
        yield TOKEN + digests[at : at + WORD_BYTES] + bytes(SIZE - 1 - WORD_BYTES)


def host_of(identifier: bytes) -> bytes:
    """The host's identifier of a URL's."""
    return HOST + identifier[1 : 1 + _HOST_BYTES] + _ROOT


def is_root(identifier: bytes) -> bool:
    """Whether a URL has neither path nor query, so that it carries nothing but its host."""
    return identifier[1 + _HOST_BYTES :] == _ROOT


def _all(text: str) -> Iterator[Mention]:
    if "@" in text:
        yield from _emails(text)
    if "://" in text:
        yield from _urls(text)
    if ":" in text:
        yield from _slanted(text)
    if "/" in text and "." in text:
        for match in _BARE.finditer(text):
            yield _bare(text, match)
    if len(text) >= 8 and _TRIGGER.search(text.encode("utf-8", "replace")):
        yield from _accounts(text)
        for match in _NAMED.finditer(text):
            if not _TURNING.match(text, max(0, match.start() - 12), match.end()) and not _turns(text, match):
                yield Mention(credential(match.group(1)), match.span(1))


def _turns(text: str, match: re.Match[str]) -> bool:
    """Whether a `token` is one that asks for the next page."""
    return _TURNING.search(text, max(0, match.start() - 12), min(len(text), match.start() + 8)) is not None


def _emails(text: str) -> Iterator[Mention]:
    at = text.find("@")
    while at >= 0:
        domain = _DOMAIN.match(text, at + 1)
        local = _LOCAL.search(text, max(0, at - 64), at) if domain else None
        if domain and local:
            name = local.group().partition("+")[0].casefold().replace(".", "")
            if name:
                yield Mention(EMAIL + _digest(f"{name}@{_host_name(domain.group())}"), (local.start(), domain.end()))
        at = text.find("@", at + 1)


def _urls(text: str) -> Iterator[Mention]:
    at = text.find("://")
    while at >= 0:
        scheme = _SCHEME.search(text, max(0, at - 8), at)
        rest = _REST.match(text, at + 3) if scheme else None
        end = at + 3
        if scheme and rest:
            address = rest.group().rstrip(".,;:!?)]*_~")
            end = at + 3 + len(address)
            identifier = _url(address)
            if identifier is not None:
                yield Mention(identifier, (scheme.start(), end))
        at = text.find("://", max(end, at + 3))


def _slanted(text: str) -> Iterator[Mention]:
    """Addresses with another number of slashes, or with backslashes, which browsers and Node take for the same (WHATWG URL, 4.4)."""
    match = _ODD.search(text)
    while match:
        rest = _REST.match(text[match.end() : match.end() + URL_CHARS].replace("\\", "/"))
        address = rest.group().rstrip(".,;:!?)]*_~") if rest else ""
        end = match.end() + len(address)
        identifier = _url(address) if "." in address or "[" in address else None
        if identifier is not None:
            yield Mention(identifier, (match.start(), end))
        match = _ODD.search(text, end)


def hosts(text: str) -> Iterator[Mention]:
    """Hosts that a result names with nothing behind them. Of a client they would say nothing: `a.io` is a file, a module, a method."""
    for match in _ALONE.finditer(text):
        yield Mention(HOST + _host(_host_name(match.group())) + _ROOT, match.span())


def _bare(text: str, match: re.Match[str]) -> Mention:
    """An address without a scheme: with a query a URL, else no more than its host, since import paths and files look the same."""
    rest = _REST.match(text, match.start())
    address = (rest.group() if rest else match.group()).rstrip(".,;:!?)]*_~")
    identifier = _url(address) if "?" in address else None
    if identifier is not None:
        return Mention(identifier, (match.start(), match.start() + len(address)))
    return Mention(HOST + _host(match.group().lower()) + _ROOT, match.span())


def _url(address: str) -> bytes | None:
    authority, slash, path = _cut(address)
    host = _host_name(authority.rpartition("@")[2])
    if not host:
        return None
    path = unquote(slash + path).partition("#")[0]
    return URL + _host(host) + (_ROOT if path in ("", "/") else _digest(path)[:7])


def _host_name(authority: str) -> str:
    """One spelling for a host, without the port: what opens one port opens the others."""
    host = _PORT.sub("", authority.casefold()).translate(_DOTS).rstrip(".")
    if host.startswith("["):
        try:
            six = ipaddress.IPv6Address(host.strip("[]").partition("%")[0])
        except ValueError:
            return host
        return str(six.ipv4_mapped or six)
    if not host.isascii():
        return ".".join(map(_label, host.split(".")))
    return _four(host) if _FOUR.fullmatch(host) else host


def _label(label: str) -> str:
    try:
        return ToASCII(label).decode("ascii")
    except UnicodeError:  # no name of a host
        return label


def _four(host: str) -> str:
    """An IPv4 address however it is written (WHATWG URL, "IPv4 parser"): octal, hexadecimal, in one number."""
    parts = [
        int(part, 16) if part.startswith("0x") else int(part, 8 if part.startswith("0") and part.isdigit() and set(part) <= set("01234567") else 10)
        for part in host.split(".")
    ]
    value = parts[-1]
    for index, part in enumerate(parts[:-1]):
        value += part << (24 - 8 * index)
    return str(ipaddress.IPv4Address(value)) if value < 1 << 32 else host


def _cut(address: str) -> tuple[str, str, str]:
    """Authority, first separator, rest."""
    at = min((found for found in (address.find(char) for char in "/?#") if found >= 0), default=len(address))
    return address[:at], address[at : at + 1], address[at + 1 :]


def _accounts(text: str) -> Iterator[Mention]:
    if "+" in text:
        for match in _PHONE.finditer(text):
            yield Mention(PHONE + _digest(re.sub(r"\D", "", match.group())), match.span())
    for match in _IBAN.finditer(text):
        number = match.group().replace(" ", "").upper()
        if 15 <= len(number) <= 34 and int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97 == 1:
            yield Mention(ACCOUNT + _digest(number), match.span())
    for pattern in (_ETHEREUM, _BECH32):
        for match in pattern.finditer(text):
            yield Mention(ACCOUNT + _digest(match.group().lower()), match.span())
    for match in _BASE58.finditer(text):
        if _base58check(match.group()):
            yield Mention(ACCOUNT + _digest(match.group()), match.span())


def _base58check(text: str) -> bool:
    """https://en.bitcoin.it/wiki/Base58Check_encoding: 21 bytes and the first four of their double SHA-256."""
    value = 0
    for char in text:
        value = value * 58 + _BASE58_DIGITS[char]
    if value >= 1 << 200:
        return False
    raw = value.to_bytes(25, "big")
    return hashlib.sha256(hashlib.sha256(raw[:21]).digest()).digest()[:4] == raw[21:]


def _host(host: str) -> bytes:
    return _digest(host.removeprefix("www."))[:_HOST_BYTES]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=SIZE - 1).digest()
