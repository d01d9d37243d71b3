"""The daemon's end of the window: every question's token, scope and arguments are checked here, whatever the window says."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enforcer.control import guesses, window
from enforcer.control.asks import ANY
from enforcer.control.supervising import Supervising
from enforcer.control.tokens import Tokens
from enforcer.control.window import WindowServer
from enforcer.custody import Arrival, Custody, Judges, Said, Ticket
from enforcer.evidence import EvidenceLog
from enforcer.store import Store
from escrow import jsonrpc
from escrow.call import Call, Transport
from escrow.policy import Policy
from escrow.principal import Principal, from_address, from_authorization, from_process
from escrow.sandbox.effects import Change, Effects, Write
from escrow.sandbox.judge import before
from escrow.sandbox.report import report
from escrow.sandbox.run import Run
from escrow.supervisor.answers import AuditReport, Proposed
from escrow.supervisor.scopes import Scope
from escrow.supervisor.tools import TOOLS
from escrow.supervisor.wire import AUTHENTICATE, MAX_QUESTION_BYTES, Question
from escrow.verdict import Finding, Reason, Verdict

pytestmark = pytest.mark.anyio
AGENT = from_address("192.0.2.1")
RAW = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"a bad word \\u202e"}]}}'
STATUS = {"mode": "proxy", "port": 1, "server": "s", "enforcing": True, "why": "", "started_at": 1.0, "workers": 2, "connections": 0, "counters": {}}


async def judge(message: jsonrpc.Message) -> Said:
    return Said(Verdict("scanner", Finding.HOSTILE, 0.9, (Reason("r.bad", "A bad word.", "/result/content/0/text"),)))


class Desk:
    """The window's end, in the test's hands."""

    def __init__(self, custody: Custody, tokens: Tokens) -> None:
        self.custody, self.tokens, self.lost, self.applied, self.ended = custody, tokens, 0, [False], asyncio.Event()
        self.processes: dict[str, tuple[int, int | None]] = {}
        supervising = Supervising(custody, lambda: STATUS, self._propose, self._audit)
        self.server = WindowServer(supervising, tokens, lambda peer, own: self.processes.get(peer[0]), self._lost)
        self.secrets = {
            name: self.token(name, scopes, acts_as)
            for name, scopes, acts_as in (
                ("reader", {Scope.READ}, ()),
                ("policer", {Scope.POLICY}, ()),
                ("approver", {Scope.APPROVE}, ("local:uid=7",)),
            )
        }
        self._next = 0

    def token(self, name: str, scopes: set[Scope], acts_as: tuple[str, ...] = (), for_s: float = 60.0) -> str:
        token, secret = self.tokens.draft(name, frozenset(scopes), acts_as, "root", time.time(), time.time() + for_s)
        self.tokens.keep(token)
        return secret

    def _lost(self) -> None:
        self.lost += 1
        asyncio.get_running_loop().call_soon(self.ended.set)

    async def _propose(self, toml: str, by: str, why: str, apply: bool) -> Proposed:
        if "good" not in toml:
            raise ValueError("no such key")
        self.applied.append(apply)
        return Proposed(id="pp-0123456789", status="waiting", version="v")

    async def _audit(self) -> AuditReport:
        return AuditReport(sound=True, checked_at=time.time(), entries=3, signed=3, problem=None)

    async def ask(self, tool: str, who: str | None, peer: str | None = "192.0.2.77", /, **arguments: Any) -> dict[str, Any]:
        """The answer's value, or {"refused": code, "why": text}."""
        self._next = number = self._next + 1
        token = self.secrets.get(who, who) if who is not None else ""
        ends = (None, None) if peer is None else ((peer, 5), ("127.0.0.1", 8790))
        reply = await self.server.answer(Question(id=number, tool=tool, arguments=arguments, token=token, peer=ends[0], own=ends[1]))
        assert reply.id == number and (reply.value is None) != (reply.refusal is None)
        return {"refused": reply.refusal.code, "why": reply.refusal.text} if reply.refusal is not None else reply.value or {}

    async def hold(self, principal: Principal = AGENT, tool: str = "read") -> str:
        call = Call("s", principal, None, Transport.SESSION, 1, "tools/call", tool, "a" * 64)
        ticket = await self.custody.receive(Arrival(jsonrpc.read(RAW), call, "s", principal, None, Transport.SESSION, time.monotonic()))
        assert isinstance(ticket, Ticket)
        return ticket.item_id


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store, log = Store(tmp_path), EvidenceLog.open(tmp_path, "s", lambda text: None)
    custody = Custody(Policy(), "s", store, Judges(judge), log)
    await custody.open()
    made = Desk(custody, Tokens(tmp_path / "tokens.json"))
    yield made
    made.server.close()
    custody.close()
    log.close()
    store.close()


SOUND: dict[str, dict[str, Any]] = {
    "get_verdict": {"id": "1"},
    "get_escrow": {"id": "hf-0123456789"},
    "decide_escrow": {"id": "hf-0123456789", "decision": "deny", "why": "w"},
    "propose_policy": {"toml": "good = 1", "why": "w"},
    "unlock": {"why": "w"},
}


@pytest.mark.parametrize("tool", [*TOOLS, AUTHENTICATE])
async def test_no_tool_answers_without_a_good_token(desk: Desk, tool: str) -> None:
    late = desk.token("late", set(Scope), ("local:uid=7",), for_s=-1)
    revoked = desk.token("revoked", set(Scope), ("local:uid=7",))
    desk.tokens.revoke(desk.tokens.named("revoked"))
    for token, why in ((None, "is needed"), ("hft_guess", "unknown"), (late, "expired"), (revoked, "revoked")):
        assert (answer := await desk.ask(tool, token, **SOUND.get(tool, {})))["refused"] == "token" and why in answer["why"]
    assert desk.server.counts.refused == 4 and desk.server.counts.answered == 0


@pytest.mark.parametrize("tool", list(TOOLS))
async def test_each_tool_answers_who_has_its_scope_and_nobody_else(desk: Desk, tool: str) -> None:
    may = {Scope.READ: {"reader", "policer", "approver"}, Scope.POLICY: {"policer"}, Scope.APPROVE: {"approver"}}[TOOLS[tool].scope]
    for who in ("reader", "policer", "approver"):
        answer = await desk.ask(tool, who, **SOUND.get(tool, {}))
        assert (answer.get("refused") == "scope") == (who not in may), answer


async def test_every_answer_fits_the_schema_that_is_shown_of_it(desk: Desk) -> None:
    item = await desk.hold()
    for tool, who, arguments in (
        ("get_status", "reader", {}), ("get_verdicts", "reader", {}), ("list_escrow", "reader", {}), ("get_escrow", "approver", {"id": item}),
        ("get_policy", "reader", {}), ("verify_audit", "reader", {}), ("propose_policy", "policer", SOUND["propose_policy"]), ("lock", "policer", {}),
        ("unlock", "policer", {"why": "w"}), ("decide_escrow", "approver", {"id": item, "decision": "deny", "why": "w"}),
    ):  # fmt: skip
        TOOLS[tool].gives.model_validate(await desk.ask(tool, who, **arguments), strict=True)


async def test_a_held_item_is_seen_read_and_decided(desk: Desk) -> None:
    item = await desk.hold()
    (listed,) = (await desk.ask("list_escrow", "approver"))["items"]
    assert (listed["id"], listed["may_decide"], listed["verdicts"][0]["reasons"][0]["rule"]) == (item, True, "r.bad")
    seen = await desk.ask("get_escrow", "approver", id=item)
    assert "a bad word \\u202e" in seen["untrusted_payload"]["text"]
    digest = seen["untrusted_payload"]["sha256"]
    answer = await desk.ask("decide_escrow", "approver", id=item, decision="approve", why="w")
    assert answer["refused"] == "unfit" and "give result_sha256" in answer["why"]
    assert "other bytes" in (await desk.ask("decide_escrow", "approver", id=item, decision="approve", why="w", result_sha256="0" * 64))["why"]
    decided = await desk.ask("decide_escrow", "approver", id=item, decision="approve", why="read it", result_sha256=digest)
    assert (decided["state"], decided["decided_by"], decided["reason"]) == ("approved", "token approver (acts as local:uid=7)", "read it")
    (record,) = (await desk.ask("get_verdicts", "reader", limit=1))["verdicts"]
    assert (record["outcome"], record["item"], record["why"]) == ("approved", item, "read it")
    assert await desk.ask("get_verdict", "reader", id=record["id"]) == record


async def test_payloads_are_for_scope_approve(desk: Desk) -> None:
    item = await desk.hold()
    for who in ("reader", "policer"):
        seen = await desk.ask("get_escrow", who, id=item)
        assert seen["untrusted_payload"] is None and "scope `approve`" in seen["payload_withheld"]
        assert "bad word \\u202e" not in json.dumps(seen)


async def test_what_a_call_did_in_its_twin_is_shown_to_who_sees_its_payload(desk: Desk) -> None:
    mine, others = await desk.hold(from_process(7, 3)), await desk.hold()
    rules, run = Policy().for_call("s", "read"), Run("answered", Effects(writes=(Write("/etc/x", Change.CREATED, 0o100644),)), RAW)
    for item in (mine, others):
        payload = await desk.custody.payload(item)
        assert payload is not None
        ran = report(run, before(run, rules), rules)
        await desk.custody._store(desk.custody._store.store.replace_payload, await desk.custody.item(item), replace(payload, sandbox=ran))
    records = {record["item"]: record["id"] for record in (await desk.ask("get_verdicts", "reader"))["verdicts"]}
    for item, who, shown in ((others, "approver", True), (others, "reader", False), (others, "policer", False), (mine, "approver", False)):
        for seen in (await desk.ask("get_escrow", who, id=item), await desk.ask("get_verdict", who, id=records[item])):
            assert ("/etc/x" in json.dumps(seen)) is shown, (item, who)
            if shown:
                assert seen["twin_run"]["effects"] == [{"what": "created", "untrusted": "/etc/x", "allowed": False}]
    assert "/etc/x" not in json.dumps(await desk.ask("get_escrow", "approver", id=others, payload=False))


@pytest.mark.parametrize("whose", ["acts as", "token", "user", "control group", "address", "unseen"])
async def test_its_own_item_is_neither_decided_nor_seen(desk: Desk, whose: str) -> None:
    desk.processes["127.0.0.1"] = (8, 99)
    peer = {"user": "127.0.0.1", "control group": "127.0.0.1", "address": "192.0.2.1", "unseen": None}.get(whose, "192.0.2.77")
    principal = {
        "acts as": from_process(7, 3),
        "token": from_authorization(b"bearer  " + desk.secrets["approver"].encode()),
        "user": from_process(8, 3),
        "control group": from_process(5, 99),
    }.get(whose, AGENT)
    item = await desk.hold(principal)
    for decision in ("approve", "deny"):
        answer = await desk.ask("decide_escrow", "approver", peer, id=item, decision=decision, why="w", result_sha256="0" * 64)
        assert answer["refused"] == "own", answer
    seen = await desk.ask("get_escrow", "approver", peer, id=item)
    assert seen["untrusted_payload"] is None and not seen["may_decide"] and "own item" in seen["payload_withheld"]
    assert (await desk.custody.item(item)).state == "held"
    desk.secrets["other"] = desk.token("other", {Scope.APPROVE}, ("local:uid=1234",))
    assert (await desk.ask("decide_escrow", "other", "198.51.100.1", id=item, decision="deny", why="w"))["state"] == "denied", "another may"


async def test_lists_come_in_pages(desk: Desk) -> None:
    items = [await desk.hold(tool=f"t{number}") for number in range(5)]
    for tool, key in (("list_escrow", "items"), ("get_verdicts", "verdicts")):
        found, cursor = [], None
        while True:
            page = await desk.ask(tool, "reader", limit=2, **({} if cursor is None else {"cursor": cursor}))
            found += [row["tool"] for row in page[key]]
            assert len(page[key]) <= 2
            if (cursor := page["next_cursor"]) is None:
                break
        assert found == ["t4", "t3", "t2", "t1", "t0"] and len(items) == 5
        assert (await desk.ask(tool, "reader", cursor="nonsense"))["refused"] == "absent"


async def test_verdicts_are_found_by_time_tool_finding_and_session(desk: Desk) -> None:
    before = time.time()
    await desk.hold(tool="one")
    await desk.hold(tool="two")

    async def found(**query: Any) -> list[str]:
        return [row["tool"] for row in (await desk.ask("get_verdicts", "reader", **query))["verdicts"]]

    assert await found(tool="one") == ["one"] and await found(tool="on") == []
    assert await found(finding="HOSTILE") == ["two", "one"] and await found(finding="CLEAN") == []
    assert await found(since=before, until=time.time() + 1) == ["two", "one"]
    assert await found(since=time.time() + 1) == [] and await found(until=before) == []
    assert await found(session="none such") == []


async def test_the_kill_switch(desk: Desk) -> None:
    assert (await desk.ask("lock", "policer", why="fire"))["locked"]["by"] == "token policer"
    assert desk.custody.locked is not None and (await desk.ask("get_status", "reader"))["locked"]["why"] == "fire"
    assert (await desk.ask("unlock", "policer"))["refused"] == "unfit", "a reason is needed"
    assert (await desk.ask("unlock", "policer", why="out"))["locked"] is None
    assert (await desk.ask("unlock", "policer", why="out"))["why"] == "it is not locked"


async def test_a_proposal_waits_unless_the_token_may_apply(desk: Desk) -> None:
    await desk.ask("propose_policy", "policer", **SOUND["propose_policy"])
    token, secret = desk.tokens.draft("bold", frozenset({Scope.POLICY}), (), "root", time.time(), time.time() + 60, may_apply=True)
    desk.tokens.keep(token)
    await desk.ask("propose_policy", secret, **SOUND["propose_policy"])
    assert desk.applied == [False, False, True]
    assert await desk.ask("propose_policy", "policer", toml="bad = 1", why="w") == {"refused": "unfit", "why": "no such key"}


@pytest.mark.parametrize(
    ("tool", "arguments", "why"),
    [
        ("get_escrow", {"id": "../../etc/passwd"}, "id"),
        ("get_escrow", {"id": "hf-0123456789", "more": 1}, "more"),
        ("get_verdicts", {"limit": 10**9}, "limit"),
        ("get_verdicts", {"since": "\u202e"}, "since"),
        ("list_escrow", {"states": []}, "states"),
        ("decide_escrow", {"id": "hf-0123456789", "decision": "burn", "why": "w"}, "decision"),
        ("decide_escrow", {"id": "hf-0123456789", "decision": "deny", "why": ""}, "why"),
        ("propose_policy", {"toml": "x" * 70_000, "why": "w"}, "toml"),
    ],
)
async def test_arguments_that_do_not_fit_are_named_and_not_quoted(desk: Desk, tool: str, arguments: dict[str, Any], why: str) -> None:
    answer = await desk.ask(tool, "approver" if tool == "decide_escrow" else "policer", **arguments)
    assert answer["refused"] == "unfit" and answer["why"].startswith(why) and answer["why"].isascii() and len(answer["why"]) < 2000


async def test_a_thousand_guesses_are_refused_counted_and_slowed_and_a_good_token_is_not(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "DELAY_S", 0.2)
    answers = await asyncio.gather(*(desk.ask(AUTHENTICATE, f"hft_{number}") for number in range(1000)))
    codes = [answer["refused"] for answer in answers]
    assert codes.count("token") == guesses.FREE and codes.count("rate") == 1000 - guesses.FREE
    assert desk.server.counts.refused == 1000 and desk.server.counts.slowed == 1000 - guesses.FREE
    began = time.monotonic()
    assert (await desk.ask(AUTHENTICATE, "hft_again"))["refused"] == "rate"
    assert time.monotonic() - began >= 0.2
    began = time.monotonic()
    assert (await desk.ask("get_status", "reader"))["window"]["slowed"] == 1001 - guesses.FREE
    assert time.monotonic() - began < 0.2
    assert (await desk.ask(AUTHENTICATE, "hft_other", "198.51.100.9"))["refused"] == "token", "another address begins anew"


# --- the socket ---


@asynccontextmanager
async def connected(desk: Desk) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    ours, theirs = socket.socketpair()
    desk.server.add(theirs)
    reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 22)
    yield reader, writer
    writer.close()


def line(desk: Desk, number: int, tool: str, **arguments: Any) -> bytes:
    question = Question(id=number, tool=tool, arguments=arguments, token=desk.secrets["reader"], peer=("192.0.2.77", 1), own=("127.0.0.1", 2))
    return question.model_dump_json().encode() + b"\n"


async def test_many_questions_at_once_each_get_their_answer(desk: Desk) -> None:
    async with asyncio.timeout(10), connected(desk) as (reader, writer):
        for number in range(300):
            writer.write(line(desk, number, "get_status"))
        assert {json.loads(await reader.readline())["id"] for _ in range(300)} == set(range(300))
        assert desk.server.live and desk.lost == 0


COMMANDS = [
    b'{"op":"status"}', b'{"op":"stop"}', b'{"op":"escrow.approve","id":"hf-0123456789","why":"w"}', b'{"op":"token.new","name":"x","scopes":["approve"]}',
    b'{"op":"unlock","why":"w"}', b'{"op":"policy.set","text":""}',
]  # fmt: skip


@pytest.mark.parametrize("garbage", [*COMMANDS, b"", b"{}", b"[]", b"\xff", b'{"id":1,"tool":"get_status","token":"","peer":null,"own":null,"op":"stop"}',
                                     b"x" * (MAX_QUESTION_BYTES + 2)])  # fmt: skip
async def test_what_is_no_question_ends_the_window_and_the_command_lines_words_are_none(desk: Desk, garbage: bytes) -> None:
    if garbage in COMMANDS:
        ANY.validate_json(garbage)
    async with asyncio.timeout(10), connected(desk) as (reader, writer):
        writer.write(garbage + b"\n")
        assert await reader.read() == b""
        await desk.ended.wait()
        assert desk.lost == 1 and not desk.server.live


async def test_a_new_window_takes_the_place_of_the_one_before(desk: Desk) -> None:
    async with asyncio.timeout(10), connected(desk) as (first, _), connected(desk) as (second, writer):
        assert await first.read() == b""
        writer.write(line(desk, 5, "get_status"))
        assert json.loads(await second.readline())["id"] == 5
        assert desk.lost == 0
