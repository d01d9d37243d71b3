"""A server's template: the checkpoint of its process after its first exchange and a listing of its tools, from which its twins are restored.

    STATE_DIR/sandbox/NAME/DIGEST/    0700, of root
        manifest.json                 what it was made of, the image's digests, what it took
        image/                        runsc's checkpoint
        unspoken                      instead of both: the server answers, and does not speak the era

DIGEST is of all that a template depends on, the era that it speaks among it: change one and another is built.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from enforcer.sandbox import traps
from enforcer.sandbox.frozen import CannotFreeze, Snapshots
from enforcer.sandbox.group import NoGroups
from enforcer.sandbox.mcp import NotSpoken, Silent
from enforcer.sandbox.runsc import RunscError
from enforcer.sandbox.twin import Maker, Twin

FORMAT = 3
START_SECONDS = 120.0
CHECKPOINT_SECONDS = 120.0
Progress = Callable[[str], None]


class CannotBuild(Exception):
    """No template can be made. `str()` says why, in our words."""


class NoTemplate(Exception):
    """There is none that may be used. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Template:
    """era: the MCP version that its server spoke. files: the image's files and their SHA-256.

    start_ms: to the end of the first exchange; checkpoint_ms; restore_ms: of a twin, to its answer to a ping; image_bytes.
    """

    digest: str
    era: str
    files: dict[str, str]
    start_ms: float
    checkpoint_ms: float
    restore_ms: float
    image_bytes: int


def digest(maker: Maker) -> str:
    """SHA-256 of era, settings, root, the program's file, layout and runsc, as hex."""
    root = Path(maker.settings.root)
    files = [root, *(root / word.lstrip("/") for word in maker.settings.command if word.startswith("/"))]
    identity = [_identity(path) for path in files]
    made_of = {
        "format": FORMAT,
        "era": maker.era.value,
        "settings": maker.settings.model_dump(mode="json", exclude={"pool", "run_ms", "snapshot_ms", "answer_bytes", "revert"}),
        "layout": asdict(maker.layout),
        "runsc": [maker.runsc.program, maker.runsc.version],
        "files": identity,
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _identity(path: Path) -> list[object]:
    """Of a file also size and time of change; of a folder only which one it is, since the host's root changes all the time."""
    try:
        about = path.stat()
    except OSError:
        return [str(path), None]
    return [str(path), about.st_dev, about.st_ino, *([about.st_size, about.st_mtime_ns] if path.is_file() else [])]


def load(maker: Maker, folder: Path) -> Template:
    """The template for a maker below its server's folder, its image's digests checked. NoTemplate; NotSpoken where a build found that there can be none."""
    wanted = digest(maker)
    place = folder / wanted
    if (place / "unspoken").exists():
        raise NotSpoken(f"the server does not speak MCP {maker.era.value}")
    try:
        kept = json.loads((place / "manifest.json").read_text())
        template = Template(**kept)
    except FileNotFoundError:
        raise NoTemplate("there is no template of these settings: holdfast sandbox build") from None
    except (OSError, ValueError, TypeError) as error:
        raise NoTemplate(f"the template cannot be read: {type(error).__name__}") from None
    try:
        sound = template.digest == wanted and template.files == _digests(place / "image")
    except OSError:
        sound = False
    if not sound:
        raise NoTemplate("the template's files are not those that were built: holdfast sandbox build")
    return template


def _digests(image: Path) -> dict[str, str]:
    found = {}
    for path in sorted(image.iterdir()):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


async def build(maker: Maker, folder: Path, snapshots: Snapshots, progress: Progress) -> Template:
    """Make the template and put it in place, whole or not at all. CannotBuild; NotSpoken, which is kept as well."""
    making = _begin(folder)
    try:
        template = await _build(maker, making / "image", snapshots, progress)
        (making / "manifest.json").write_text(json.dumps(asdict(template), indent=1))
        place = folder / template.digest
        shutil.rmtree(place, ignore_errors=True)
        making.rename(place)
        return template
    except NotSpoken:
        place = folder / digest(maker)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        (place / "unspoken").touch()
        raise
    except (NoGroups, RunscError, CannotFreeze) as error:
        raise CannotBuild(str(error)) from None
    except OSError as error:
        raise CannotBuild(f"the twin could not be set up: {error}") from None
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _begin(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(folder, 0o700)
    making = folder / f".making-{os.getpid()}"
    shutil.rmtree(making, ignore_errors=True)
    (making / "image").mkdir(mode=0o700, parents=True)
    return making


async def _build(maker: Maker, image: Path, snapshots: Snapshots, progress: Progress) -> Template:
    if why := traps.directory(maker.settings.directory, maker.layout.places):
        raise CannotBuild(why)
    progress("starting the server in gVisor")
    begun = time.monotonic()
    twin = await Twin.start(maker, snapshots=snapshots)
    try:
        twin.wake()
        await _hello(twin)
        start_ms = (time.monotonic() - begun) * 1000
        progress(f"it speaks MCP {maker.era.value}; looking for what a checkpoint would not keep")
        if why := await traps.held(maker.runsc, twin.name, maker.layout.places):
            raise CannotBuild(why)
        progress("checkpointing")
        begun = time.monotonic()
        await maker.runsc.finish(
            "checkpoint", "--compression=none", "--exclude-committed-zero-pages", f"--image-path={image}", twin.name, seconds=CHECKPOINT_SECONDS
        )
        checkpoint_ms = (time.monotonic() - begun) * 1000
    finally:
        await twin.end()
    progress("restoring a twin to measure it")
    restore_ms = await measure(maker, image)
    files = _digests(image)
    size = sum((image / name).stat().st_size for name in files)
    return Template(digest(maker), maker.era.value, files, start_ms, checkpoint_ms, restore_ms, size)


async def _hello(twin: Twin) -> None:
    try:
        await asyncio.wait_for(_begin_to_talk(twin), START_SECONDS)
    except TimeoutError:
        raise CannotBuild(f"the server did not answer within {START_SECONDS:g} s") from None
    except Silent as error:
        raise CannotBuild(f"{error}. It said: {twin.said or 'nothing'}") from None


async def _begin_to_talk(twin: Twin) -> None:
    await twin.conversation.hello(twin.maker.era)
    await twin.conversation.rehearse(twin.maker.era)


async def measure(maker: Maker, image: Path) -> float:
    """Restore a twin and ping it: milliseconds to its answer. CannotBuild where none comes."""
    begun = time.monotonic()
    twin = await Twin.start(maker, image)
    try:
        twin.wake()
        await twin.ready(START_SECONDS)
        return (time.monotonic() - begun) * 1000
    except (TimeoutError, Silent) as error:
        raise CannotBuild(f"a twin restored from the checkpoint does not answer: {error}. It said: {twin.said or 'nothing'}") from None
    finally:
        await twin.end()
