"""What the tests of twins share: a server's settings, its template, and state that is copied plainly."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from enforcer.sandbox import bundle, runsc
from enforcer.sandbox.frozen import Layer
from enforcer.sandbox.mcp import META, Conversation, Era
from enforcer.sandbox.twin import Maker
from escrow.sandbox.effects import Change, Effects, Write
from escrow.sandbox.settings import Directory, SandboxSettings

ROOT = Path(__file__).parents[3]
SERVER = Path(__file__).with_name("server.py")
HIDDEN = tuple(path for path in SandboxSettings.model_fields["hidden"].default if not ROOT.is_relative_to(path))
"""The default, but for the folder that this installation itself may lie in."""


@dataclass(frozen=True)
class Copied:
    layers: tuple[Layer, ...]
    took_ms: float = 0.0
    processes: tuple[int, ...] = ()

    def written(self) -> Effects:
        return Effects(
            writes=tuple(
                Write(f"{layer.place}/{path.relative_to(layer.upper)}", Change.CHANGED, path.stat().st_mode)
                for layer in self.layers
                if layer.upper is not None
                for path in sorted(layer.upper.rglob("*"))
                if path.is_file()
            )
        )

    def another(self, folder: Path) -> None:
        return None

    def release(self) -> None:
        pass


@dataclass(frozen=True)
class Copies:
    """A `Snapshots` of directories, by copying."""

    settings: SandboxSettings

    async def freeze(self, folder: Path) -> Copied:
        layers = []
        for number, state in enumerate(self.settings.state):
            assert isinstance(state, Directory)
            lower, upper, work = (folder / kind / str(number) for kind in ("lower", "upper", "work"))
            shutil.copytree(state.path, lower)
            upper.mkdir(parents=True)
            work.mkdir(parents=True)
            layers.append(Layer(state.at or state.path, lower, upper, work))
        return Copied(tuple(layers))


@dataclass(frozen=True)
class World:
    """folder: this test's own. data: the real state; the twin sees it at the same place. templates: the server's folder."""

    folder: Path
    data: Path
    maker: Maker
    templates: Path
    snapshots: Copies


@contextmanager
def world(*arguments: str, directory: str = "/", **settings: object) -> Iterator[World]:
    with TemporaryDirectory(prefix="holdfast-twins-", dir="/var/tmp") as name:
        folder = Path(name)
        data = folder / "shown" / "data"
        data.mkdir(parents=True)
        (data / "notes.txt").write_text("as it was")
        (folder / "shown" / "beside.txt").write_text("beside")
        (folder / "covered").mkdir()
        (folder / "covered" / "secret.txt").write_text("covered")
        made = SandboxSettings.model_validate(
            {
                "command": (sys.executable, str(SERVER), *(word.replace("DATA", str(data)) for word in arguments)),
                "environment": {"PYTHONPATH": str(ROOT)},
                "directory": directory.replace("DATA", str(data)),
                "state": [{"kind": "directory", "path": str(data)}],
                "hidden": (*HIDDEN, str(folder / "covered")),
                **settings,
            }
        )
        (folder / "state").mkdir()
        own = folder / "state"
        maker = Maker(runsc.find(folder / "runsc"), made, bundle.layout(made, (own,)), own / "twins")
        yield World(folder, data, maker, own / "sandbox" / "twin", Copies(made))


def request(tool: str, era: Era = Era.SESSION, **arguments: object) -> bytes:
    params = {"name": tool, "arguments": arguments, **({"_meta": META} if era is Era.STATELESS else {})}
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()


async def real(here: World, *requests: bytes, era: Era = Era.SESSION) -> list[bytes]:
    """What the real server answers: one process, over stdio, outside of any twin."""
    settings = here.maker.settings
    process = await asyncio.create_subprocess_exec(
        *settings.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**os.environ, **settings.environment}, limit=1 << 22
    )
    assert process.stdin and process.stdout
    try:
        conversation = Conversation(process.stdin, process.stdout, 1 << 24)
        await conversation.hello(era)
        return [await conversation.call(raw, 7) for raw in requests]
    finally:
        process.kill()
        await process.wait()


def text(answer: bytes | None) -> str:
    """The first text of a tool's answer."""
    assert answer is not None
    said = json.loads(answer)
    assert said["id"] == 7
    return str(said["result"]["content"][0]["text"])
