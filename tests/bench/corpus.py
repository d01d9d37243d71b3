"""The texts that detection is measured on: the development sets, where they are, and documentation of this very machine.

Documentation is READMEs, manual pages and how-tos that Debian, pip and npm packages left here, split by package into parts for
training, for choosing thresholds and for measuring, so that no package is in two.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MAX_CHARS = 8000
"""Longest document measured, in code points; a longer one is cut there."""

TOOL_OUTPUTS = ("injecagent_simulated_tool_outputs", "injecagent_clean_templates", "toolbench_outputs", "spikee_fp")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Sample:
    """hostile: whether it carries an instruction meant for an agent. group: what must not be split (a package, the text itself)."""

    text: str
    hostile: bool
    family: str
    group: str

    @property
    def part(self) -> Literal["measure", "calibrate", "train"]:
        """What a benign text is for: figures come from a fifth that neither training nor the choice of thresholds looks at."""
        at = bucket(self.group)
        return "measure" if at < 20 else "calibrate" if at < 40 else "train"


def bucket(name: str) -> int:
    """0 … 99, evenly and always the same."""
    return int(hashlib.md5(name.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()[:6], 16) % 100


def data_folder() -> Path | None:
    """Where `dev.jsonl` is: $HOLDFAST_SCANNER_DATA, else ../shared/data/scanner; None where neither exists."""
    named = os.environ.get("HOLDFAST_SCANNER_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data" / "scanner"
    return folder if (folder / "dev.jsonl").is_file() else None


def development(folder: Path) -> list[Sample]:
    """The rows of dev.jsonl."""
    with (folder / "dev.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Sample(row["text"], row["label"] == 1, row["set"], row["text"]) for row in rows]


def documentation(most_manuals: int) -> list[Sample]:
    """Documentation on this machine, in an order that does not depend on the file system's."""
    found: dict[str, Sample] = {}
    for package, family, text in (*_debian(), *_python(), *_node(), *_manuals(most_manuals)):
        text = text.strip()[:MAX_CHARS]
        if len(text) > 200 and text not in found:
            found[text] = Sample(text, False, family, package)
    return sorted(found.values(), key=lambda sample: hashlib.md5(sample.text.encode("utf-8", "replace"), usedforsecurity=False).digest())


def _read(path: Path) -> str:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError):
        return ""
    return raw.decode("utf-8", "replace")


def _debian() -> Iterator[tuple[str, str, str]]:
    for pattern in ("README*", "*.txt*", "*.md", "*.rst", "NEWS*", "html/*.html"):
        for path in sorted(Path("/usr/share/doc").glob(f"*/{pattern}")):
            if path.is_file():
                yield f"deb:{path.relative_to('/usr/share/doc').parts[0]}", "docs_debian", _read(path)


def _python() -> Iterator[tuple[str, str, str]]:
    for place in (ROOT / ".venv/lib", Path("/usr/lib/python3"), Path("/usr/local/lib")):
        for path in sorted(place.glob("**/*-info/METADATA")):
            package = path.parent.name.split("-")[0].lower()
            if package != "stackone_defender":
                yield f"py:{package}", "docs_readme", _read(path).partition("\n\n")[2]


def _node() -> Iterator[tuple[str, str, str]]:
    for place in (ROOT / "tests/real", Path("/usr/lib/node_modules"), Path("/usr/local/lib/node_modules")):
        for path in sorted(place.glob("**/node_modules/**/README.md")):
            yield f"npm:{str(path).rpartition('node_modules/')[2].rpartition('/')[0]}", "docs_readme", _read(path)


def _manuals(most: int) -> Iterator[tuple[str, str, str]]:
    if shutil.which("man") is None or shutil.which("col") is None:
        return
    pages = [path for section in "15678" for path in Path(f"/usr/share/man/man{section}").glob("*.gz") if not path.is_symlink()]
    pages.sort(key=lambda path: hashlib.md5(path.name.encode(), usedforsecurity=False).digest())
    taken: dict[str, int] = {}
    for path in pages:
        stem = path.name.replace("_", "-").replace(".", "-").split("-")[0]
        taken[stem] = taken.get(stem, 0) + 1
        if taken[stem] > 6:
            continue
        if most == 0:
            return
        most -= 1
        page = subprocess.run(["man", "-l", str(path)], capture_output=True, env={"MANWIDTH": "100", "PATH": "/usr/bin:/bin"}, check=False)
        plain = subprocess.run(["col", "-bx"], input=page.stdout, capture_output=True, check=False)
        yield f"man:{stem}", "docs_manual", plain.stdout.decode("utf-8", "replace")
