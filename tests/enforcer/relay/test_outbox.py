"""What is written when: alone at once, with others at the turn's end, and always in its order."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from enforcer.relay.outbox import Outbox

pytestmark = pytest.mark.anyio


class Written:
    """A transport that remembers. ended: its end was sent, so that writing raises."""

    def __init__(self, ended: bool = False) -> None:
        self.data: list[bytes] = []
        self.ended, self.aborted = ended, False

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        if self.ended:
            raise RuntimeError("Cannot write after write_eof()")
        self.data.append(data)

    def abort(self) -> None:
        self.aborted = True


def write(outbox: Outbox, to: Written, data: bytes) -> None:
    outbox.write(cast(asyncio.Transport, to), data)


async def test_a_message_that_comes_alone_is_written_at_once() -> None:
    outbox, client = Outbox(), Written()
    outbox.due = 1
    write(outbox, client, b"a")
    assert client.data == [b"a"]


async def test_with_many_answers_due_what_is_written_in_a_turn_is_sent_at_its_end() -> None:
    outbox, client = Outbox(), Written()
    outbox.due = 16
    write(outbox, client, b"a")
    assert client.data == []
    await asyncio.sleep(0)
    assert client.data == [b"a"]


async def test_nothing_overtakes_what_waits_for_the_turns_end() -> None:
    outbox, client = Outbox(), Written()
    outbox.due = 16
    write(outbox, client, b"a")
    outbox.due = 0
    write(outbox, client, b"b")
    assert client.data == []
    outbox.flush()
    assert client.data == [b"a", b"b"]


@pytest.mark.parametrize("due", [0, 16])
async def test_a_connection_whose_end_was_sent_is_cut_off_and_the_others_get_theirs(due: int) -> None:
    outbox, ended, client = Outbox(), Written(ended=True), Written()
    outbox.due = due
    write(outbox, ended, b"a")
    write(outbox, client, b"b")
    outbox.flush()
    assert ended.aborted and client.data == [b"b"]
