"""DESIGN.md's import table, read from the syntax tree: the core is pure, the window is apart, the adapters do not know each other."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# fmt: off
IMPURE = frozenset([
    "_socket", "_thread", "asyncio", "concurrent", "ctypes", "fcntl", "glob", "http", "io", "mmap", "multiprocessing", "os", "pathlib",
    "pwd", "queue", "random", "sched", "secrets", "select", "selectors", "shelve", "shutil", "signal", "socket", "socketserver", "sqlite3",
    "ssl", "subprocess", "sys", "tempfile", "termios", "threading", "time", "urllib.request", "urllib.error", "anyio", "uvloop",
    "httpx", "requests",
])
# fmt: on
"""Modules by which time, bytes or chance could come in other than as an argument."""

CORE_MAY = frozenset({"pydantic", "rfc8785", "re2", "httptools", "hpack", "hyperframe", "brotli", "compression", "backports"})
"""What `escrow` may import beside the standard library: data types and sans-IO parsers."""

ADAPTERS = frozenset({"kernel", "relay", "scanner", "sandbox", "store", "dns", "evidence", "control", "jury", "witness", "telemetry"})


def imported(source: str, package: str) -> Iterator[str]:
    """Every module named by an import anywhere in a source, also inside functions; relative ones made absolute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "__import__":
            yield "__import__"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "import_module":
            yield "importlib.import_module"


def _within(module: str, packages: frozenset[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[: end + 1]) in packages for end in range(len(parts)))


def broken(source: str, module: str) -> list[str]:
    """The imports of one module (named `package.sub.file`) that the table forbids."""
    package = module.rpartition(".")[0]
    wrong = []
    for name in imported(source, package):
        top = name.partition(".")[0]
        if module.startswith("escrow"):
            stdlib = top in sys.stdlib_module_names and not _within(name, IMPURE) and name not in ("__import__", "importlib.import_module")
            if not (stdlib or top in CORE_MAY or top == "escrow"):
                wrong.append(name)
        elif module.startswith("mcp_server"):
            if top == "enforcer":
                wrong.append(name)
        elif module.startswith("enforcer."):
            own = module.split(".")[1]
            parts = name.split(".")
            other = parts[1] if parts[0] == "enforcer" and len(parts) > 1 else None
            if top == "mcp_server" or (own in ADAPTERS and other in ADAPTERS and other != own):
                wrong.append(name)
    return wrong


def _modules() -> list[tuple[str, Path]]:
    found = []
    for package in ("escrow", "enforcer", "mcp_server"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append((".".join(parts), path))
    return found


@pytest.mark.parametrize("module, path", [pytest.param(module, path, id=module) for module, path in _modules()])
def test_a_module_imports_only_what_the_table_allows(module: str, path: Path) -> None:
    assert broken(path.read_text("utf-8"), module) == []


@pytest.mark.parametrize(
    "module, source",
    [
        ("escrow.gate", "import socket"),
        ("escrow.gate", "import os.path"),
        ("escrow.gate", "from time import monotonic"),
        ("escrow.gate", "def f():\n    import random"),
        ("escrow.gate", "from urllib.request import urlopen"),
        ("escrow.gate", "from urllib import request"),
        ("escrow.gate", "import asyncio as a"),
        ("escrow.gate", "from pathlib import Path"),
        ("escrow.gate", "from enforcer.custody import Custody"),
        ("escrow.gate", "from ..enforcer import custody"),
        ("escrow.gate", "import httpx"),
        ("escrow.gate", "__import__('socket')"),
        ("escrow.gate", "import importlib\nimportlib.import_module('socket')"),
        ("mcp_server.window", "import enforcer"),
        ("mcp_server.window", "from enforcer.store import Store"),
        ("enforcer.relay.wire", "from enforcer.store import Store"),
        ("enforcer.relay.wire", "from enforcer import store"),
        ("enforcer.relay.wire", "from ..control import server"),
        ("enforcer.control.server", "import enforcer.relay.wire"),
        ("enforcer.store.store", "import mcp_server"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str) -> None:
    assert broken(source, module)


@pytest.mark.parametrize(
    "module, source",
    [
        ("escrow.gate", "from urllib.parse import unquote\nimport json, re\nfrom escrow.item import Item\nimport re2"),
        ("enforcer.relay.wire", "from enforcer.relay.stream import ClientStream\nfrom enforcer.custody import Custody\nimport socket"),
        ("mcp_server.window", "from escrow.item import Item\nimport mcp"),
    ],
)
def test_an_allowed_import_is_not_reported(module: str, source: str) -> None:
    assert broken(source, module) == []
