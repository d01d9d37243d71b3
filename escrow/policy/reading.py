"""From text to a policy, with errors that a person can act on: file, line, key, what is wrong, and what may have been meant."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from escrow.policy.document import Contradiction, Policy
from escrow.policy.places import Path, line_of, lines

MAX_CHARS: Final = 256 * 1024
"""Longest document read."""

MAX_PROBLEMS: Final = 20
MAX_KEY_CHARS: Final = 200

_PLACE = re.compile(r" ?\(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
_LONG_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*"|'[^'\n]*')[ \t]*+\.[ \t]*+){64}""")
_KEY = re.compile(r"""[ \t]*+([\w."' -]{0,200}[\w"'])[ \t]*=""")
_Model = TypeVar("_Model", bound=BaseModel)


class PolicyError(ValueError):
    """The policy cannot be used. `str()` names what and where, a line each."""


@dataclass(frozen=True, slots=True)
class Document:
    """A policy with the text it came from.

    said: the document as TOML has it: only what stands in it. lines: at which line each key of it stands.
    """

    policy: Policy
    text: str
    source: str
    said: dict[str, Any]
    lines: dict[Path, int]


def load(text: str, source: str = "policy") -> Policy:
    """Read a policy document.

    Raises:
        PolicyError: no TOML (names line and column), an unknown key, or a value that cannot be (names line and key).
    """
    return read(text, source).policy


def read(text: str, source: str = "policy") -> Document:
    """Read a policy document, with its places. Raises as `load`."""
    policy, said = read_as(Policy, text, source)
    return Document(policy, text, source, said, lines(text))


def read_as(model: type[_Model], text: str, source: str) -> tuple[_Model, dict[str, Any]]:
    """Read any TOML document that has a model. Raises PolicyError."""
    said = parse(text, source)
    return validate(model, said, source, text), said


def parse(text: str, source: str, max_chars: int = MAX_CHARS) -> dict[str, Any]:
    """A TOML document, in bounded time. Raises PolicyError."""
    if len(text) > max_chars:
        raise PolicyError(f"{source}: longer than {max_chars} characters")
    if _LONG_KEY.search(text):  # the time tomllib takes for a dotted key grows with the square of its parts
        raise PolicyError(f"{source}: nested too deeply")
    try:
        return tomllib.loads(text + "\n")  # with an end to the last line, so that it has a number
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{source}: {_misread(str(error), text)}") from None
    except RecursionError:
        raise PolicyError(f"{source}: nested too deeply") from None


def validate(model: type[_Model], said: Mapping[str, Any], source: str, text: str | None = None) -> _Model:
    """A document's model. text: what it was read from, for line numbers. Raises PolicyError."""
    try:
        return model.model_validate(said)
    except ValidationError as error:
        places = lines(text) if text is not None else {}
        found = [each for problem in error.errors() for each in _problems(model, problem)]
        found.sort(key=lambda each: line_of(places, each[0]) or 0)
        named = [_named(source, places, where, what) for where, what in found]
        more = [f"{source}: and {len(named) - MAX_PROBLEMS} more"] if len(named) > MAX_PROBLEMS else []
        raise PolicyError("\n".join(named[:MAX_PROBLEMS] + more)) from None


def _misread(said: str, text: str) -> str:
    """tomllib's words, with the place first and the key of its line."""
    place = _PLACE.search(said)
    every = text.splitlines() or [""]
    line = int(place["line"]) if place and place["line"] else len(every)
    key = _KEY.match(every[min(line, len(every)) - 1])
    where = f"line {line}, column {place['column']}" if place and place["line"] else f"line {line}"
    return f"{where}: " + (f"{key[1][:MAX_KEY_CHARS]}: " if key else "") + _PLACE.sub("", said)


def _named(source: str, places: dict[Path, int], where: Path, what: str) -> str:
    line = line_of(places, where)
    key = ".".join(map(str, where))[:MAX_KEY_CHARS]
    return f"{source}: " + (f"line {line}: " if line else "") + (f"{key}: " if key else "") + what


def _problems(model: type[BaseModel], problem: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    where = _written(model, tuple(problem["loc"]))
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, Contradiction):
        yield from cause.problems
    elif problem["type"] == "extra_forbidden":
        yield where, f"there is no such key{_meant(model, where)}"
    elif problem["type"] == "missing":
        yield where, "is missing"
    else:
        yield where, str(cause) if problem["type"] == "value_error" else str(problem["msg"])


def _meant(model: type[BaseModel], where: Path) -> str:
    """What a key that does not exist may have been meant to be: one of its table's, or the same one in another table."""
    name = str(where[-1])
    table = _table(model, where[:-1])
    near = difflib.get_close_matches(name[:MAX_KEY_CHARS], _keys(table) if table else (), 1, 0.6)
    if near:
        return f"; did you mean {near[0]}?"
    elsewhere = [f"[{above}]" for above, other in _tables(model) if name in _keys(other) and other is not table]
    return f"; it belongs into {' or '.join(elsewhere)}" if elsewhere else ""


def _keys(table: type[BaseModel]) -> dict[str, FieldInfo]:
    """A table's keys as they are written."""
    return {field.alias or name: field for name, field in table.model_fields.items()}


def _table(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The table at a place; of several kinds of table none, as what it was meant to be is not known."""
    found: type[BaseModel] | None = model
    is_name = False  # the key of a table of tables is a name that a person chose
    for key in path:
        if is_name or isinstance(key, int) or found is None:
            is_name = False
            continue
        field = _keys(found).get(key)
        models = list(_models(field.annotation)) if field is not None else []
        found = models[0] if len(models) == 1 else None
        is_name = field is not None and get_origin(field.annotation) is dict
    return found


def _written(model: type[BaseModel], loc: Path) -> Path:
    """A place as the document has it: pydantic puts the kind of a table that has several behind its index, and "[key]" behind a key that cannot be."""
    if loc and loc[-1] == "[key]":
        return loc[:-1]
    parts = [
        part for at, part in enumerate(loc) if not (at and isinstance(loc[at - 1], int) and isinstance(part, str) and _table(model, loc[: at - 1]) is None)
    ]
    return tuple(parts)


def _tables(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            yield name, inner


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
