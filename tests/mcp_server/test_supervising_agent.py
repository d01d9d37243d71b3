"""A supervising agent's whole loop against a real instance, with the official clients of both languages in both eras."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.real import client, gate, server
from tests.real.client import Session
from tests.real.conftest import FULL
from tests.real.hostile import SECRET, clean, document

AGENT = {"authorization": "Bearer the-agents-own-key"}
NPM = pytest.param("npm-http", marks=pytest.mark.npm)
CLIENTS = ["py2-modern", "py2-legacy", NPM, *(["py1-http"] if FULL else [])]


@dataclass(slots=True)
class Instance:
    """A server, a gate before it, and the window beside it."""

    server: server.Running
    gate: gate.Gate
    url: str

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.gate.holdfast("status", "--json"))
        return found

    def token(self, name: str, *words: str) -> str:
        made: dict[str, str] = json.loads(self.gate.holdfast("token", "new", "--name", name, "--json", *words))
        return made["token"]

    def window(self) -> int:
        """The window's pid; 0 while there is none."""
        pid = self.gate.program.process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if "enforcer.helper.window" in Path(f"/proc/{child}/cmdline").read_text() or Path(f"/proc/{child}/comm").read_text().strip() == "holdfast-window":
                return int(child)
        return 0

    @contextmanager
    def held(self, headers: dict[str, str] | None) -> Iterator[tuple[Session, dict[str, Any]]]:
        """An agent that waits for a held result, and its item (with the document's name as `document`)."""
        name, text = document()
        self.server.state.write_document(name, text)
        known = self.gate.known()
        with client.connect(client.KINDS["py2-modern"], self.server.url(self.gate.port), headers) as session:
            session.send(do="call", name="read_document", arguments={"name": name})
            yield session, {**self.gate.wait_item(known, tool="read_document"), "document": name}


@contextmanager
def running(folder: Path, *, steer: bool = False, policy: str = gate.POLICY) -> Iterator[Instance]:
    if reason := gate.missing():
        pytest.skip(reason)
    with ExitStack() as stack:
        target = stack.enter_context(server.run(server.KINDS["py2-stateless"], folder))
        guarding = stack.enter_context(gate.run(folder, target.port, steer=steer, policy=policy, mcp_listen="127.0.0.1:0"))
        ready = json.loads(next(line for line in guarding.program.output.read_text().splitlines() if '"ready"' in line))
        made = Instance(target, guarding, ready["window"])
        until(lambda: answers(made.url))
        yield made


def until(what: Callable[[], Any], wait_s: float = 20.0) -> Any:
    deadline = time.monotonic() + wait_s
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


def post(url: str, token: str | None, body: bytes = b"{}", method: str = "POST") -> tuple[int, dict[str, str]]:
    host, port = url.split("/")[2].rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        connection.request(method, "/mcp", body, headers | ({} if token is None else {"authorization": f"Bearer {token}"}))
        answer = connection.getresponse()
        answer.read()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}
    finally:
        connection.close()


def answers(url: str) -> bool:
    try:
        return post(url, None, method="GET")[0] == 405
    except OSError:
        return False


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    with running(tmp_path_factory.mktemp("window")) as made:
        yield made


_numbers = iter(range(10_000))


@contextmanager
def supervisor(instance: Instance, kind: str, *words: str) -> Iterator[tuple[Session, str]]:
    """A supervising agent with a token of its own."""
    if reason := client.missing(client.KINDS[kind]):
        pytest.skip(reason)
    token = instance.token(f"s{next(_numbers)}", *words)
    with client.connect(client.KINDS[kind], instance.url, {"authorization": f"Bearer {token}"}) as session:
        yield session, token


def ask(session: Session, name: str, /, **arguments: Any) -> dict[str, Any]:
    return session.step(do="call", name=name, arguments=arguments)


def value(outcome: dict[str, Any]) -> dict[str, Any]:
    """What a tool answered, the same in both of its forms."""
    assert outcome["ok"] and not outcome["value"].get("isError"), outcome
    structured: dict[str, Any] = outcome["value"]["structuredContent"]
    assert json.loads(outcome["value"]["content"][0]["text"]) == structured
    return structured


def refused(outcome: dict[str, Any]) -> dict[str, Any]:
    assert outcome["ok"] and outcome["value"]["isError"], outcome
    said: dict[str, Any] = json.loads(outcome["value"]["content"][0]["text"])
    return said


WHOLE = ("--scope", "approve", "--scope", "policy", "--acts-as", "local:uid=54321")


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_supervising_agents_loop(instance: Instance, kind: str) -> None:
    with ExitStack() as stack:
        agent, item = stack.enter_context(instance.held(AGENT))
        session, token = stack.enter_context(supervisor(instance, kind, *WHOLE))

        assert value(ask(session, "get_status"))["token"]["scopes"] == ["approve", "policy"]
        listed = {row["id"]: row for row in value(ask(session, "list_escrow"))["items"]}
        assert listed[item["id"]]["may_decide"] is True
        seen = value(ask(session, "get_escrow", id=item["id"]))
        assert [reason["rule"] for verdict in seen["verdicts"] for reason in verdict["reasons"]]
        payload = seen["untrusted_payload"]
        assert payload["text"].startswith(f"<<<untrusted {payload['mark']}>>>\n") and SECRET in payload["text"]
        assert payload["sha256"] == item["result_sha256"]

        keys = f"[escrow]\nhold_for_s = {1000 + next(_numbers)}"
        proposal = value(ask(session, "propose_policy", toml=keys, why="shorter"))
        waiting = json.loads(instance.gate.holdfast("policy", "proposals", "--json"))
        assert proposal["status"] == "waiting" and proposal["id"] in [row["id"] for row in waiting]
        assert refused(ask(session, "propose_policy", toml="[escrow]\nhold_for_s = -1", why="w"))["refused"] == "unfit"

        for headers, why in ((None, "same user"), ({"authorization": f"bearer {token}"}, "same token")):
            _, own = stack.enter_context(instance.held(headers))
            for decision in ("approve", "deny"):
                said = refused(ask(session, "decide_escrow", id=own["id"], decision=decision, why="mine", result_sha256=own["result_sha256"]))
                assert said["refused"] == "own" and why in said["why"]
            shown = value(ask(session, "get_escrow", id=own["id"]))
            assert shown.get("untrusted_payload") is None and SECRET not in json.dumps(shown)
            instance.gate.deny(own)

        assert refused(ask(session, "decide_escrow", id=item["id"], decision="approve", why="w"))["refused"] == "unfit"
        decided = value(ask(session, "decide_escrow", id=item["id"], decision="approve", why="seen", result_sha256=payload["sha256"]))
        assert decided["decided_by"].startswith("token s") and decided["reason"] == "seen"
        outcome = agent.receive()
        if SECRET not in json.dumps(outcome):  # the claim came first: the same call collects it
            outcome = agent.call("read_document", name=item["document"])
        assert SECRET in json.dumps(outcome)

        found = value(ask(session, "get_verdicts", tool="read_document", finding="HOSTILE", limit=1))
        assert found["verdicts"][0]["tool"] == "read_document" and found["next_cursor"]
        page = value(ask(session, "get_verdicts", tool="read_document", finding="HOSTILE", limit=1, cursor=found["next_cursor"]))
        assert page["verdicts"][0]["id"] != found["verdicts"][0]["id"]
        assert value(ask(session, "verify_audit"))["sound"] is True


@pytest.mark.parametrize("kind", CLIENTS if FULL else ["py2-modern", NPM])
def test_schemas_annotations_and_resources_are_shown(instance: Instance, kind: str) -> None:
    with supervisor(instance, kind, "--scope", "read") as (session, _):
        tools = {tool["name"]: tool for tool in session.step(do="list_tools")["value"]["tools"]}
        assert set(tools) == {
            "get_status", "get_verdicts", "get_verdict", "list_escrow", "get_escrow", "decide_escrow", "get_policy", "propose_policy",
            "verify_audit", "lock", "unlock",
        }  # fmt: skip
        for tool in tools.values():
            assert tool["inputSchema"]["additionalProperties"] is False and tool["outputSchema"]["type"] == "object" and tool["description"]
        assert tools["get_verdicts"]["annotations"]["readOnlyHint"] is True
        assert tools["decide_escrow"]["annotations"] == {
            "title": "Decide", "readOnlyHint": False, "destructiveHint": True, "idempotentHint": False, "openWorldHint": False
        }  # fmt: skip
        uris = [resource["uri"] for resource in session.step(do="list_resources")["value"]["resources"]]
        assert uris[:2] == ["holdfast://verdicts/recent", "holdfast://escrow/held"] and uris[2].startswith("holdfast://verdict/")
        for uri in uris[:3]:
            read = session.step(do="read", uri=uri)
            assert json.loads(read["value"]["contents"][0]["text"]) and SECRET not in json.dumps(read)
        assert not session.step(do="read", uri="holdfast://verdict/9999999")["ok"]


def test_a_token_does_what_its_scope_says_and_nothing_else(instance: Instance) -> None:
    with supervisor(instance, "py2-modern", "--scope", "read") as (session, _), instance.held(AGENT) as (_, item):
        for tool, arguments in (
            ("decide_escrow", {"id": item["id"], "decision": "deny", "why": "w"}),
            ("propose_policy", {"toml": "[escrow]\nhold_for_s = 5", "why": "w"}), ("lock", {}), ("unlock", {"why": "w"}),
        ):  # fmt: skip
            assert refused(ask(session, tool, **arguments))["refused"] == "scope"
        shown = value(ask(session, "get_escrow", id=item["id"]))
        assert shown["verdicts"] and SECRET not in json.dumps(shown)
        assert instance.gate.items(id=item["id"])[0]["state"] == "held"
        instance.gate.deny(item)


def test_the_kill_switch_refuses_every_call_until_it_is_released(instance: Instance) -> None:
    name, text = clean()
    instance.server.state.write_document(name, text)
    with (
        supervisor(instance, "py2-legacy", "--scope", "policy") as (session, _),
        client.connect(client.KINDS["py2-modern"], instance.server.url(instance.gate.port), AGENT) as agent,
    ):
        assert value(ask(session, "lock", why="fire"))["locked"]["why"] == "fire"
        assert instance.status()["locked"]["by"].startswith("token s")
        assert agent.call("read_document", name=name)["value"]["isError"]
        assert instance.server.state.runs("read_document", name=name) == 0
        assert value(ask(session, "unlock", why="out"))["locked"] is None
        assert text in json.dumps(agent.call("read_document", name=name))
    instance.gate.holdfast("lock", "-m", "by hand")
    assert "LOCKED" in instance.gate.holdfast("status", check=False)
    instance.gate.holdfast("unlock", "-m", "done")
    assert "not locked" not in instance.gate.holdfast("status")


def test_without_a_good_token_nobody_gets_in(instance: Instance) -> None:
    revoked, short = instance.token("revoked", "--scope", "read"), instance.token("short", "--scope", "read", "--expires", "1s")
    instance.gate.holdfast("token", "revoke", "revoked")
    until(lambda: any(row["expired"] for row in json.loads(instance.gate.holdfast("token", "ls", "--json"))))
    before = instance.status()["window"]["refused"]
    for token in (None, "hft_guess", revoked, short):
        status, headers = post(instance.url, token)
        assert status == 401 and headers["www-authenticate"].startswith("Bearer")
    assert "expired" in post(instance.url, short)[1]["www-authenticate"]
    assert instance.status()["window"]["refused"] == before + 5
    with client.connect(client.KINDS["py2-modern"], instance.url, {"authorization": "Bearer hft_x"}, expect=False) as session:
        assert not session.receive()["ok"]


def test_a_thousand_guesses_are_refused_counted_and_slowed_while_a_good_token_is_served(instance: Instance) -> None:
    before, good = instance.status()["window"], instance.token("patient", "--scope", "read")
    began = time.monotonic()
    with ThreadPoolExecutor(40) as many:
        statuses = list(many.map(lambda number: post(instance.url, f"hft_guess{number}")[0], range(1000)))
    took_s = time.monotonic() - began
    assert set(statuses) <= {401, 429} and statuses.count(429) >= 980
    after = instance.status()["window"]
    assert after["refused"] - before["refused"] == 1000 and after["slowed"] - before["slowed"] == statuses.count(429)
    assert took_s > 1, "some of the answers were held back"
    assert post(instance.url, good)[0] not in (401, 429)
    assert post(instance.url, "hft_again")[1]["retry-after"] == "60"


def test_the_window_killed_leaves_the_gate_going_and_another_comes(instance: Instance) -> None:
    url, name, text = instance.url, *clean()
    instance.server.state.write_document(name, text)
    first = instance.window()
    os.kill(first, signal.SIGKILL)
    with client.connect(client.KINDS["py2-modern"], instance.server.url(instance.gate.port), AGENT) as agent:
        assert text in json.dumps(agent.call("read_document", name=name))
    until(lambda: instance.window() not in (0, first) and answers(url))
    with supervisor(instance, "py2-modern", "--scope", "read") as (session, _):
        assert value(ask(session, "get_status"))["enforcing"] is True


def test_one_that_finds_the_default_address_taken_says_so_and_one_that_was_given_it_does_not_start(tmp_path: Path) -> None:
    from enforcer.helper.window import DEFAULT

    with ExitStack() as stack:
        host, _, port = DEFAULT.rpartition(":")
        with suppress(OSError):  # an instance on this machine has it: as good
            stack.enter_context(socket.create_server((host, int(port))))
        with pytest.raises(RuntimeError, match="in use"), gate.run(tmp_path, 1, mcp_listen=DEFAULT):
            pass
        arguments = ["proxy", "--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:1"]
        program = gate._start(tmp_path, arguments)
        try:
            ready = json.loads(next(line for line in program.output.read_text().splitlines() if '"ready"' in line))
            assert ready["window"] is None and "in use" in ready["window_why"] and "--mcp-listen" in ready["window_why"]
            shown = json.loads(gate.Gate(tmp_path, arguments, 0, program).holdfast("status", "--json"))["window"]
            assert (shown["url"], shown["live"]) == (None, False)
        finally:
            program.kill(signal.SIGTERM)


@pytest.mark.bpf
def test_steered_the_window_is_another_user_with_nothing_in_its_root(tmp_path: Path) -> None:
    with running(tmp_path, steer=True) as instance:
        status = {key: rest.strip() for key, _, rest in (row.partition(":") for row in Path(f"/proc/{instance.window()}/status").read_text().splitlines())}
        assert status["Uid"].split() == ["61934"] * 4 and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        assert [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 5
        assert list(Path(f"/proc/{instance.window()}/root/").iterdir()) == []
        for kind in ("py2-modern", "py2-legacy"):
            with instance.held(AGENT) as (_, item), supervisor(instance, kind, *WHOLE) as (session, _):
                assert value(ask(session, "get_escrow", id=item["id"]))["untrusted_payload"]["sha256"] == item["result_sha256"]
                assert value(ask(session, "decide_escrow", id=item["id"], decision="deny", why="w"))["state"] == "denied"
                assert session.step(do="list_resources")["ok"] and session.step(do="list_tools")["ok"]
                assert refused(ask(session, "no_such_tool"))["refused"] == "absent"
        with instance.held(None) as (_, own), supervisor(instance, "py2-modern", *WHOLE) as (session, _):
            assert "same user" in refused(ask(session, "decide_escrow", id=own["id"], decision="deny", why="w"))["why"]
        url, first = instance.url, instance.window()
        os.kill(first, signal.SIGKILL)
        until(lambda: instance.window() not in (0, first) and answers(url))
        assert instance.status()["enforcing"] is True
