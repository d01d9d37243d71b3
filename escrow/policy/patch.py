"""A policy as a document again, and changes to some of its keys.

A *flat* document maps dotted keys to values: `{"escrow.ping_s": 5.0, "rule": [{…}]}`. Tables are opened up; arrays, also those of tables,
are one value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from escrow.policy.document import Policy
from escrow.policy.reading import PolicyError

Flat = dict[str, Any]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ABSENT: Final = object()


def said(policy: Policy) -> Flat:
    """What a policy says beyond the defaults, flat. A table that is absent by default is said with all its keys that have values."""
    return _beyond(_dumped(policy), _dumped(Policy()))


def every(policy: Policy) -> Flat:
    """Every key of a policy with its value, flat."""
    return flat(_dumped(policy))


def _dumped(policy: Policy) -> dict[str, Any]:
    return policy.model_dump(mode="json", exclude_none=True)


def flat(document: Mapping[str, Any], above: str = "") -> Flat:
    """Open the tables of a document."""
    found: Flat = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{key}.")
        else:
            found[above + key] = value
    return found


def deep(flattened: Mapping[str, Any]) -> dict[str, Any]:
    """A flat document with its tables again. Raises PolicyError where a key is at once a table and a value."""
    document: dict[str, Any] = {}
    for dotted, value in flattened.items():
        *tables, last = dotted.split(".")
        inner = document
        for name in tables:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise PolicyError(f"{dotted}: {name} is a value, not a table")
        if last in inner:
            raise PolicyError(f"{dotted}: is said twice")
        inner[last] = value
    return document


def patched(document: Flat, changes: Mapping[str, Any]) -> Flat:
    """A flat document with changes of dotted keys; None takes a key out, so that its default holds again.

    A value that is a table is opened up, and stands in for all of that table.
    """
    result = dict(document)
    for dotted, value in changes.items():
        for key in [key for key in result if key == dotted or key.startswith(dotted + ".")]:
            del result[key]
        if isinstance(value, Mapping):
            result |= flat(value, dotted + ".")
        elif value is not None:
            result[dotted] = value
    return result


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys that have another value, or are in one of the two only; sorted."""
    return sorted(key for key in {*old, *new} if old.get(key, _ABSENT) != new.get(key, _ABSENT))


def render(document: Mapping[str, Any]) -> str:
    """A document (with its tables) as TOML. Values are what a policy has: strings, numbers, truth, and arrays of them or of tables."""
    return "\n".join(_table(document, ())).strip("\n") + "\n" if document else ""


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping) and not _of_tables(value)}
    written = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    if path and written:
        written.insert(0, f"\n[{'.'.join(map(_key, path))}]")
    for key, value in table.items():
        if isinstance(value, Mapping):
            written += _table(value, (*path, key))
    for key, value in table.items():
        if _of_tables(value):
            for inner in value:
                written.append(f"\n[[{'.'.join(map(_key, (*path, key)))}]]")
                written += [f"{_key(name)} = {_value(each)}" for name, each in inner.items()]
    return written


def _of_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(inner, Mapping) for inner in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    """One value in TOML v1.0.0. Its basic strings escape as JSON's do, but take no lone DEL and no surrogate pairs."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping():
            return "{ " + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + " }"
    raise PolicyError(f"a policy has no values like {type(value).__name__}")


def _beyond(document: Mapping[str, Any], defaults: Mapping[str, Any]) -> Flat:
    before = flat(defaults)
    return {key: value for key, value in flat(document).items() if before.get(key, _ABSENT) != value}
