"""`holdfast sandbox build|check|ls|run`: the twins of the servers in a policy. Root only, and without a daemon."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from enforcer.cli import render, twins
from enforcer.cli.places import Json, RuntimeDir, StateDir, control_socket, runtime_dir, state_dir
from enforcer.cli.run import PolicyFile, read_policy
from enforcer.control import client
from enforcer.control.client import Refused, Unreachable
from enforcer.sandbox import bundle, runsc, template
from enforcer.sandbox.mcp import META, VERSION, Era, NotSpoken
from enforcer.sandbox.pool import Pool
from enforcer.sandbox.snapshots import StateSnapshots
from enforcer.sandbox.template import CannotBuild, NoTemplate
from enforcer.sandbox.twin import Maker, sweep
from escrow.sandbox.run import Run
from escrow.sandbox.settings import SandboxSettings

sandbox = typer.Typer(no_args_is_help=True, help="Copies of servers under gVisor.\n\nExample: holdfast sandbox build --policy policy.toml")
ServerOption = Annotated[str | None, typer.Option("--server", help="Only this server of the policy's.")]


def _servers(policy: Path | None, wanted: str | None) -> Iterator[tuple[str, SandboxSettings]]:
    found = {name: table.sandbox for name, table in read_policy(policy).servers.items() if table.sandbox is not None and wanted in (None, name)}
    if not found:
        raise Refused(f"the policy has no [servers.{wanted or 'NAME'}.sandbox]")
    yield from found.items()


def _maker(settings: SandboxSettings, state: Path, runtime: Path) -> Maker:
    """RunscError, CannotBundle."""
    if os.geteuid() != 0:
        raise Refused("the sandbox needs root")
    maker = Maker(runsc.find(runtime / "sandbox"), settings, bundle.layout(settings, (state, runtime)), state / "sandbox" / ".twins")
    if left := sweep(maker):
        render.err.print(f"{left} twins of a run that died could not be ended")
    return maker


@sandbox.command()
def build(policy: PolicyFile = None, server: ServerOption = None, as_json: Json = False, state: StateDir = None, runtime: RuntimeDir = None) -> None:
    """Start each server in gVisor, once for each era of MCP, checkpoint it after its first exchange, and measure.

    Exit code 1 where one cannot be, or speaks no era.

    Example: holdfast sandbox build --policy policy.toml --server documents
    """
    rows: list[dict[str, object]] = []
    for name, settings in _servers(policy, server):

        def progress(text: str, name: str = name) -> None:
            render.err.print(f"{escape(render.safe(name))}: {text}")

        spoken = 0
        for era in Era:
            try:
                maker = _maker(settings, state_dir(state), runtime_dir(runtime)).of(era)
                folder = state_dir(state) / "sandbox" / name
                made = asyncio.run(template.build(maker, folder, StateSnapshots(settings), progress))
            except NotSpoken as error:
                progress(str(error))
                rows.append({"server": name, "era": era.value, "spoken": False})
                continue
            except (runsc.RunscError, bundle.CannotBundle, CannotBuild) as error:
                raise Refused(f"{name}: {error}") from None
            spoken += 1
            rows.append({"server": name, "spoken": True, **asdict(made)})
            if not as_json:
                took = f"started in {made.start_ms:.0f} ms, checkpointed in {made.checkpoint_ms:.0f} ms, restored in {made.restore_ms:.0f} ms"
                render.out.print(f"{escape(render.safe(name))}: MCP {made.era}, {made.digest[:16]}, {took}, {made.image_bytes >> 20} MiB", soft_wrap=True)
        if not spoken:
            raise Refused(f"{name}: the server speaks neither era of MCP")
    if as_json:
        render.print_json(rows)


@sandbox.command()
def check(policy: PolicyFile = None, server: ServerOption = None, as_json: Json = False, state: StateDir = None, runtime: RuntimeDir = None) -> None:
    """Whether each server has a template that may be used, for each era of MCP that it speaks. Exit code 1 where one has none.

    Example: holdfast sandbox check --policy policy.toml
    """
    rows = []
    for name, settings in _servers(policy, server):
        for era in Era:
            why, spoken = "", True
            try:
                template.load(_maker(settings, state_dir(state), runtime_dir(runtime)).of(era), state_dir(state) / "sandbox" / name)
            except NotSpoken as error:
                why, spoken = str(error), False
            except (runsc.RunscError, bundle.CannotBundle, NoTemplate) as error:
                why = str(error)
            rows.append({"server": name, "era": era.value, "ok": not why, "spoken": spoken, "why": why})
            if not as_json:
                said = escape(render.safe(why)) or "its template is there and whole"
                render.out.print(f"{escape(render.safe(name))}, MCP {era.value}: {said}", soft_wrap=True)
    if as_json:
        render.print_json(rows)
    whole = {row["server"] for row in rows if row["ok"]}
    raise typer.Exit(0 if all(row["server"] in whole and (row["ok"] or not row["spoken"]) for row in rows) else 1)


@sandbox.command("ls")
def list_templates(as_json: Json = False, state: StateDir = None, runtime: RuntimeDir = None) -> None:
    """The templates that are kept, with their times; where Holdfast runs, also each server's pool: its hit rate, and how long calls took.

    Example: holdfast sandbox ls
    """
    rows = []
    for path in sorted((state_dir(state) / "sandbox").glob("*/*/manifest.json")):
        try:
            kept = json.loads(path.read_text())
        except (OSError, ValueError):
            raise Refused(f"{path} cannot be read") from None
        rows.append({"server": path.parent.parent.name, **kept})
    try:
        running = client.ask(control_socket(runtime), "status")["sandbox"]
    except Unreachable:
        running = None
    if as_json:
        render.print_json({"templates": rows, "running": running})
        return
    used = {each["template"]["digest"] for each in running["servers"] if each["template"]} if running else set()
    for row in rows:
        took = f"started in {row['start_ms']:.0f} ms, restored in {row['restore_ms']:.0f} ms, {row['image_bytes'] >> 20} MiB"
        mark = "" if running is None else "  in use" if row["digest"] in used else "  not in use"
        render.out.print(escape(render.safe(f"{row['server']}  {row['digest'][:16]}  MCP {row['era']}  {took}{mark}")), soft_wrap=True)
    if running is not None:
        twins.servers(running)
    elif not rows:
        render.out.print("There is no template: holdfast sandbox build makes them.")


@sandbox.command()
def run(
    call: Annotated[Path, typer.Argument(help='A file with a call: {"name": …, "arguments": …}, or a whole tools/call request.')],
    policy: PolicyFile = None,
    server: ServerOption = None,
    as_json: Json = False,
    state: StateDir = None,
    runtime: RuntimeDir = None,
) -> None:
    """Put one call to a twin, and show what it answered and did. Exit code 1 where it did not answer.

    A request whose `_meta` names the version 2026-07-28 goes to a twin of that era; any other to one of a session.

    Example: holdfast sandbox run call.json --policy policy.toml --server documents
    """
    name, settings = next(_servers(policy, server))
    folder = state_dir(state) / "sandbox" / name
    found = Run("absent", why="the server speaks neither era of MCP")
    for request, identifier, era in _requests(call):
        try:
            maker = _maker(settings, state_dir(state), runtime_dir(runtime)).of(era)
            found = asyncio.run(_once(Pool(maker, template.load(maker, folder), folder, StateSnapshots(settings)), request, identifier))
            break
        except NotSpoken as error:
            found = Run("absent", why=str(error))
        except (runsc.RunscError, bundle.CannotBundle, NoTemplate) as error:
            found = Run("absent", why=str(error))
            break
    answer = None if found.answer is None else found.answer.decode(errors="replace")
    shown = {**asdict(found), "answer": answer}
    if as_json:
        render.print_json(shown)
    else:
        _show(found, answer)
    raise typer.Exit(0 if found.outcome == "answered" else 1)


async def _once(pool: Pool, request: bytes, name: str | int) -> Run:
    try:
        return await pool.once(request, name)
    finally:
        await pool.close()


def _requests(file: Path) -> Iterator[tuple[bytes, str | int, Era]]:
    """The request, its id and its era. A bare name with arguments is written in each era, for the first that the server speaks."""
    try:
        said = json.loads(file.read_bytes())
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}") from None
    except ValueError:
        raise Refused(f"{file}: not JSON") from None
    if isinstance(said, dict) and isinstance(said.get("name"), str):
        for era in Era:
            params = {"name": said["name"], "arguments": said.get("arguments") or {}, **({"_meta": META} if era is Era.STATELESS else {})}
            yield json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode(), 1, era
        return
    if not isinstance(said, dict) or said.get("method") != "tools/call" or type(said.get("id")) not in (str, int):
        raise Refused(f'{file}: neither {{"name": …, "arguments": …}} nor a tools/call request with an id')
    asked = said.get("params")
    meta = asked.get("_meta") if isinstance(asked, dict) else None
    yield json.dumps(said).encode(), said["id"], Era.STATELESS if isinstance(meta, dict) and VERSION in meta else Era.SESSION


def _show(found: Run, answer: str | None) -> None:
    def line(text: str) -> None:
        render.out.print(escape(render.safe(text)), soft_wrap=True)

    line(f"{found.outcome} after {found.took_ms:.1f} ms; state frozen in {found.frozen_ms:.1f} ms{'. ' + found.why if found.why else ''}")
    if answer is not None:
        line(f"answer     {answer[:2000]}")
    for write in found.effects.writes:
        line(f"{write.change:10} {write.path}")
    for connect in found.effects.connects:
        line(f"{'inside' if connect.inside else 'connect':10} {connect.name or connect.address}{'' if connect.port is None else f':{connect.port}'}")
    for execute in found.effects.executes:
        line(f"execute    {execute.path} {' '.join(execute.arguments)}")
    for why in found.effects.incomplete:
        line(f"incomplete {why}")
