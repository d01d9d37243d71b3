"""The table of answers is total, fixed, and quotes nobody."""

from __future__ import annotations

import json

import pytest

from escrow.answers import CODES, UNREADABLE, Why, error, error_for_server, result_for
from escrow.call import Kind
from escrow.jsonrpc import Response, read

ASKED = [kind for kind in Kind if kind not in (Kind.SERVER_REQUEST, Kind.NOTIFICATION)]
ID = "hf-0123456789"


@pytest.mark.parametrize("why", Why)
@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("call_id", [0, "0", "", -7])
def test_every_cell_answers_its_call_with_the_escrow_id(kind: Kind, why: Why, call_id: int | str) -> None:
    message = read(result_for(kind, why, ID, call_id))
    assert isinstance(message, Response) and message.id == call_id and type(message.id) is type(call_id)
    if kind is Kind.TOOL_CALL:
        assert not message.is_error and message.value["isError"] is True
        assert [part["type"] for part in message.value["content"]] == ["text"] and ID in message.value["content"][0]["text"]
        assert message.value["_meta"]["holdfast/state"] == why.value
    else:
        assert message.is_error and message.value["code"] == CODES[why]
        assert message.value["data"] == {"escrow_id": ID, "state": why.value}


@pytest.mark.parametrize("kind", [Kind.SERVER_REQUEST, Kind.NOTIFICATION])
def test_what_no_client_asked_has_no_answer_to_a_client(kind: Kind) -> None:
    with pytest.raises(ValueError, match="no answer to a client"):
        result_for(kind, Why.HELD, ID, 1)


@pytest.mark.parametrize("why", Why)
def test_a_held_request_of_the_servers_is_answered_to_the_server(why: Why) -> None:
    message = read(error_for_server(why, ID, 3))
    assert isinstance(message, Response) and message.is_error and message.value["code"] == CODES[why] and message.id == 3


def test_codes_are_distinct_and_in_the_range_of_implementations() -> None:
    codes = [*CODES.values(), UNREADABLE]
    assert len(set(codes)) == len(codes) and all(-32099 <= code <= -32000 for code in codes)


def test_an_error_without_a_call_has_a_null_id() -> None:
    assert json.loads(error(None, UNREADABLE, "x")) == {"jsonrpc": "2.0", "id": None, "error": {"code": UNREADABLE, "message": "x"}}


def test_a_claim_says_that_the_call_ran_and_how_to_collect_it() -> None:
    text = json.loads(result_for(Kind.TOOL_CALL, Why.HELD, ID, 1))["result"]["content"][0]["text"]
    assert "has run" in text and "same call again" in text
