"""The main job, step by step. Every step is checked: what is not as it must be raises Unexpected."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from mcp import Client
from mcp.types import CallToolResult, TextContent
from rich.markup import escape

from escrow import answers
from escrow.answers import Why
from escrow.call import Kind
from escrow.redact import MARK
from tests.demo.documents import BULLETIN, DOCUMENTS, HANDBOOK, HIDDEN, INVOICE
from tests.demo.instance import Demo, Unexpected
from tests.demo.screen import PICTURE_COLUMNS, Screen, fixed

HELD_S = 20.0
HOSTILE = ("bulletin", "invoice", "minutes")
REASON = {"approve": "quotes an attack, is none", "deny": "instruction in base64", "redact": "without the hidden part"}
REDACTED = INVOICE.replace(HIDDEN, MARK)


@dataclass(slots=True)
class Answer:
    """What the client got for one document, and when (monotonic seconds)."""

    text: str
    is_error: bool
    at: float


class Story:
    """One run. `answers` fills as the client is answered."""

    def __init__(self, demo: Demo, screen: Screen, picture: Path) -> None:
        self.demo, self.screen, self.picture = demo, screen, picture
        self.answers: dict[str, Answer] = {}
        self.came: dict[str, anyio.Event] = {name: anyio.Event() for name in DOCUMENTS}
        self.items: dict[str, str] = {}

    async def tell(self) -> None:
        """Raises Unexpected."""
        self.screen.step("An ordinary MCP server that reads documents")
        await to_thread.run_sync(self.demo.serve)
        self.screen.say(f"listens on 127.0.0.1:{self.demo.server_port}; three of its four documents carry an instruction to the agent")
        port = await to_thread.run_sync(self._guard)
        url = f"http://127.0.0.1:{port}/mcp"
        self.screen.step(f"An ordinary MCP client, {url}")
        async with Client(url) as client, anyio.create_task_group() as calls:
            await self._clean(client)
            for name in HOSTILE:
                calls.start_soon(self._read, client, name)
                self.items[name] = await self._held()
            self.screen.say("three more calls are made; none of them is answered: their results are held")
            self.expect(not set(HOSTILE) & set(self.answers), "a hostile result reached the client undecided")
            await self._show()
            await self._decide()
        await self._close()

    def expect(self, true: bool, otherwise: str) -> None:
        if not true:
            raise Unexpected(otherwise)

    # --- steps ---

    def _guard(self) -> int:
        self.screen.step(f"Holdfast on its port: holdfast start --port {self.demo.server_port}")
        why = self.demo.steer()
        if why is None:
            self.screen.say("the kernel steers new connections to that port into the gate; server and clients are as they were")
            return self.demo.server_port
        port = self.demo.proxy()
        self.screen.say(f"[yellow]steering cannot work here: {escape(why)}[/]")
        self.screen.say(f"so this is `holdfast proxy` on 127.0.0.1:{port}: the same gate, but only clients that use that address are guarded")
        return port

    async def _clean(self, client: Client) -> None:
        began = time.monotonic()
        await self._read(client, "handbook")
        got = self.answers["handbook"]
        self.expect(not got.is_error and got.text == HANDBOOK, f"the clean document did not arrive as it is: {got.text!r}")
        self.screen.say(f"read_document(handbook): [green]released[/] after {math.ceil((got.at - began) * 1000)} ms")

    async def _show(self) -> None:
        self.screen.step("What is held, why, where, by which rule")
        await self._typed("escrow", "ls", pictured=True)
        self.screen.console.print()
        await self._typed("escrow", "show", self.items["invoice"], pictured=True)
        self.screen.console.print()
        await self._typed("escrow", "show", self.items["minutes"])

    async def _decide(self) -> None:
        self.screen.step("A person decides")
        decided = time.monotonic()
        await self._typed("escrow", "approve", self.items["bulletin"], "-m", REASON["approve"])
        got = await self._answer("bulletin")
        self.expect(not got.is_error and got.text == BULLETIN, f"the approved document did not arrive as it is: {got.text!r}")
        self._got("bulletin", got)
        self.screen.say(f"[dim]({(got.at - decided) * 1000:.0f} ms after the command was typed, most of which is starting the command)[/]")
        await self._typed("escrow", "deny", self.items["minutes"], "-m", REASON["deny"])
        got = await self._answer("minutes")
        wanted = json.loads(answers.result_for(Kind.TOOL_CALL, Why.DENIED, self.items["minutes"], 0))["result"]["content"][0]["text"]
        self.expect(got.is_error and got.text == wanted, f"the refusal reads otherwise: {got.text!r}")
        self._got("minutes", got)
        self.expect("invoice" not in self.answers, "the undecided result reached the client")
        await self._typed("escrow", "approve", self.items["invoice"], "--redact", "Ignore all[^<]*", "-m", REASON["redact"])
        got = await self._answer("invoice")
        self.expect(not got.is_error and got.text == REDACTED, f"the redacted document reads otherwise: {got.text!r}")
        self._got("invoice", got)

    async def _close(self) -> None:
        self.screen.step("The counters, and a proof that enforcement is live")
        items = {row["id"]: row["state"] for row in await to_thread.run_sync(self.demo.ask, "escrow", "ls")}
        states = [items[self.items[name]] for name in HOSTILE]
        self.expect(states == ["delivered", "delivered", "denied"], f"the items are {states}")
        await self._typed("status")
        await self._typed("test")
        self.screen.step("holdfast stop")
        self.expect(await to_thread.run_sync(self.demo.end_holdfast) == 0, "holdfast did not end well")
        self.screen.say("every trace is removed; the server answers by itself again")
        self.screen.write_picture(self.picture)

    # --- parts of steps ---

    async def _read(self, client: Client, name: str) -> None:
        result: Any = await client.call_tool("read_document", {"name": name})
        self.expect(isinstance(result, CallToolResult) and isinstance(result.content[0], TextContent), f"no tool result: {result!r}")
        self.answers[name] = Answer(result.content[0].text, bool(result.is_error), time.monotonic())
        self.came[name].set()

    async def _held(self) -> str:
        """The id of the next item that is held."""
        with anyio.move_on_after(HELD_S):
            while True:
                for row in await to_thread.run_sync(self.demo.ask, "escrow", "ls"):
                    if row["id"] not in self.items.values():
                        self.expect(row["state"] == "held" and row["tool"] == "read_document", f"an item is {row['state']}, {row['tool']}")
                        return str(row["id"])
        raise Unexpected(f"nothing more is held after {HELD_S:.0f} s; answered: {sorted(self.answers)} of {sorted(DOCUMENTS)}")

    async def _answer(self, name: str) -> Answer:
        with anyio.move_on_after(HELD_S):
            await self.came[name].wait()
            return self.answers[name]
        raise Unexpected(f"the client was not answered for {name} within {HELD_S:.0f} s of the decision")

    async def _typed(self, *words: str, pictured: bool = False) -> None:
        output = await to_thread.run_sync(lambda: self.demo.type(*words, columns=self.screen.columns))
        self.screen.typed(words, output)
        if pictured:
            ids = [self.items[name] for name in HOSTILE]
            wide = await to_thread.run_sync(lambda: self.demo.type(*words, columns=PICTURE_COLUMNS))
            self.screen.picture(tuple(fixed(word, ids) for word in words), fixed(wide, ids))

    def _got(self, name: str, answer: Answer) -> None:
        colour = "red" if answer.is_error else "green"
        self.screen.say(f"[{colour}]the client got for read_document({name}){', as an error' if answer.is_error else ''}:[/]")
        for line in answer.text.rstrip().splitlines():
            self.screen.say(f"  {escape(line)}")
