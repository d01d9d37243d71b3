"""The policy: safe without a file, and loud about anything it does not know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.policy import Policy, PolicyError, load


def test_the_defaults_are_the_safe_choices() -> None:
    policy = Policy()
    assert policy.fail == "closed" and policy.judging.require == {"scanner"} and policy.judging.on_hostile == "hold"
    assert policy.judging.on_unsure == "hold" and not policy.judging.trial and policy.judging.outgoing == "hold" and policy.judging.taint == "hold"
    assert policy.jury is None and not policy.evidence.content and policy.rule == () and policy.tools.deny == ()
    assert policy.passthrough == ("GET /.well-known/*", "GET /health*")
    assert policy.escrow.claim_after_s == 45 and load("") == policy


@pytest.mark.parametrize(
    "text, named",
    [
        ("fial = 'open'", "fial"),
        ("[escrow]\nclaim_after = 3", "escrow.claim_after"),
        ("[judging]\nrequire = ['nobody']", "judging.require"),
        ("[escrow]\nclaim_after_s = 0", "escrow.claim_after_s"),
        ("[escrow]\nhold_for_s = -1", "escrow.hold_for_s"),
        ("[bounds]\nresult_bytes = 0", "bounds.result_bytes"),
        ("[tls]\ncert = 'c'", "tls.key"),
        ("[server]\nname = 'a\\u001b[31m'", "server.name"),
        ("fail = maybe", "line 1"),
        ("[a\n", "line 1"),
    ],
)
def test_a_document_that_cannot_be_used_is_named_with_its_place(text: str, named: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(text, "here.toml")
    assert named in str(caught.value) and str(caught.value).startswith("here.toml")


@pytest.mark.parametrize(
    "text, said",
    [
        ("\n[escrow]\nping_s = 1\nclaim_afer_s = 3", "x.toml: line 4: escrow.claim_afer_s: there is no such key; did you mean claim_after_s?"),
        ("\nfial = 'open'", "x.toml: line 2: fial: there is no such key; did you mean fail?"),
        ("[judging]\nclaim_after_s = 3", "x.toml: line 2: judging.claim_after_s: there is no such key; it belongs into [escrow] or [rule]"),
        ("[bounds]\nzzz = 3", "x.toml: line 2: bounds.zzz: there is no such key"),
        ("[escrow]\n\nhold_for_s = -1", "x.toml: line 3: escrow.hold_for_s: Input should be greater than 0"),
        ("[escrow]\nhold_for_s = inf", "x.toml: line 2: escrow.hold_for_s: Input should be a finite number"),
        ("\n[tls]\ncert = 'c'", "x.toml: line 2: tls.key: is missing"),
        ("fail = 'closed'\nfail = 'open'", "x.toml: line 2, column 14: fail: Cannot overwrite a value"),
        ("[escrow]\nping_s = x", "x.toml: line 2, column 10: ping_s: Invalid value"),
        ("[escrow]\nping_s = [1,", "x.toml: line "),
        ("[[rule]]\ntools = ['a']\n[[rule]]\ntols = ['a']", "x.toml: line 4: rule.1.tols: there is no such key; did you mean tools?"),
        ("[[rule]]\non_hostile = 'hold'", "x.toml: line 1: rule.0: say which tools, servers or methods it is for"),
        ("[[rule]]\ntools = []", "x.toml: line 2: rule.0.tools: Tuple should have at least 1 item after validation, not 0"),
        ("[judging]\nrequire = ['jury']", "x.toml: line 2: judging.require.0: Input should be 'scanner'"),
        ("\n[judging]\nclas = 'read-only'", "x.toml: line 3: judging.clas: there is no such key; did you mean class?"),
        ("[judging]\ntool_class = 'read-only'", "x.toml: line 2: judging.tool_class: there is no such key; did you mean class?"),
        ("[judging]\nclass = 'harmless'", "x.toml: line 2: judging.class: Input should be 'read-only', 'reversible' or 'irreversible'"),
        ("[judging]\nrequire = ['sandbox']", "x.toml: line 2: judging.require: a judge that is required must be among `judges`"),
        ("[servers.d]\nsanbox = {}", "x.toml: line 2: servers.d.sanbox: there is no such key; did you mean sandbox?"),
        ("[servers.d.sandbox]\ncommand = ['a']\npol = 3", "x.toml: line 3: servers.d.sandbox.pol: there is no such key; did you mean pool?"),
        ("[servers.d.sandbox]\npool = 3", "x.toml: line 1: servers.d.sandbox.command: is missing"),
        (
            "[servers.d.sandbox]\ncommand = ['a']\n[[servers.d.sandbox.state]]\nkind = 'sqlite'\npath = '/a'\npth = '/a'",
            "x.toml: line 6: servers.d.sandbox.state.0.pth: there is no such key",
        ),
        ("[servers.'a.b'.sandbox]\ncommand = ['a']", "servers.a.b: String should match pattern"),
        ("[judging]\njudges = ['jury']", "x.toml: line 2: judging.judges: without the scanner nothing would be judged, and everything held"),
        ("[judging]\non_unsure = 'refuse'", "x.toml: line 2: judging.on_unsure: on_unsure must not be stricter than on_hostile"),
        ("[judging]\non_unsure = 'pass'", 'x.toml: line 2: judging.on_unsure: "pass" is for trials only: say trial = true beside it'),
        ("[[rule]]\ntools = ['a']\non_hostile = 'pass'\non_unsure = 'pass'", 'line 3: rule.0.on_hostile: "pass" is for trials only'),
        ("[judging]\ntrial = true", 'x.toml: line 2: judging.trial: a trial of nothing: say on_hostile = "pass" or on_unsure = "pass" beside it'),
        ("[jury]\nmodel = 'm'\nurl = 'ftp://x'", "x.toml: line 3: jury.url: must be an http or https address"),
    ],
)
def test_an_error_says_file_line_key_and_what_may_have_been_meant(text: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(text, "x.toml")
    assert said in str(caught.value)


def test_all_errors_are_said_in_the_order_of_the_file_and_not_without_end() -> None:
    with pytest.raises(PolicyError) as caught:
        load("[escrow]\nping_s = 0\n[bounds]\nhead_s = 0\n[judging]\ntaint = 'x'")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["line 2", "line 4", "line 6"]
    with pytest.raises(PolicyError) as caught:
        load("\n".join(f"k{number} = 1" for number in range(1000)))
    assert len(str(caught.value).splitlines()) == 21 and "and 980 more" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 100_000,
        "x = " + "{a=" * 5000,
        "#" * 300_000,
        "[a]\n" + "a.b." * 50_000 + "c = 1",
        "a = {" + " 'a' . \"b\".c.d." * 10_000 + "e = 1 }",
        "a." * 63 + "b = 1",
    ],
)
def test_a_document_made_to_exhaust_is_an_error(text: str) -> None:
    with pytest.raises(PolicyError):
        load(text)


def test_the_version_changes_with_any_value_and_only_then() -> None:
    assert load("").version == Policy().version
    texts = ("", "fail = 'open'", "[escrow]\nping_s = 1", "[judging]\nrequire = []", "passthrough = []", "[tools]\ndeny = ['x']", "[[rule]]\ntools = ['x']")
    versions = {load(text).version for text in texts}
    assert len(versions) == len(texts) and all(len(version) == 16 for version in versions)


@pytest.mark.parametrize(
    "method, path, passes",
    [
        ("GET", "/health", True),
        ("GET", "/healthz", True),
        ("GET", "/health?x=/mcp", True),
        ("GET", "/.well-known/oauth-protected-resource/mcp", True),
        ("POST", "/health", False),
        ("get", "/health", False),
        ("GET", "/mcp", False),
        ("GET", "/mcp?/health", False),
        ("GET", "//health", False),
        ("GET", "/x/../health", False),
        ("GET", "/health/../mcp", False),
        ("GET", "/health/..;/mcp", False),
        ("GET", "/health/%2e%2e/mcp", False),
        ("GET", "/.well-known/%2E./mcp", False),
        ("GET", "/health/.%2e%2fmcp", False),
        ("GET", "/.well-known/..%5cmcp", False),
    ],
)
def test_only_named_paths_pass_and_none_that_climbs(method: str, path: str, passes: bool) -> None:
    assert Policy().passes(method, path) is passes


@given(st.text(max_size=30))
def test_no_path_outside_the_globs_passes(path: str) -> None:
    if Policy().passes("GET", "/" + path):
        assert ("/" + path).startswith(("/.well-known/", "/health"))


def test_an_empty_passthrough_lets_nothing_by() -> None:
    assert not load("passthrough = []").passes("GET", "/health")
