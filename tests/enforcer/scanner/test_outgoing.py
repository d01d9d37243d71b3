"""The way out: a secret is held wherever it stands and however it is dressed, and the same arguments without it pass."""

from __future__ import annotations

import base64
import json
import time
import tomllib
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest

from enforcer.scanner.outgoing import Outgoing, document, random_value
from escrow import canary, jsonrpc
from escrow.scanner_settings import ScannerSettings
from escrow.verdict import Finding
from tests.bench.outgoing import DRESSES, SECRETS, harmless

RULE_FILE = resources.files("enforcer.scanner").joinpath("gitleaks.toml")
TOKEN = canary.make(bytes(range(1, canary.CHANCE_BYTES + 1)))


@pytest.fixture(scope="module")
def judge() -> Outgoing:
    outgoing = Outgoing(ScannerSettings())
    outgoing.watch({canary.digest(TOKEN): "payroll"})
    return outgoing


def call(arguments: Any) -> dict[str, Any]:
    return {"method": "tools/call", "params": {"name": "post_message", "arguments": arguments}}


@pytest.mark.parametrize("dress", DRESSES)
@pytest.mark.parametrize("family", SECRETS)
def test_a_secret_is_held_in_every_dress(judge: Outgoing, family: str, dress: str) -> None:
    secret = SECRETS[family]
    verdict = judge.judge(call({"channel": "general", "text": DRESSES[dress](secret)})).verdict
    assert verdict.finding is Finding.HOSTILE
    assert verdict.reasons[0].rule.startswith("secret.")
    assert verdict.reasons[0].pointer == "/params/arguments/text"
    assert secret[:12] not in repr(verdict)


@pytest.mark.parametrize("dress", DRESSES)
def test_the_same_dress_around_something_else_passes(judge: Outgoing, dress: str) -> None:
    quiet = "The museum opens at nine and tickets cost twelve euro"
    assert judge.judge(call({"channel": "general", "text": DRESSES[dress](quiet)})).verdict.finding is Finding.CLEAN


def test_the_span_of_a_secret_is_that_of_the_form_it_stands_in(judge: Outgoing) -> None:
    secret = SECRETS["github-pat"]
    reason = judge.judge(call({"text": f"Größe: {secret}."})).verdict.reasons[0]
    assert (reason.span, reason.via) == ((7, 7 + len(secret)), ())
    assert judge.judge(call({"text": base64.b64encode(f"x {secret}".encode()).decode()})).verdict.reasons[0].via == ("base64",)


PLACES: dict[str, Callable[[str], Any]] = {
    "an argument": lambda secret: call({"text": secret}),
    "a deep argument": lambda secret: call({"rows": [{"a": 1}, {"note": {"body": secret}}]}),
    "a key": lambda secret: call({secret: True}),
    "an address's query": lambda secret: call({"url": f"https://eve.test/c?d={secret}&x=1"}),
    "an address's path": lambda secret: call({"url": f"https://eve.test/{secret}/x.png"}),
    "_meta": lambda secret: {"method": "tools/call", "params": {"name": "a", "arguments": {}, "_meta": {"trace": secret}}},
    "a notification": lambda secret: {"method": "notifications/progress", "params": {"progressToken": 1, "progress": 1, "message": secret}},
    "an answer to the server": lambda secret: {"result": {"action": "accept", "content": {"name": secret}}},
    "a sampled answer": lambda secret: {"result": {"role": "assistant", "content": {"type": "text", "text": f"It is {secret}"}, "model": "m"}},
    "a resource's address": lambda secret: {"method": "resources/read", "params": {"uri": f"note://{secret}"}},
    "two neighbours": lambda secret: call({"parts": [secret[:9], secret[9:]]}),
    "three members": lambda secret: call({"a": secret[:8], "b": secret[8:20], "c": secret[20:]}),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_and_a_canary_are_held_in_every_place_and_the_same_without_them_passes(judge: Outgoing, place: str) -> None:
    secret = judge.judge(PLACES[place](SECRETS["github-pat"])).verdict
    assert (secret.finding, secret.reasons[0].rule) == (Finding.HOSTILE, "secret.github-pat")
    found = judge.conclude(judge.judge(PLACES[place](TOKEN))).verdict
    assert (found.judge, found.finding, found.reasons[0].rule) == ("outgoing", Finding.HOSTILE, "canary.payroll")
    assert judge.conclude(judge.judge(PLACES[place]("a harmless word"))).verdict.finding is Finding.CLEAN


@pytest.mark.parametrize("dress", DRESSES)
def test_a_canary_is_held_in_every_dress(judge: Outgoing, dress: str) -> None:
    assert judge.conclude(judge.judge(call({"text": DRESSES[dress](TOKEN)}))).verdict.reasons[0].rule == "canary.payroll"


def test_a_canary_of_somebody_else_is_none(judge: Outgoing) -> None:
    assert judge.conclude(judge.judge(call({"text": canary.make(bytes(canary.CHANCE_BYTES))}))).verdict.finding is Finding.CLEAN


@pytest.mark.parametrize("name", ["password", "apiKey", "X-Auth-Token", "client_secret", "DB_PASSWORD", "accessToken", "credentials"])
def test_a_random_value_in_a_place_named_like_a_secret_is_unsure_and_elsewhere_nothing(judge: Outgoing, name: str) -> None:
    value = "q7Zp2mXv9LrT4kWc8HsB"
    held = judge.judge(call({name: value})).verdict
    assert held.finding is Finding.UNSURE
    assert held.reasons[0].rule in ("secret.entropy", "secret.generic-api-key")
    assert judge.judge(call({"revision": value})).verdict.finding is Finding.CLEAN
    assert judge.judge(call({name: "${DB_PASSWORD}"})).verdict.finding is Finding.CLEAN


@pytest.mark.parametrize(
    "name", ["next_page_token", "pageToken", "cursor", "nextCursor", "progressToken", "idempotency_key", "cache_key", "primaryKey", "keyword"]
)
def test_a_random_value_that_asks_for_the_next_page_or_names_a_row_passes(judge: Outgoing, name: str) -> None:
    assert judge.judge(call({name: "eyJvZmZzZXQiOjEwMCwiaWQiOiI3ZjNhIn0"})).verdict.finding is Finding.CLEAN
    assert judge.judge(call({name: "7f3a9c0d51e24b68"})).verdict.finding is Finding.CLEAN


def test_a_key_that_is_called_nothing_else_is_held_only_where_it_is_as_random_as_can_be(judge: Outgoing) -> None:
    assert judge.judge(call({"key": "user:7f3a9c0d:profile"})).verdict.finding is Finding.CLEAN
    assert judge.judge(call({"key": "9f86d081884c7d659a2feaa0c55ad015"})).verdict.finding is Finding.CLEAN
    assert judge.judge(call({"key": "q7Zp2mXv9LrT4kWc8HsB5nYd"})).verdict.finding is Finding.UNSURE


def test_a_name_and_a_value_in_one_text_are_unsure(judge: Outgoing) -> None:
    verdict = judge.judge(call({"text": 'The zendesk_key = "q7zp2mxv9lrt4kwc8hsbq7zp2mxv9lrt4kwc8hsb", use it'})).verdict
    assert verdict.finding is Finding.UNSURE


def test_published_example_keys_are_on_the_sets_own_allowlist(judge: Outgoing) -> None:
    assert judge.judge(call({"text": "AKIAIOSFODNN7EXAMPLE"})).verdict.finding is Finding.CLEAN
    assert judge.judge(call({"text": "AKIAIOSFODNN7EXAMPLE and " + SECRETS["aws-access-token"]})).verdict.finding is Finding.HOSTILE


@pytest.mark.parametrize("index", range(60))
def test_what_agents_ordinarily_send_passes(judge: Outgoing, index: int) -> None:
    arguments = harmless(60)[index]
    assert judge.judge(call(arguments)).verdict.finding is Finding.CLEAN


def test_small_arguments_are_judged_at_once_and_large_ones_left_to_a_worker(judge: Outgoing) -> None:
    quick = judge.quick(call({"text": TOKEN}), 100)
    assert quick is not None
    assert quick.verdict.reasons[0].rule == "canary.payroll"
    assert judge.quick(call({"text": "x"}), judge.settings.outgoing_quick_bytes + 1) is None


def test_a_text_made_of_keywords_is_left_to_a_worker_however_small(judge: Outgoing) -> None:
    keywords = " ".join(word for entry in tomllib.loads(RULE_FILE.read_text("utf-8"))["rules"] for word in entry.get("keywords", ()))
    assert judge.quick(call({"text": keywords}), len(keywords)) is None
    assert judge.quick(call({"text": base64.b64encode(keywords.encode()).decode()}), len(keywords)) is None
    assert judge.judge(call({"text": keywords})).verdict.finding is Finding.CLEAN
    assert judge.quick(call({"text": "my key and token"}), 100) is not None


HUGE: dict[str, Any] = {
    "one letter": "a" * (1 << 20),
    "base64": base64.b64encode(bytes(index * 7919 % 251 for index in range(3 << 18))).decode(),
    "keywords": "key = token = secret = api = " * 36_000,
    "beginnings of keys": "-----BEGIN PRIVATE KEY-----" * 38_000,
    "commands": "curl -H " * 130_000,
    "addresses": "a@b.cc " * 150_000,
    "links": "http://a.b/" * 95_000,
    "percent": "%41" * 350_000,
    "JSON in JSON": json.dumps(json.dumps(json.dumps(["x" * 1000] * 900))),
    "many values": ["ghp_"] * 100_000,
    "depth": json.loads("[" * 100 + "1" + "]" * 100),
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_large_hostile_argument_takes_bounded_time(judge: Outgoing, kind: str) -> None:
    started = time.perf_counter()
    verdict = judge.judge(call({"a": HUGE[kind]})).verdict
    assert time.perf_counter() - started < 15  # 1 to 2 s on two idle cores
    assert verdict.finding in set(Finding)


def test_a_secret_at_the_end_of_a_mebibyte_is_held(judge: Outgoing) -> None:
    text = "The quick brown fox. " * 50_000
    assert judge.judge(call({"text": text})).verdict.finding is Finding.CLEAN
    assert judge.judge(call({"text": text + SECRETS["stripe-access-token"]})).verdict.finding is Finding.HOSTILE


@pytest.mark.parametrize(
    "odd", [None, True, 3, [], {}, "", "\x00\ud800\udfff" * 9, {"\ud800" * 9: ["\x00" * 50]}, "\u200d" * 5000, {"password": "\ud800" * 20}]
)
def test_odd_values_are_judged_without_an_exception(judge: Outgoing, odd: Any) -> None:
    assert judge.judge(odd).verdict.finding in set(Finding)


def test_the_document_of_a_message_is_what_pointers_are_relative_to() -> None:
    assert document(jsonrpc.read(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')) == {"method": "ping", "params": {}}
    assert document(jsonrpc.read(b'{"jsonrpc":"2.0","id":1,"result":{"a":1}}')) == {"result": {"a": 1}}
    assert document(jsonrpc.read(b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}')) == {"error": {"code": 1, "message": "m"}}


@pytest.mark.parametrize("value", ["my_database_password", "https://login.example.org/token", "<your-token>", "changeme", "/run/secrets/db", "correct horse"])
def test_placeholders_paths_and_words_are_not_random(value: str) -> None:
    assert not random_value("password", value)
