"""What holds for one call: the first rule that is for it, over the tables."""

from __future__ import annotations

import timeit

import pytest

from escrow.policy import Bounds, Policy, ToolNames, load
from escrow.policy.document import KNOWN_CALLS, KNOWN_CHARS

RULES = """
[judging]
on_hostile = "refuse"
[escrow]
hold_for_s = 100
[tools]
deny = ["rm_*", "Drop?"]
[[rule]]
tools = ["send_*"]
servers = ["mail*"]
on_unsure = "refuse"
claim_after_s = 5
[[rule]]
tools = ["send_*", "try"]
trial = true
on_hostile = "pass"
on_unsure = "pass"
judges = ["scanner"]
[[rule]]
methods = ["resources/*"]
result_bytes = 2048
taint = "off"
[[rule]]
servers = ["other"]
outgoing = "note"
request_bytes = 4096
"""


@pytest.mark.parametrize(
    "server, tool, method, rule",
    [
        ("mail-1", "send_x", "tools/call", 0),
        ("files", "send_x", "tools/call", 1),
        ("mail-1", "try", "tools/call", 1),
        ("mail-1", "Send_x", "tools/call", None),
        ("mail-1", "send_x", "prompts/get", None),
        ("files", "file:///a", "resources/read", 2),
        ("files", "resources/list", "resources/list", 2),
        ("other", "send_x", "tools/call", 1),
        ("other", "x", "tools/call", 3),
        ("files", "x", "tools/call", None),
    ],
)
def test_the_first_rule_that_is_for_it_counts(server: str, tool: str, method: str, rule: int | None) -> None:
    assert load(RULES).for_call(server, tool, method).rule == rule


def test_a_rule_says_some_things_and_the_tables_the_rest() -> None:
    policy = load(RULES)
    first = policy.for_call("mail", "send_x")
    assert (first.on_hostile, first.on_unsure, first.claim_after_s, first.hold_for_s, first.trial) == ("refuse", "refuse", 5, 100, False)
    second = policy.for_call("x", "try")
    assert (second.on_hostile, second.on_unsure, second.trial, second.judges) == ("pass", "pass", True, {"scanner"})
    third = policy.for_call("x", "file:///a", "resources/read")
    assert (third.result_bytes, third.request_bytes, third.taint, third.outgoing) == (2048, policy.bounds.request_bytes, "off", "hold")
    fourth = policy.for_call("other", "x")
    assert (fourth.outgoing, fourth.request_bytes, fourth.require) == ("note", 4096, {"scanner"})


@pytest.mark.parametrize("tool, glob", [("rm_x", "rm_*"), ("RM_x", "rm_*"), ("dropX", "Drop?"), ("drop", None), ("xrm_", None)])
def test_denied_tools_are_named_by_a_glob_whatever_their_case(tool: str, glob: str | None) -> None:
    policy = load(RULES)
    assert policy.denies(tool) == glob and policy.for_call("s", tool).denied == glob
    assert policy.for_call("s", tool, "prompts/get").denied is None, "only tools are denied"


def test_nothing_is_denied_where_nothing_is_named() -> None:
    assert Policy().denies("") is None and Policy().for_call("s", "rm_x").denied is None


def test_what_is_remembered_is_bounded() -> None:
    policy = load(RULES)
    for number in range(KNOWN_CALLS + 10):
        policy.for_call("s", f"tool-{number}")
    assert len(policy._known) <= KNOWN_CALLS
    before = len(policy._known)
    assert policy.for_call("mail", "send_" + "x" * KNOWN_CHARS).rule == 0 and len(policy._known) == before


def test_a_changed_copy_remembers_nothing_of_the_original() -> None:
    policy = load(RULES)
    assert policy.for_call("mail", "send_x").rule == 0 and policy.version
    copied = policy.model_copy(update={"rule": (), "bounds": Bounds(result_bytes=5000)})
    assert copied.for_call("mail", "send_x").rule is None and copied.for_call("mail", "send_x").result_bytes == 5000
    assert copied.version != policy.version and policy == load(RULES)


def test_a_known_call_is_looked_up_in_a_microsecond_or_so() -> None:
    policy = load(RULES)
    best = min(timeit.repeat(lambda: policy.for_call("files", "send_x", "tools/call"), number=2000, repeat=20)) / 2000
    assert best < 5e-6, "0.6 µs on an idle machine"


@pytest.mark.parametrize("tool", ["rm_all", " rm_all", "\trm_all", "\uff52\uff4d_all", "r\u200bm_all", "\ufeffrm_all", "RM_ALL\n", "\x00rm_all"])
def test_a_denied_tool_is_denied_in_every_spelling(tool: str) -> None:
    policy = Policy(tools=ToolNames(deny=("rm_*",)))
    assert policy.for_call("s", tool).denied == "rm_*" and policy.for_call("s", tool + "x", "prompts/get").denied is None
    assert policy.for_call("s", "arm_all").denied is None
