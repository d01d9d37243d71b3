"""Texts inside texts: base64, hex, percent, entities, escapes, number lists, spaced letters, ROT13, reversed.

Pure and linear: each decoder is one pass of a regular expression without ambiguous repetition, and of a C codec.
A decoder gives what it found and where the encoded run stands, so that redaction can cut it out.
"""

from __future__ import annotations

import binascii
import html
import re
from dataclasses import dataclass
from urllib.parse import unquote

from escrow.invisible import has_words

MIN_RUN = 16
"""Shortest base64 or hex run looked at, in characters: twelve bytes, the length of "run rm -rf ~"."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """via: the step. text: what it gave. start, end: the encoded run in the text it came from."""

    via: str
    text: str
    start: int
    end: int


_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{40,}(?:\r?\n[A-Za-z0-9+/_-]{4,})*={0,2}|[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}){8,}|[0-9A-Fa-f]{2}(?:[ :,-][0-9A-Fa-f]{2}){7,}|(?:0[xX][0-9A-Fa-f]{2}[ ,;]{0,3}){8,}")
_DECIMAL = re.compile(r"\b\d{2,3}(?:[ ,;]{1,2}\d{2,3}){7,}\b")
_BINARY = re.compile(r"\b[01]{8}(?: ?[01]{8}){7,}\b")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});?")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2}))")
_SPACED = re.compile(r"(?<![A-Za-z])[A-Za-z](?:[ ._*|-]{1,6}[A-Za-z]){6,}(?![A-Za-z])")
_ROT13 = re.compile(r"\b(?:gur|naq|lbh|vtaber|nyy|cyrnfr|vafgehpgvbaf?|frpergf?|hfre|gb|sebz)\b", re.IGNORECASE)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# A table of ours: the codec of that name is imported on first use, which a worker in its jail cannot do.
_ROT13_TABLE = str.maketrans(_LETTERS + _LETTERS.upper(), (_LETTERS[13:] + _LETTERS[:13]) + (_LETTERS[13:] + _LETTERS[:13]).upper())
_REVERSED = re.compile(r"\b(?:eht|dna|uoy|erongi|lla|esaelp|snoitcurtsni|terces|resu|morf|ruoy)\b", re.IGNORECASE)
_LEET = re.compile(r"(?<![\w@$+/\\%&#])(?=[A-Za-z]{0,8}[013457@$])(?=[013457@$]{0,8}[A-Za-z])[A-Za-z013457@$]{2,16}(?![\w@$+/=])")
_LEET_TABLE = str.maketrans("013457@$", "oieastas")
_PRINTED = re.compile(rb"[\x20-\x7e\t\r\n]{12,}")
_MAYBE = re.compile(r"[A-Za-z0-9+/_=-]{16}|%[0-9A-Fa-f]{2}|&[#A-Za-z]|\\[uUx]|(?:[0-9A-Fa-f]{2}[ :,;-]){7}|\d{2,3}[ ,;]{1,2}\d{2,3}[ ,;]{1,2}\d{2,3}|[01]{8} ")


def decode(text: str) -> list[Decoded]:
    """Every text encoded inside `text`, one step deep."""
    found: list[Decoded] = []
    if _MAYBE.search(text):
        taken = _runs(found, text)
        for via, pattern, base in (("hex", _HEX, 16), ("decimal", _DECIMAL, 10), ("binary", _BINARY, 2)):
            for match in pattern.finditer(text):
                if not (via == "hex" and (match.start(), match.end()) in taken):
                    _add(found, via, _numbers(match.group(), base), match.start(), match.end())
        if _PERCENT.search(text):
            _add_text(found, "percent", unquote(text), text)
        if _ENTITY.search(text):
            _add_text(found, "entities", html.unescape(text), text)
        if _ESCAPE.search(text):
            _add_text(found, "escapes", _unescape(text), text)
    for match in _SPACED.finditer(text):
        found.append(Decoded("spaced", _close_up(match.group()), match.start(), match.end()))
    if len(_ROT13.findall(text)) >= 2:
        found.append(Decoded("rot13", text.translate(_ROT13_TABLE), 0, len(text)))
    if len(_REVERSED.findall(text)) >= 2:
        found.append(Decoded("reversed", text[::-1], 0, len(text)))
    if len(_LEET.findall(text)) >= 3:
        _add_text(found, "leet", _LEET.sub(lambda match: match.group().translate(_LEET_TABLE), text), text)
    return found


def _add_text(found: list[Decoded], via: str, decoded: str, text: str) -> None:
    if decoded != text:
        found.append(Decoded(via, decoded, 0, len(text)))


def _add(found: list[Decoded], via: str, raw: bytes, start: int, end: int) -> bool:
    """Note the bytes as text if they are language; of other bytes, the printable strings that are."""
    text = _as_text(raw)
    if text is not None:
        found.append(Decoded(via, text, start, end))
        return True
    strings = [part.decode("ascii") for part in _PRINTED.findall(raw)]
    strings = [part for part in strings if " " in part and has_words(part)]
    if strings:
        found.append(Decoded(f"{via}-strings", "\n\n".join(strings), start, end))
    return False


def _as_text(raw: bytes) -> str | None:
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        if encoding != "utf-8" and (len(raw) % 2 or raw.count(0) * 3 < len(raw)):
            continue
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        sample = text[:4096]
        good = sum(char.isprintable() or char in "\t\r\n" for char in sample)
        if sample and good * 10 >= len(sample) * 9:
            return text
    return None


def _runs(found: list[Decoded], text: str) -> set[tuple[int, int]]:
    taken: set[tuple[int, int]] = set()
    for match in _BASE64.finditer(text):
        run = match.group().replace("-", "+").replace("_", "/").rstrip("=")
        run = run.replace("\r", "").replace("\n", "")
        run += "A" * (len(run) % 4 == 1)  # one letter too many carries no byte; the rest still reads
        try:
            raw = binascii.a2b_base64(run + "=" * (-len(run) % 4))
        except binascii.Error:
            continue
        if _add(found, "base64", raw, match.start(), match.end()):
            taken.add((match.start(), match.end()))
    return taken


def _numbers(run: str, base: int) -> bytes:
    if base == 16:
        digits = re.sub(r"0[xX]|[^0-9A-Fa-f]", "", run)
        return bytes.fromhex(digits[: len(digits) // 2 * 2])
    if base == 2:
        bits = run.replace(" ", "")
        return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))
    codes = [int(code) for code in re.split(r"[ ,;]+", run)]
    return bytes(codes) if max(codes) < 256 else b""


def _unescape(text: str) -> str:
    def char(match: re.Match[str]) -> str:
        code = int(next(group for group in match.groups() if group), 16)
        return chr(code) if code < 0x110000 else match.group()

    # Pairs of surrogates, written as two escapes, become the character they mean.
    return _ESCAPE.sub(char, text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _close_up(run: str) -> str:
    """ "i g n o r e  a l l" → "ignore all": wider gaps are the words'."""
    words = re.split(r"[ ._*|-]{2,6}", run)
    return " ".join(re.sub(r"[ ._*|-]", "", word) for word in words)
