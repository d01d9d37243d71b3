"""Run the demo: `python -m tests.demo [--picture FILE]`. 0 where everything was as expected, 1 where not, 130 after Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import anyio
from rich.markup import escape

from tests.demo.instance import Demo, Unexpected
from tests.demo.screen import Screen
from tests.demo.story import Story
from tests.real.process import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description="Hold hostile results before a real MCP server, and show it.")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "held.svg", help="where the picture goes (default: docs/held.svg)")
    picture: Path = parser.parse_args().picture
    screen, began = Screen(), time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit it ignored
    try:
        with Demo() as demo:
            anyio.run(Story(demo, screen, picture).tell)
    except KeyboardInterrupt:
        screen.console.print("\nInterrupted; everything is ended and removed.")
        return 130
    except BaseExceptionGroup as group:
        return _failed(screen, group)
    except Unexpected as error:
        return _failed(screen, error)
    screen.console.print(f"\n[green]All as expected[/], in {time.monotonic() - began:.0f} s. The picture is {escape(str(picture))}.", soft_wrap=True)
    return 0


def _failed(screen: Screen, error: BaseException) -> int:
    while isinstance(error, BaseExceptionGroup):
        if any(isinstance(one, KeyboardInterrupt) for one in error.exceptions):
            screen.console.print("\nInterrupted; everything is ended and removed.")
            return 130
        error = error.exceptions[0]
    if not isinstance(error, Unexpected):
        raise error
    screen.console.print(f"\n[bold red]Not as expected:[/] {escape(str(error))}", soft_wrap=True)
    return 1


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
