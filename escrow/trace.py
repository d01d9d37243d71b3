"""Traces: which trace a message belongs to, and what was judged of it as one line for other tools.

Pure. Source: W3C Trace Context, 3.2 (traceparent); MCP carries the same text in `_meta.traceparent`. A message without one gets its
session's own trace, made once from randomness that is passed in.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a traceparent, 32 hex digits; None where it is none. Later versions may append fields to it, version 00 may not."""
    found = _TRACEPARENT.fullmatch(traceparent.strip(" \t")) if traceparent is not None and len(traceparent) <= 512 else None
    if found is None or (found[1] == "00" and found[4]):
        return None
    return found[2]


def in_meta(params: Mapping[str, Any]) -> str | None:
    """The trace id in a request's or a notification's `_meta`."""
    meta = params.get("_meta")
    named = meta.get("traceparent") if isinstance(meta, Mapping) else None
    return trace_id(named) if isinstance(named, str) else None


class Traces:
    """The traces of sessions that name none. random: gives 16 bytes, another 16 each time; most: how many sessions are remembered."""

    def __init__(self, random: Callable[[], bytes], most: int = 16384) -> None:
        self._random, self._most = random, most
        self._made: dict[Hashable, str] = {}

    def of(self, session: Hashable, *named: str | None) -> str:
        """The first trace id that a message names, else its session's."""
        for each in named:
            if each is not None:
                return each
        made = self._made.pop(session, None)
        if made is None:
            made = self._random().hex()
            if not int(made, 16):  # all zeros is no trace id
                made = "0" * 31 + "1"
        self._made[session] = made
        if len(self._made) > self._most:
            del self._made[next(iter(self._made))]
        return made


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found. verdict: the worst finding; score: the highest; findings: rules that matched."""

    verdict: str
    score: float
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A judged message, in the shape that Nectar gave it. content: base64, in audit mode only. timestamp: RFC 3339, UTC."""

    trace_id: str
    direction: str
    pid: int | None
    process: str
    content: str | None
    scan: Scan
    timestamp: str

    def line(self) -> str:
        """One line of JSON. Nothing in it can end the line."""
        return json.dumps(asdict(self), ensure_ascii=True, separators=(",", ":"))

    def raw(self) -> bytes | None:
        """The message itself."""
        return None if self.content is None else base64.b64decode(self.content)


_WORST = {"CLEAN": 0, "UNSURE": 1, "HOSTILE": 2}


def record_of(entry: Mapping[str, Any]) -> Record | None:
    """The record of an evidence entry (`observed`, or `judged` by the gate); None where it is of neither kind. Never CLEAN without a verdict."""
    if entry.get("event") not in ("observed", "judged"):
        return None
    verdicts = entry["verdicts"]
    worst = max((one["finding"] for one in verdicts), key=lambda finding: _WORST.get(finding, 2), default="UNSURE")
    if not entry.get("complete", True) and worst == "CLEAN":
        worst = "UNSURE"
    rules = tuple(dict.fromkeys(rule for one in verdicts for rule in one["rules"]))
    scan = Scan(worst, max((one["score"] for one in verdicts), default=0.5), rules)
    trace = entry.get("trace", "")
    return Record(trace, entry["direction"], entry.get("pid"), entry.get("process", ""), entry.get("content"), scan, entry["at"])
