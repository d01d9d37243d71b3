"""What the demo shows: on the terminal as it happens, and the held results again as a picture.

The picture is the same for every run: identifiers, times and what belongs to one machine are written as fixed values of the same length.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from rich.text import Text
from rich.theme import Theme

PICTURE_COLUMNS = 108

_FIXED = (
    (re.compile(r"\b\d s ago"), "2 s ago"),
    (re.compile(r"in \d+ min"), "in 59 min"),
    (re.compile(r"\b\d+\.\d ms"), "4.2 ms"),
    (re.compile(r"local:uid=\d+(,cgroup=\d+)?"), "local:uid=1000"),
    (re.compile(r"(server|port)([- ])(127\.0\.0\.1:)?(port-)?\d+"), r"\1\2port-8931"),
    (re.compile(r"sha256 [0-9a-f]{16}"), "sha256 9b1f6c20d4e87a35"),
)
_FONT = re.compile(r"@font-face \{.*?\}\s*", re.S)
"""Rich's picture would fetch fonts from elsewhere; the reader's own monospace font does."""


class Screen:
    """The terminal; colour only where it is one."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, emoji=False, theme=Theme({"step": "bold cyan", "typed": "bold"}))
        self._picture: list[Text] = []

    @property
    def columns(self) -> int:
        return max(80, min(self.console.width, 120))

    def step(self, text: str) -> None:
        self.console.print(f"\n[step]▸[/] {text}")

    def say(self, text: str) -> None:
        self.console.print(f"  {text}", soft_wrap=True)

    def typed(self, words: tuple[str, ...], output: str) -> None:
        """A command as a person types it, and what it printed (escaped by the command itself)."""
        self.console.print(_command(words), soft_wrap=True)
        self.console.print(Text.from_ansi(output.rstrip("\n")), soft_wrap=True)

    def picture(self, words: tuple[str, ...], output: str) -> None:
        """Add a command and its output to the picture."""
        self._picture += [_command(words), Text.from_ansi(output.rstrip("\n")), Text()]

    def write_picture(self, target: Path) -> None:
        """Write the picture as SVG."""
        recorder = Console(record=True, width=PICTURE_COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False)
        for text in self._picture[:-1]:
            recorder.print(text, soft_wrap=True)
        svg = _FONT.sub("", recorder.export_svg(title="holdfast", unique_id="held"))
        svg = svg.replace("<svg ", '<svg xml:space="preserve" ', 1)  # some readers drop the spaces that a text begins with
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(svg)


def fixed(output: str, ids: list[str]) -> str:
    """A command's output with what differs from run to run made the same."""
    for number, item in enumerate(ids, 1):
        output = output.replace(item, f"hf-{number * 0x3A7F1C29 % (1 << 40):010x}")
    for pattern, instead in _FIXED:
        output = pattern.sub(instead, output)
    return output


def _command(words: tuple[str, ...]) -> Text:
    quoted = (f"'{word}'" if " " in word else word for word in words)
    return Text.assemble(("$ ", "dim"), ("holdfast " + " ".join(quoted), "bold"))
