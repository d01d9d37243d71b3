"""What the policy says for the second judge: twins of servers, classes of tools, and a document that comes back as it was."""

from __future__ import annotations

import pytest

from escrow.policy import Policy, load
from escrow.policy.patch import deep, every, patched, render, said

TWIN = """
[judging]
judges = ["scanner", "jury", "sandbox"]
[servers.docs.sandbox]
command = ["/usr/bin/server"]
environment = { LANG = "C" }
[[servers.docs.sandbox.state]]
kind = "directory"
path = "/srv/files"
at = "/files"
[[servers.docs.sandbox.state]]
kind = "sqlite"
path = "/srv/db.sqlite"
[[servers.docs.sandbox.state]]
kind = "redis"
url = "unix:///run/redis/redis.sock"
socket = "/run/redis/redis.sock"
[[rule]]
tools = ["read_*"]
class = "read-only"
outside = "scanner-only"
volatile = ["/result/structuredContent/at"]
[[rule]]
tools = ["write_*"]
class = "reversible"
when = "before"
session = "replay"
writes = ["/files/*"]
connects = []
[[rule]]
tools = ["plain"]
judges = ["scanner"]
"""


def test_nobody_has_a_twin_unless_it_is_named() -> None:
    policy = Policy()
    assert policy.servers == {} and policy.judging.judges == {"scanner", "jury"} and policy.judging.require == {"scanner"}
    assert policy.judging.tool_class == "irreversible" and policy.judging.outside == "hold" and policy.judging.volatile == ()


def test_a_rule_may_name_the_sandbox_where_no_server_has_one() -> None:
    rules = load("[[rule]]\ntools = ['a']\njudges = ['scanner', 'sandbox']\nrequire = ['scanner', 'sandbox']").for_call("s", "a")
    assert rules.require == {"scanner", "sandbox"} and rules.state == ()


@pytest.mark.parametrize(
    "tool, tool_class, when, outside, session",
    [
        ("read_x", "read-only", "alongside", "scanner-only", "fresh"),
        ("write_x", "reversible", "before", "hold", "replay"),
        ("other", "irreversible", "before", "hold", "fresh"),
    ],
)
def test_the_class_says_when_the_twin_runs_unless_the_policy_does(tool: str, tool_class: str, when: str, outside: str, session: str) -> None:
    rules = load(TWIN).for_call("docs", tool)
    assert (rules.tool_class, rules.when, rules.outside, rules.session) == (tool_class, when, outside, session)


def test_the_tables_say_what_a_rule_does_not() -> None:
    policy = load("[judging]\nclass = 'reversible'\nwrites = ['/a/*']\n[[rule]]\ntools = ['x']\nwrites = []\n[[rule]]\ntools = ['y']\nclass = 'read-only'")
    x, y = policy.for_call("s", "x"), policy.for_call("s", "y")
    assert (x.tool_class, x.when, x.writes, x.reads) == ("reversible", "alongside", (), None)
    assert (y.tool_class, y.writes) == ("read-only", ("/a/*",))


def test_what_calls_change_is_known_of_a_server_with_a_twin() -> None:
    policy = load(TWIN)
    database = ("/srv/db.sqlite", "/srv/db.sqlite-journal", "/srv/db.sqlite-wal", "/srv/db.sqlite-shm")
    assert policy.for_call("docs", "read_x").state == ("/files", *database) == policy.for_call("docs", "write_x").state
    assert policy.for_call("another", "read_x").state == ()


def test_a_policy_with_a_twin_is_the_same_after_it_was_written() -> None:
    policy = load(TWIN)
    text = render(deep(said(policy)))
    assert load(text) == policy and load(text).version == policy.version
    assert every(policy)["judging.class"] == "irreversible" and every(policy)["servers.docs.sandbox.pool"] == 2


def test_a_change_of_one_key_is_a_change_of_that_key() -> None:
    changed = load(render(deep(patched(said(load(TWIN)), {"judging.class": "read-only", "servers.docs.sandbox.pool": 5}))))
    assert changed.judging.tool_class == "read-only" and (twin := changed.servers["docs"].sandbox) is not None and twin.pool == 5
    assert changed.version != load(TWIN).version


KEPT = """
[judging]
judges = ["scanner", "sandbox"]
[servers.docs.sandbox]
command = ["/usr/bin/server"]
revert = true
state = [{ kind = "directory", path = "/srv/files" }]
[[rule]]
tools = ["read_*"]
class = "read-only"
[[rule]]
tools = ["plain"]
judges = ["scanner"]
"""


@pytest.mark.parametrize(
    "server, tool, method, keeps",
    [
        ("docs", "delete", "tools/call", True),
        ("docs", "read_x", "tools/call", False),
        ("docs", "plain", "tools/call", False),
        ("docs", "resources/read", "resources/read", False),
        ("other", "delete", "tools/call", False),
    ],
)
def test_a_clone_is_kept_for_irreversible_calls_that_the_sandbox_judges(server: str, tool: str, method: str, keeps: bool) -> None:
    assert load(KEPT).for_call(server, tool, method).revert is keeps


@pytest.mark.parametrize(
    "state, why",
    [
        ("[]", "no state that could be put back"),
        ('[{ kind = "redis", url = "unix:///run/r.sock", socket = "/run/r/r.sock" }]', "a redis state cannot be put back"),
    ],
)
def test_what_cannot_be_put_back_is_refused_when_the_policy_is_read(state: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        load(KEPT.replace('[{ kind = "directory", path = "/srv/files" }]', state))


def test_a_redis_server_is_named_by_its_socket_as_the_keeper_has_no_network() -> None:
    with pytest.raises(ValueError, match=r"servers\.docs\.sandbox"):
        load(TWIN.replace("unix:///run/redis/redis.sock", "redis://127.0.0.1:6379"))
