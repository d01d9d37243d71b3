"""One entry as bytes: canonical JSON (RFC 8785), one line, nothing that can be written in two ways.

Pure. `encode` is the writer's: built on the standard library's C encoder, which gives RFC 8785's bytes for what an entry may hold (ASCII
keys, no number but small integers and decimals of at most four places). `decode` is the checker's, and trusts none of that.
"""

from __future__ import annotations

import base64
import json
import json.encoder
from functools import lru_cache
from typing import Any

import rfc8785

from escrow.evidence.commitment import Salts, commit, entry_salts, item_salts
from escrow.evidence.entry import MAX_CONTENT, MAX_RULES, MAX_TEXT, MAX_VERDICTS, Event, Judged, score_number
from escrow.verdict import Finding, Verdict

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False).encode
_quoted = json.encoder.encode_basestring  # RFC 8785, section 3.2.2.2: the same escapes, everything else as it is
_MAX_INT = 2**53 - 1  # RFC 8785, appendix D: beyond it a double is not exact


class NotCanonical(ValueError):
    """Bytes that are no canonical entry. `str()` says why, without quoting them."""


def encode(event: Event, seq: int, at: str, secret: bytes) -> bytes:
    """The entry's bytes, without a line end.

    seq: its number in the log, from 0. at: the time, RFC 3339 in UTC. secret: the log's, for salts.
    """
    if isinstance(event, Judged):
        text = _judged(event, seq, at, secret)
    else:
        members = event.members(Salts(secret, seq))
        members["event"] = event.event
        members["seq"] = seq
        members["at"] = at
        text = _encode(members)
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate in a name: JSON can carry it, UTF-8 and RFC 8785 cannot
        return text.encode("utf-8", "replace")


def _judged(event: Judged, seq: int, at: str, secret: bytes) -> str:
    """The members in their order, by hand: there is one for every message, and this takes a fifth of the time."""
    (direction, kind, tool, server, principal, session, args_sha256, message, verdicts, ruling, recorded, policy, item, salt, with_content) = event
    message_salt, args_salt = entry_salts(secret, seq) if salt is None else item_salts(salt, "judged")
    args = "" if args_sha256 is None else f'"args":"{commit(args_salt, bytes.fromhex(args_sha256))}",'
    said = _verdict(verdicts[0]) if len(verdicts) == 1 else ",".join([_verdict(one) for one in verdicts[:MAX_VERDICTS]])
    # Bounded before they are remembered: an attacker chooses tools' names.
    way, of_kind, ruled, served, ended = _repeated(
        direction, kind, tool[:MAX_TEXT], policy, principal[:MAX_TEXT], recorded, ruling, server, None if session is None else session[:MAX_TEXT], said
    )
    if item is not None:
        way += f'"item":{_text(item)},'
    if with_content and len(message) <= MAX_CONTENT:
        way = f'"content":"{base64.b64encode(message).decode()}",{way}'
    return f'{{{args}"at":"{at}",{way}{of_kind}{commit(message_salt, message)}{ruled}{seq}{served}{len(message)}{ended}'


@lru_cache(2048)
def _repeated(
    direction: str, kind: str, tool: str, policy: str, principal: str, recorded: str, ruling: str, server: str, session: str | None, said: str
) -> tuple[str, str, str, str, str]:
    """What stands between the members that are another's with every message: before its item, its commitment, its number, its size, and behind.

    said: the verdicts, written.
    """
    of_session = "" if session is None else f'"session":{_text(session)},'
    return (
        f'"direction":{_text(direction)},"event":"judged",',
        f'"kind":{_text(kind)},"message":"',
        f'","policy":{_text(policy)},"principal":{_text(principal)},"recorded":{_text(recorded)},"ruling":{_text(ruling)},"seq":',
        f',"server":{_text(server)},{of_session}"size":',
        f',"tool":{_text(tool)},"verdicts":[{said}]}}',
    )


def _verdict(verdict: Verdict) -> str:
    if not verdict.reasons and verdict.finding is Finding.CLEAN:
        return _clean(verdict.judge, verdict.score)
    rules = ""
    if verdict.reasons:
        rules = ",".join(_text(rule) for rule in list(dict.fromkeys(reason.rule for reason in verdict.reasons))[:MAX_RULES])
    return f'{{"finding":"{verdict.finding.value}","judge":{_text(verdict.judge)},"rules":[{rules}],"score":{score_number(verdict.score)}}}'


@lru_cache(1024)
def _clean(judge: str, score: float) -> str:
    return f'{{"finding":"CLEAN","judge":{_text(judge)},"rules":[],"score":{score_number(score)}}}'


def _text(text: str) -> str:
    return _known(text if len(text) <= MAX_TEXT else text[:MAX_TEXT])


@lru_cache(2048)
def _known(text: str) -> str:
    """The same few names come with every entry."""
    return _quoted(text)


def decode(line: bytes) -> dict[str, Any]:
    """Read one entry. Raises NotCanonical unless encoding it again gives exactly these bytes."""
    try:
        value = _decoder.decode(line.decode())
        # For ASCII the C encoder is as strict as RFC 8785's own rules (numbers were checked one by one), and three times as fast.
        same = (line.isascii() and _encode(value).encode() == line) or rfc8785.dumps(value) == line
    except NotCanonical:
        raise
    except RecursionError:
        raise NotCanonical("it is nested too deep") from None
    except ValueError as error:  # no JSON, no UTF-8, a number without a canonical form: they are all ValueErrors
        raise NotCanonical(f"it cannot be read ({type(error).__name__})") from None
    if not same:
        raise NotCanonical("it is JSON, but not in canonical form")
    if not isinstance(value, dict) or type(value.get("seq")) is not int or not isinstance(value.get("event"), str) or not isinstance(value.get("at"), str):
        raise NotCanonical("it has no number, event and time")
    return value


def _whole(digits: str) -> int:
    if len(digits) > 17 or abs(number := int(digits)) > _MAX_INT:
        raise NotCanonical("a number is too large")
    return number


def _decimal(digits: str) -> float:
    number = float(digits)
    if rfc8785.dumps(number).decode() != digits:
        raise NotCanonical("a number is not in canonical form")
    return number


def _constant(name: str) -> float:
    raise NotCanonical("a number is not finite")


_decoder = json.JSONDecoder(parse_int=_whole, parse_float=_decimal, parse_constant=_constant)
