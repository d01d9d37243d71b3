"""The daemon's side: asked only in the band and within the budget, and UNSURE whatever the member does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress

import pytest

from enforcer.jury import client, frames
from enforcer.jury.client import Jury
from escrow.jury import OUTCOMES, Opinion
from escrow.jury_evidence import Mark
from escrow.jury_settings import JurySettings
from escrow.verdict import Finding, Reason, Verdict
from tests.enforcer.jury.conftest import Begin
from tests.enforcer.jury.endpoint import FakeEndpoint, says

pytestmark = pytest.mark.anyio

GRAY = Verdict("scanner", Finding.CLEAN, 0.4)
MESSAGE = b'{"jsonrpc":"2.0","id":1,"result":{}}'


def settings(**more: object) -> JurySettings:
    return JurySettings.model_validate({"url": "http://127.0.0.1:1", "model": "m"} | more)


def reason(verdict: Verdict | None) -> str:
    assert verdict is not None and verdict.judge == "jury"
    if verdict.finding is Finding.CLEAN:
        return "jury.clean"
    return verdict.reasons[0].rule


class Fake:
    """The far end of a member's socket, played by the test."""

    def __init__(self, jury: Jury) -> None:
        ours, self.sock = socket.socketpair()
        self.sock.setblocking(False)
        jury.add(ours)

    async def question(self) -> tuple[int, tuple[Mark, ...], bytes]:
        number, table, raw = frames.QUESTION.unpack(await self._exactly(frames.QUESTION.size))
        return number, frames.marks(await self._exactly(table)), await self._exactly(raw)

    async def _exactly(self, size: int) -> bytes:
        whole = b""
        while len(whole) < size:
            part = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, size - len(whole)), 5)
            assert part
            whole += part
        return whole

    async def reply(self, raw: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, raw)


async def test_outside_the_band_nobody_is_asked() -> None:
    jury = Jury(settings(max_calls_per_hour=1))
    for verdict in (Verdict("scanner", Finding.CLEAN, 0.1), Verdict("scanner", Finding.UNSURE, 0.95), Verdict("scanner", Finding.HOSTILE, 0.5)):
        assert await jury.judge(MESSAGE, verdict) is None
    assert reason(await jury.judge(MESSAGE, GRAY)) == "jury.missing"
    await jury.close()


async def test_the_member_gets_the_bytes_and_the_marks_and_its_opinion_is_the_verdict() -> None:
    jury = Jury(settings())
    fake = Fake(jury)
    marked = Verdict("scanner", Finding.UNSURE, 0.6, (Reason("model.instruction", "…", "/result/a", (3, 9), ("base64",)), Reason("scanner.signals", "…")))
    asked = asyncio.create_task(jury.judge(MESSAGE, marked))
    assert await fake.question() == (0, (Mark("/result/a", (3, 9), ("base64",)),), MESSAGE)
    await fake.reply(frames.answer(0, Opinion("jury.concealed", 0.75)))
    verdict = await asked
    assert verdict is not None and (verdict.finding, verdict.score, verdict.reasons[0].rule) == (Finding.HOSTILE, 0.75, "jury.concealed")
    await jury.close()
    fake.sock.close()


async def test_answers_are_paired_by_number_whatever_their_order() -> None:
    jury = Jury(settings())
    fake = Fake(jury)
    asked = [asyncio.create_task(jury.judge(MESSAGE + str(at).encode(), GRAY)) for at in range(3)]
    numbers = {raw[-1:]: number for number, _, raw in [await fake.question() for _ in range(3)]}
    await fake.reply(frames.answer(99, Opinion("jury.clean", 0.0)))
    for letter, outcome in ((b"2", "jury.clean"), (b"0", "jury.doubt"), (b"1", "jury.instruction")):
        await fake.reply(frames.answer(numbers[letter], Opinion(outcome)))
    assert [reason(await each) for each in asked] == ["jury.doubt", "jury.instruction", "jury.clean"]
    await jury.close()
    fake.sock.close()


async def test_a_spent_budget_is_unsure_and_costs_nothing_more() -> None:
    jury = Jury(settings(max_calls_per_hour=2))
    fake = Fake(jury)
    for at in range(2):
        asked = asyncio.create_task(jury.judge(MESSAGE, GRAY))
        await fake.question()
        await fake.reply(frames.answer(at, Opinion("jury.clean", 0.0)))
        assert reason(await asked) == "jury.clean"
    for _ in range(50):
        assert reason(await jury.judge(MESSAGE, GRAY)) == "jury.budget"
    with pytest.raises(BlockingIOError):
        fake.sock.recv(1)
    await jury.close()
    fake.sock.close()


async def test_a_message_too_large_for_a_member_is_unsure_and_not_sent() -> None:
    jury = Jury(settings(max_calls_per_hour=1))
    fake = Fake(jury)
    assert reason(await jury.judge(b"x" * (frames.MAX_RAW_BYTES + 1), GRAY)) == "jury.too-large"
    with pytest.raises(BlockingIOError):
        fake.sock.recv(1)
    await jury.close()
    fake.sock.close()


@pytest.mark.parametrize(
    "nonsense",
    [
        frames.ANSWER.pack(0, len(OUTCOMES), 0),
        frames.ANSWER.pack(0, 255, 0),
        frames.ANSWER.pack(0, 0, 1001),
        b"HTTP/1.1 200 OK",
    ],
)
async def test_a_member_that_answers_nonsense_is_given_up(nonsense: bytes) -> None:
    lost: list[int] = []
    jury = Jury(settings(), lambda: lost.append(1))
    fake = Fake(jury)
    asked = asyncio.create_task(jury.judge(MESSAGE, GRAY))
    await fake.question()
    await fake.reply(nonsense)
    assert reason(await asked) == "jury.crashed"
    assert (lost, jury.present) == ([1], False)
    await jury.close()
    fake.sock.close()


async def test_a_member_that_is_silent_past_its_deadline_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "GRACE_S", 0.05)
    lost: list[int] = []
    jury = Jury(settings(timeout_s=0.05), lambda: lost.append(1))
    fake = Fake(jury)
    assert reason(await jury.judge(MESSAGE, GRAY)) == "jury.late"
    assert (lost, jury.present) == ([1], False)
    await jury.close()
    fake.sock.close()


async def test_a_member_that_does_not_read_is_given_up_with_all_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "GRACE_S", 0.05)
    lost: list[int] = []
    jury = Jury(settings(timeout_s=0.1), lambda: lost.append(1))
    fake = Fake(jury)
    asked = [asyncio.create_task(jury.judge(b"x" * frames.MAX_RAW_BYTES, GRAY)) for _ in range(2 * frames.IN_FLIGHT)]
    assert {reason(await asyncio.wait_for(each, 5)) for each in asked} <= {"jury.late", "jury.crashed", "jury.busy", "jury.missing"}
    assert (lost, jury.present) == ([1], False)
    await jury.close()
    fake.sock.close()


async def test_more_than_a_member_works_on_wait_their_turn_and_are_unsure_when_it_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "GRACE_S", 5.0)
    jury = Jury(settings(timeout_s=0.2))
    fake = Fake(jury)
    asked = [asyncio.create_task(jury.judge(MESSAGE, GRAY)) for _ in range(frames.IN_FLIGHT + 1)]
    numbers = [(await fake.question())[0] for _ in range(frames.IN_FLIGHT)]
    assert reason(await asyncio.wait_for(asked[-1], 5)) == "jury.busy"
    for number in numbers:
        await fake.reply(frames.answer(number, Opinion("jury.clean", 0.0)))
    assert {reason(await each) for each in asked[:-1]} == {"jury.clean"}
    await jury.close()
    fake.sock.close()


async def test_an_asker_that_leaves_costs_the_others_nothing() -> None:
    jury = Jury(settings())
    fake = Fake(jury)
    leaving, staying = (asyncio.create_task(jury.judge(MESSAGE, GRAY)) for _ in range(2))
    first, second = [(await fake.question())[0] for _ in range(2)]
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    await fake.reply(frames.answer(first, Opinion("jury.instruction")) + frames.answer(second, Opinion("jury.clean", 0.0)))
    assert reason(await staying) == "jury.clean"
    await jury.close()
    fake.sock.close()


async def test_an_asker_that_leaves_in_the_middle_of_its_question_cuts_none_in_two() -> None:
    jury = Jury(settings())
    fake = Fake(jury)
    large = b"x" * frames.MAX_RAW_BYTES
    leaving = asyncio.create_task(jury.judge(large, GRAY))
    for _ in range(3):  # turns of the loop: as much as fits stands in the socket
        await asyncio.sleep(0)
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    staying = asyncio.create_task(jury.judge(MESSAGE, GRAY))
    assert (await fake.question())[2] == large
    number, _, raw = await fake.question()
    assert raw == MESSAGE
    await fake.reply(frames.answer(number, Opinion("jury.clean", 0.0)))
    assert reason(await staying) == "jury.clean"
    await jury.close()
    fake.sock.close()


async def test_askers_that_leave_again_and_again_do_not_end_a_member(endpoint: FakeEndpoint, begin: Begin) -> None:
    endpoint.behaviour = lambda asked, _: endpoint.over.wait(10)  # type: ignore[assignment]
    bench = begin()
    for _ in range(4 * frames.IN_FLIGHT):
        asked = asyncio.create_task(bench.jury.judge(MESSAGE, GRAY))
        for _ in range(3):
            await asyncio.sleep(0)
        asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked
    assert reason(await bench.jury.judge(MESSAGE, GRAY)) == "jury.busy"
    assert (bench.lost, bench.jury.present, bench.processes[0].poll()) == (0, True, None)


async def test_closing_answers_what_waits() -> None:
    jury = Jury(settings())
    fake = Fake(jury)
    asked = asyncio.create_task(jury.judge(MESSAGE, GRAY))
    await fake.question()
    await jury.close()
    assert reason(await asked) == "jury.crashed"
    fake.sock.close()


async def test_a_member_killed_in_the_middle_is_unsure_and_another_takes_over(endpoint: FakeEndpoint, begin: Begin) -> None:
    endpoint.behaviour = lambda asked, _: endpoint.over.wait(10)  # type: ignore[assignment]
    bench = begin()
    asked = asyncio.create_task(bench.jury.judge(MESSAGE, GRAY))
    assert await asyncio.to_thread(endpoint.came.wait, 10)
    os.kill(bench.processes[0].pid, signal.SIGKILL)
    assert reason(await asyncio.wait_for(asked, 5)) == "jury.crashed"
    assert (bench.lost, bench.jury.present) == (1, False)
    assert reason(await bench.jury.judge(MESSAGE, GRAY)) == "jury.missing"
    endpoint.behaviour = says(False)
    bench.start()
    assert reason(await bench.jury.judge(MESSAGE, GRAY)) == "jury.clean"


async def test_a_member_ends_when_the_daemon_does(begin: Begin) -> None:
    bench = begin()
    assert reason(await bench.jury.judge(MESSAGE, GRAY)) == "jury.clean"
    await bench.jury.close()
    assert await asyncio.to_thread(bench.processes[0].wait, 5) == 0
