"""Cuts Gitleaks' default rule set out of a released Gitleaks program, and says whether it is the one that is shipped.

    python -m tests.bench.secret_rules PROGRAM [--write]

The program carries its configuration as text. A new release means: run this with --write, change `VERSION` in
`enforcer/scanner/secret_rules.py` and `SHA256` here, and look at what `python -m tests.bench.outgoing` says.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

SHA256 = "e163e53b9e7e8a8511e77271e2b323ed057759542a6d988258afe3a1fa329caf"
FILE = Path(__file__).resolve().parents[2] / "enforcer/scanner/gitleaks.toml"
_START = re.compile(rb"# This file has been auto-generated\. Do not edit manually\.\n(?:#[^\n]*\n)+\n?title = \"gitleaks config\"")
_NO_TEXT = re.compile(rb"[^\t\n\r\x20-\x7e\x80-\xff]")
_LAST = b"]\n\n"


def cut(program: bytes) -> bytes:
    """The rule set in a program's bytes. Raises ValueError where there is none."""
    start = _START.search(program)
    if start is None:
        raise ValueError("it carries no rule set")
    end = _NO_TEXT.search(program, start.start())
    text = program[start.start() : end.start() if end else len(program)]
    return text[: text.rindex(_LAST) + len(_LAST)]


def main(program: str, write: bool) -> int:
    """0 where the program's set is the shipped one."""
    found = cut(Path(program).read_bytes())
    digest = hashlib.sha256(found).hexdigest()
    print(f"{digest}  {len(found)} bytes, {'the shipped set' if found == FILE.read_bytes() else 'another set than the shipped one'}")
    if write:
        FILE.write_bytes(found)
    return 0 if digest == SHA256 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "--write" in sys.argv[2:]))
