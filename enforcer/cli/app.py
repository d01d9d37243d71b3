"""All commands in one place, and how errors end them: 0 done, 1 refused or not sound, 2 wrong usage, 3 no daemon."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from typing import Annotated

import typer
from rich.markup import escape

from enforcer.cli import audit, canary, doctor, escrow, judge, lock, observe, policy, render, run, sandbox, status, taps, token
from enforcer.control.client import Refused, Unreachable
from escrow.policy import PolicyError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="A firewall for MCP: holds tool-call results until they are judged safe.\n\nExample: holdfast start --port 8931; holdfast escrow ls --watch",
)
app.command()(run.start)
app.command()(run.proxy)
app.command()(observe.observe)
app.command()(run.stop)
app.command()(status.status)
app.command()(run.test)
app.command()(lock.lock)
app.command()(lock.unlock)
app.command()(doctor.doctor)
app.command()(taps.taps)
app.command()(judge.scan)
app.command()(judge.verdicts)
app.add_typer(escrow.escrow, name="escrow")
app.add_typer(escrow.tools, name="tools")
app.add_typer(policy.policy, name="policy")
app.add_typer(audit.audit, name="audit")
app.add_typer(token.token, name="token")
app.add_typer(canary.canary, name="canary")
app.add_typer(sandbox.sandbox, name="sandbox")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"holdfast {installed('holdfast')}")
        raise typer.Exit


@app.callback()
def _options(version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass


def main() -> None:
    """The entry point."""
    try:
        app()
    except PolicyError as error:
        _end(str(error), 2)
    except (run.CannotStart, run.CannotStop, Refused) as error:
        _end(str(error), 1)
    except Unreachable as error:
        _end(str(error), 3)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


def _end(text: str, code: int) -> None:
    render.err.print(f"holdfast: {escape(render.safe(text, lines=True))}", soft_wrap=True)
    sys.exit(code)
