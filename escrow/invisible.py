"""Characters that a person does not see and a model reads: tags, zero-width, bidi controls, variation selectors, look-alikes.

Pure and linear. `reveal` gives the texts that stand behind them, and says which of them can only have been hidden on purpose.
Sources: Unicode 16 chapter 23.9 (tags), 23.4 (variation selectors), UAX #9 (bidi), UTS #39 (confusables, a selection).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_TAGS = re.compile("[\U000e0020-\U000e007e]{2,}")
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e007a]{2,6}\U000e007f")  # England, Scotland, Wales: emoji made of tags
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")
_ZERO = "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff\u180e\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u00ad"
_ZERO_ANY = re.compile(f"[{_ZERO}]")
_ZERO_RUN = re.compile(f"[{_ZERO}]{{16,}}")
_ZERO_IN_WORD = re.compile(f"[A-Za-z][{_ZERO.replace(chr(0xAD), '')}]{{1,8}}[A-Za-z]")
_BIDI_ANY = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_OVERRIDE = re.compile("[\u202d\u202e]([^\u202c\u2069\n]*)")
_WORD = re.compile(r"[^\W\d_]{3,}")
_VOWEL = re.compile(r"[aeiouyаеиоуыэюяäöüáéíóúàèìòùâêîôû]", re.IGNORECASE)

_CONFUSABLE = str.maketrans(
    dict(
        zip(
            "аеорсухіјѕһԁԛԝьАВЕКМНОРСТХІЈЅУԌɡɑɩοανρτυκιγωΑΒΕΖΗΙΚΜΝΟΡΤΥΧեօսոցհԱʟɪɴʀꜱᴀʙᴄᴅᴇғɢʜᴊᴋᴍᴏᴘᴛᴜᴠᴡʏᴢ",
            "aeopcyxijshdqwbABEKMHOPCTXIJSYGgaioavptukiywABEZHIKMNOPTYXeounghULINRSABCDEFGHJKMOPTUVWYZ",
            strict=True,
        )
    )
)


@dataclass(frozen=True, slots=True)
class Revealed:
    """via: the step's name. text: what stands behind. rule: set where only somebody hiding it writes so."""

    via: str
    text: str
    rule: str | None = None


def has_words(text: str) -> bool:
    """Whether a decoded text is language rather than noise: two words with a vowel, or one of six letters."""
    words = [word for word in _WORD.findall(text[:2000]) if _VOWEL.search(word)]
    return len(words) >= 2 or any(len(word) >= 6 for word in words)


def reveal(text: str) -> list[Revealed]:
    """What a text with characters beyond ASCII hides. Empty for ASCII."""
    if text.isascii():
        return []
    found: list[Revealed] = []
    hidden = "".join(chr(ord(char) - 0xE0000) for run in _TAGS.findall(_FLAG.sub("", text)) for char in run)
    if hidden:
        found.append(Revealed("tags", hidden, "hidden.tags" if has_words(hidden) else None))
    for run in _SELECTORS.findall(text):
        words = bytes(_selector(char) for char in run).decode("utf-8", "ignore")
        if has_words(words):
            found.append(Revealed("variation-selectors", words, "hidden.variation-selectors"))
    for run in _ZERO_RUN.findall(text):
        words = _bits(run)
        if words:
            found.append(Revealed("zero-width-bits", words, "hidden.zero-width"))
    shown = text
    if _ZERO_ANY.search(text):
        shown = _ZERO_ANY.sub("", shown)
        cut = len(_ZERO_IN_WORD.findall(text))
        found.append(Revealed("zero-width", shown, "hidden.zero-width-in-words" if cut >= 3 else None))
    if _BIDI_ANY.search(text):
        turned = _OVERRIDE.sub(lambda match: match.group(1)[::-1], shown)
        rule = "hidden.bidi" if any(has_words(part) for part in _OVERRIDE.findall(text)) else None
        found.append(Revealed("bidi", _BIDI_ANY.sub("", turned), rule))
        shown = _BIDI_ANY.sub("", shown)
    plain = skeleton(shown)
    if plain != shown:
        found.append(Revealed("look-alikes", plain))
    return found


def skeleton(text: str) -> str:
    """The text with compatibility forms, accents on Latin and look-alikes of Latin letters made Latin.

    A text that stays mostly in another script was that script: it is returned as it is.
    """
    folded = unicodedata.normalize("NFKC", text)
    plain = folded.translate(_CONFUSABLE)
    plain = "".join(char for char in unicodedata.normalize("NFD", plain) if not unicodedata.combining(char))
    letters = sum(char.isalpha() for char in plain)
    latin = sum(char.isascii() and char.isalpha() for char in plain)
    return plain if latin * 10 >= letters * 9 else folded


def _selector(char: str) -> int:
    code = ord(char)
    return code - 0xFE00 if code < 0xE0000 else code - 0xE0100 + 16


def _bits(run: str) -> str:
    """Two zero-width characters used as 0 and 1, eight to a letter, either way round; "" if no words come out."""
    kinds = sorted(set(run))
    for zero, one in ((kinds[0], kinds[-1]), (kinds[-1], kinds[0])):
        bits = "".join("1" if char == one else "0" for char in run if char in (zero, one))
        whole = len(bits) - len(bits) % 8
        # In slices, since int(…, 2) of one long string is fast for powers of two but bytes per letter is all we need.
        words = bytes(int(bits[at : at + 8], 2) for at in range(0, whole, 8)).decode("utf-8", "ignore")
        if len(kinds) > 1 and has_words(words):
            return words
    return ""
