"""The policy: safe without a file, and loud about anything it does not know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow.policy import Policy, PolicyError, load


def test_the_defaults_are_the_safe_choices() -> None:
    policy = Policy()
    assert policy.fail == "closed" and policy.judging.require == {"scanner"} and policy.judging.on_hostile == "hold"
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


def test_the_version_changes_with_any_value_and_only_then() -> None:
    assert load("").version == Policy().version
    versions = {load(text).version for text in ("", "fail = 'open'", "[escrow]\nping_s = 1", "[judging]\nrequire = []", "passthrough = []")}
    assert len(versions) == 5 and all(len(version) == 16 for version in versions)


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
