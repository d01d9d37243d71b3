"""gVisor's `runsc`: which one is there, and its commands as argument vectors. Each is run without a shell, with a time after which it is killed.

Flags: `runsc flags` of 20240729. `--overlay2` is always named, since its default writes to the root.
"""

from __future__ import annotations

import asyncio
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from enforcer.sandbox import traces

OLDEST = 20240729
"""The first release whose systrap restores a Python server in a fifth of a second (`runsc --version`)."""
_TRACED = ",".join(traces.SYSCALLS + (traces.LEGACY_SYSCALLS if platform.machine() == "x86_64" else ()))


class RunscError(Exception):
    """runsc is missing, too old, or a command of it failed. `str()` says which, in our words."""


@dataclass(frozen=True, slots=True)
class Runsc:
    """program: its path. version: its release's date, as a number. folder: where it keeps its own state, one for each user of it."""

    program: str
    version: int
    folder: Path

    def argv(self, *command: str, log: Path | None = None, sockets: bool = False) -> list[str]:
        """A command's arguments. log: a folder for traces. sockets: whether Unix sockets of bound folders may be connected to."""
        flags = [f"--root={self.folder}", "--network=none", "--ignore-cgroups", "--overlay2=root:memory", "--platform=systrap"]
        if log is not None:
            flags += ["--debug", f"--debug-log={log}/", "--strace", f"--strace-syscalls={_TRACED}"]
        if sockets:
            flags.append("--host-uds=open")
        return [self.program, *flags, *command]

    async def finish(self, *command: str, seconds: float) -> bytes:
        """Run a command to its end; its output. RunscError where it fails or takes longer."""
        process = await asyncio.create_subprocess_exec(*self.argv(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, said = await asyncio.wait_for(process.communicate(), seconds)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise RunscError(f"runsc {command[0]} took longer than {seconds:g} s") from None
        if process.returncode:
            raise RunscError(f"runsc {command[0]} failed: {said.decode(errors='replace').strip()[:300] or f'exit code {process.returncode}'}")
        return out


def lacks(said: str) -> str:
    """What a `runsc --version` text is short of; "" where it will do."""
    found = version(said)
    if found is None:
        return "it does not say its version"
    return f"it is of {found}, and {OLDEST} or newer is needed" if found < OLDEST else ""


def version(said: str) -> int | None:
    """The release's date in `runsc version release-20240729.0` or `0.0~20240729.0`."""
    match = re.search(r"^runsc version \D*(?:0\.0~)?(20\d{6})", said, re.MULTILINE)
    return int(match.group(1)) if match else None


def find(folder: Path) -> Runsc:
    """The machine's runsc. RunscError with the reason where there is none that will do."""
    program = shutil.which("runsc")
    if program is None:
        raise RunscError("runsc is not installed")
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise RunscError(f"runsc does not run: {error}") from None
    if why := lacks(said):
        raise RunscError(f"runsc will not do: {why}")
    return Runsc(program, version(said) or 0, folder)
