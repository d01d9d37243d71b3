"""The running policy: changed whole and live, kept over restarts, and never looser than anybody said."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.policies import Policies, PolicyRefused
from enforcer.policies.kept import FILE_NAME
from enforcer.policies.proposals import MAX_CHARS, MAX_DECIDED, MAX_WAITING, MAX_WAITING_EACH
from escrow.policy import Policy, PolicyError, load, read

FILE = """
[escrow]
hold_for_s = 60
claim_after_s = 5
ping_s = 15
[[rule]]
tools = ["x"]
"""


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., Policies]:
    """Start with a policy file, in a state folder of the test's own."""

    def start(text: str = FILE, folder: Path | None = tmp_path) -> Policies:
        document = read(text, "p.toml")
        return Policies(document.policy, folder, document.lines)

    return start


Begin = Callable[..., Policies]


def origin(policies: Policies, key: str) -> tuple[str, int | None, str | None]:
    found = next(origin for origin in policies.origins() if origin.key == key)
    return found.origin, found.line, found.by


# --- live changes ---


def test_a_new_policy_replaces_the_old_one_whole_and_everybody_is_told(begin: Begin) -> None:
    policies = begin()
    heard: list[tuple[str, str, str]] = []
    policies.listeners.append(lambda old, new, by: heard.append((old.version, new.version, by)))
    before, text = policies.current, FILE + '[tools]\ndeny = ["rm_*"]'
    after = policies.set(text, "alice", 1.0, "why")
    assert after is policies.current and after.version == load(text).version and after.denies("rm_x")
    assert heard == [(before.version, after.version, "alice")] and before.denies("rm_x") is None


@pytest.mark.parametrize("text", ["[escrow", "nonsense = 1", "[escrow]\nhold_for_s = 0", "[judging]\non_unsure = 'pass'", "#" * 300_000])
def test_a_bad_policy_changes_nothing(begin: Begin, tmp_path: Path, text: str) -> None:
    policies = begin()
    policies.set("", "alice", 1.0)
    kept, current = (tmp_path / FILE_NAME).read_bytes(), policies.current
    policies.listeners.append(lambda *_: pytest.fail("nothing changed"))
    with pytest.raises(PolicyError):
        policies.set(text, "bob", 2.0)
    assert policies.current is current and (tmp_path / FILE_NAME).read_bytes() == kept


@pytest.mark.parametrize(
    "text, key",
    [
        ("fail = 'open'", "fail"),
        ("[tls]\ncert = 'c'\nkey = 'k'", "tls.cert"),
        ("[principal.bearer]\nkey_file = 'k'\nissuer = 'i'\naudience = 'a'", "principal.bearer.key_file"),
        ("[scanner]\nworkers = 3", "scanner.workers"),
        ("[server]\nname = 'x'", "server.name"),
        ("[bounds]\nconnect_s = 1", "bounds.connect_s"),
    ],
)
def test_what_cannot_change_live_is_refused_by_its_name(begin: Begin, text: str, key: str) -> None:
    policies = begin("")
    with pytest.raises(PolicyError, match=rf"(?m)^{key}: cannot change while Holdfast runs"):
        policies.set(text, "alice", 1.0)
    with pytest.raises(PolicyError, match=rf"(?m)^{key}: cannot change while Holdfast runs"):
        policies.propose(text, "agent", "why", 1.0)
    assert policies.current == Policy() and policies.proposals == ()
    policies.set("[bounds]\nconnections = 5", "alice", 2.0)
    assert policies.current.bounds.connections == 5, "the rest of the table can"


def test_whoever_saw_another_version_changes_nothing(begin: Begin) -> None:
    policies = begin()
    seen = policies.current.version
    policies.set("", "alice", 1.0, against=seen)
    with pytest.raises(PolicyRefused, match="changed meanwhile"):
        policies.set("[escrow]\nping_s = 1", "bob", 2.0, against=seen)
    assert policies.current == Policy()


def test_what_could_not_be_recorded_does_not_take_effect(begin: Begin, tmp_path: Path) -> None:
    policies = begin()
    current = policies.current

    def full(*_: object) -> None:
        raise OSError("disk full")

    policies.record = full
    with pytest.raises(OSError):
        policies.set("", "alice", 1.0)
    assert policies.current is current and not (tmp_path / FILE_NAME).exists()
    seen: list[tuple[str, str, str, str]] = []
    policies.record = lambda old, new, by, why: seen.append((old.version, new.version, by, why))
    policies.set("", "alice", 1.0, "tidy")
    assert seen == [(current.version, Policy().version, "alice", "tidy")]


def test_what_could_not_be_kept_does_not_take_effect(begin: Begin, tmp_path: Path) -> None:
    policies = begin()
    current = policies.current
    (tmp_path / f"{FILE_NAME}.new").mkdir()
    with pytest.raises(PolicyRefused, match="could not be recorded"):
        policies.set("", "alice", 1.0)
    assert policies.current is current and policies.changes == () and policies.text


# --- over restarts ---


def test_live_changes_are_kept_over_a_restart_and_for_the_owner_only(begin: Begin, tmp_path: Path) -> None:
    version = begin().set(FILE + "[tools]\ndeny = ['rm_*']", "alice", 1.0, "why").version
    assert os.stat(tmp_path / FILE_NAME).st_mode & 0o777 == 0o600 and os.listdir(tmp_path) == [FILE_NAME]
    again = begin()
    assert again.current.version == version and again.set_aside == ()
    assert [(change.key, change.value, change.by, change.at, change.why) for change in again.changes] == [("tools.deny", ["rm_*"], "alice", 1.0, "why")]


def test_an_edit_of_another_key_of_the_file_leaves_a_live_change_standing(begin: Begin) -> None:
    begin().set(FILE + "[tools]\ndeny = ['rm_*']", "alice", 1.0)
    again = begin(FILE.replace("60", "90"))
    assert again.current.denies("rm_x") and again.current.escrow.hold_for_s == 90 and again.set_aside == ()


def test_an_edit_of_the_same_key_has_the_last_word_and_says_so(begin: Begin) -> None:
    begin().set(FILE.replace("60", "70"), "alice", 1.0)
    again = begin(FILE.replace("60", "90"))
    assert again.current.escrow.hold_for_s == 90 and [change.key for change in again.set_aside] == ["escrow.hold_for_s"]
    assert again.status()["policy_set_aside"][0]["value"] == 70 and again.changes == ()
    back = begin()
    assert back.current.escrow.hold_for_s == 60, "what was set aside does not come back with the old file"
    assert back.set_aside != ()
    back.set(FILE, "alice", 3.0)
    back.set(FILE + "[tools]\ndeny = ['x']", "alice", 3.0)
    assert back.set_aside == (), "who sets a policy has seen it"


def test_a_live_change_that_the_file_says_by_now_is_none_any_more(begin: Begin) -> None:
    begin().set(FILE.replace("60", "70"), "alice", 1.0)
    again = begin(FILE.replace("60", "70"))
    assert again.changes == () and again.set_aside == () and origin(again, "escrow.hold_for_s") == ("file", 3, None)


def test_the_files_own_text_takes_all_live_changes_back(begin: Begin) -> None:
    policies = begin()
    policies.set("", "alice", 1.0)
    policies.set(FILE, "alice", 2.0)
    assert policies.changes == () and policies.current.version == load(FILE).version


def test_a_live_change_that_does_not_go_with_the_edited_file_stops_the_start(begin: Begin) -> None:
    begin("[judging]\ntrial = true\non_unsure = 'pass'").set("[judging]\ntrial = true\non_unsure = 'pass'\non_hostile = 'pass'", "alice", 1.0)
    with pytest.raises(PolicyError, match=r"do not go with the policy file:\n.*trials only"):
        begin("")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"changes": [{"key": 1}]}', b"\xff"])
def test_a_damaged_record_stops_the_start(begin: Begin, tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(PolicyError, match="damaged"):
        begin()


def test_a_record_that_changes_what_cannot_change_stops_the_start(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"changes": [{"key": "fail", "over": null, "value": "open", "by": "x", "at": 1.0}]}')
    with pytest.raises(PolicyError, match="fail: cannot change"):
        begin()


def test_a_crash_in_the_middle_of_writing_leaves_the_old_record(begin: Begin, tmp_path: Path) -> None:
    version = begin().set("", "alice", 1.0).version
    (tmp_path / f"{FILE_NAME}.new").write_bytes(b"{half")
    again = begin()
    assert again.current.version == version
    again.set(FILE, "alice", 2.0)
    assert os.listdir(tmp_path) == [FILE_NAME]


# --- views ---


def test_each_value_says_where_it_comes_from(begin: Begin) -> None:
    policies = begin()
    policies.set(FILE.replace("60", "70") + "[tools]\ndeny = ['a']", "alice", 1.0, "why")
    assert origin(policies, "escrow.hold_for_s") == ("live", None, "alice")
    assert origin(policies, "escrow.claim_after_s") == ("file", 4, None)
    assert origin(policies, "escrow.ping_s") == ("file", 5, None), "also where the file says the default"
    assert origin(policies, "escrow.max_items") == ("default", None, None)
    assert origin(policies, "rule") == ("file", 6, None) and policies.rule_line(0) == 6
    policies.set("[[rule]]\ntools = ['y']", "bob", 2.0)
    assert origin(policies, "rule") == ("live", None, "bob") and policies.rule_line(0) is None
    assert origin(policies, "escrow.hold_for_s") == ("live", None, "bob"), "back to the default is a change of its own"
    policies.set("[[rule]]\ntools = ['y']\n[escrow]\nping_s = 3", "carol", 3.0)
    assert origin(policies, "rule") == ("live", None, "bob"), "carol did not change it"


texts = st.sampled_from(["", FILE, FILE.replace("60", "70"), "[tools]\ndeny = ['a', 'b']", "[[rule]]\nservers = ['s']\ntaint = 'off'", "passthrough = []"])


@given(texts, st.lists(texts, max_size=4))
def test_the_running_text_loads_to_the_running_version_whatever_was_set(file: str, changes: list[str]) -> None:
    policies = Policies(load(file))
    for number, text in enumerate(changes):
        policies.set(text, "alice", float(number))
        assert policies.current.version == load(text).version
    assert load(policies.text).version == policies.current.version


# --- proposals ---


def test_a_proposal_waits_and_changes_nothing_until_a_person_accepts_it(begin: Begin) -> None:
    policies = begin()
    before = policies.current
    proposal = policies.propose("[judging]\non_hostile = 'refuse'", "token agent", "seen attacks", 1.0)
    assert policies.current is before and proposal.state == "waiting" and policies.status()["policy_proposals"] == 1
    assert "+on_hostile" in policies.diff(proposal) and "-" not in [line[:1] for line in policies.diff(proposal).splitlines()[2:]]
    again = begin()
    assert again.proposals == (proposal,), "it waits over a restart too"
    after = again.accept(proposal.id, "alice", "agreed", 2.0, against=again.current.version)
    assert after.judging.on_hostile == "refuse" and after.version == proposal.version and after.escrow == before.escrow and after.rule == before.rule
    assert origin(again, "judging.on_hostile") == ("live", None, "alice")
    assert (again.proposals[0].state, again.proposals[0].decided_by, again.proposals[0].reason) == ("accepted", "alice", "agreed")
    with pytest.raises(PolicyRefused, match="accepted already, by alice"):
        again.accept(proposal.id, "bob", "me too", 3.0)


def test_a_rejected_proposal_is_over(begin: Begin) -> None:
    policies = begin()
    proposal = policies.propose({"escrow.hold_for_s": None}, "agent", "why", 1.0)
    assert policies.reject(proposal.id, "alice", "no", 2.0).state == "rejected"
    with pytest.raises(PolicyRefused, match="rejected already"):
        policies.accept(proposal.id, "alice", "yes", 3.0)
    assert policies.current.escrow.hold_for_s == 60 and begin().proposals[0].reason == "no"
    with pytest.raises(PolicyRefused, match="no such proposal"):
        policies.reject("pp-0000000000", "alice", "no", 2.0)


def test_a_proposal_is_carried_out_on_what_runs_by_then(begin: Begin) -> None:
    policies = begin()
    proposal = policies.propose({"escrow.hold_for_s": 1.0}, "agent", "why", 1.0)
    seen = policies.current.version
    policies.set(FILE + "[tools]\ndeny = ['rm']", "alice", 2.0)
    with pytest.raises(PolicyRefused, match="changed meanwhile"):
        policies.accept(proposal.id, "alice", "yes", 3.0, against=seen)
    assert policies.proposals[0].state == "waiting"
    after = policies.accept(proposal.id, "alice", "yes", 3.0, against=policies.current.version)
    assert after.escrow.hold_for_s == 1 and after.denies("rm")


def test_a_proposal_that_no_longer_fits_changes_nothing(begin: Begin) -> None:
    trial = "[judging]\ntrial = true\non_unsure = 'pass'\n"
    policies = begin(trial)
    proposal = policies.propose("[judging]\non_hostile = 'pass'", "agent", "why", 1.0)
    policies.set("", "alice", 2.0)
    with pytest.raises(PolicyError, match="trials only"):
        policies.diff(proposal)
    with pytest.raises(PolicyError, match="trials only"):
        policies.accept(proposal.id, "alice", "yes", 3.0)
    assert policies.current == Policy() and policies.proposals[0].state == "waiting"


@pytest.mark.parametrize(
    "changes, said",
    [
        ("", "changes nothing"),
        ({}, "changes nothing"),
        ("[escrow]\nhold_for_s = 60", "changes nothing"),
        ("[escrow", "line 1"),
        ("[escrow]\nhold_fr_s = 1", "hold_for_s"),
        ({"escrow.hold_for_s": "x"}, "escrow.hold_for_s"),
        ({"escrow": 1}, "escrow"),
        ({"escrow.hold_for_s.x": 1}, "a value, not a table"),
        ({"": 1}, "no such key"),
        ({"a": object()}, "no such key"),
        ({"rule": [{"tools": ["a"], "x": 1}]}, "rule.0.x"),
        ("#" * (MAX_CHARS + 1), "longer than"),
        ("a." * 5000 + "b = 1", "nested too deeply"),
        ("x = " + "[" * 10000, "nested too deeply"),
    ],
)
def test_a_proposal_that_cannot_be_is_refused_at_once(begin: Begin, changes: object, said: str) -> None:
    policies = begin()
    with pytest.raises(PolicyError, match=said):
        policies.propose(changes, "agent", "why", 1.0)  # type: ignore[arg-type]
    assert policies.proposals == ()


def test_proposals_are_bounded_for_each_and_for_all_and_the_same_one_is_one(begin: Begin) -> None:
    policies = begin(FILE, None)
    first = policies.propose({"escrow.hold_for_s": 1.0}, "agent 0", "why", 1.0)
    assert policies.propose({"escrow.hold_for_s": 1.0}, "agent 0", "why again", 2.0) is first
    for number in range(1, MAX_WAITING_EACH):
        policies.propose({"escrow.hold_for_s": 1.5 + number}, "agent 0", "why", 1.0)
    with pytest.raises(PolicyRefused, match="too many"):
        policies.propose({"escrow.hold_for_s": 100.0}, "agent 0", "why", 1.0)
    for number in range(MAX_WAITING_EACH, MAX_WAITING):
        policies.propose({"escrow.hold_for_s": 1.5 + number}, f"agent {number // 4}", "why", 1.0)
    with pytest.raises(PolicyRefused, match="too many"):
        policies.propose({"escrow.hold_for_s": 100.0}, "another", "why", 1.0)
    policies.reject(first.id, "alice", "no", 2.0)
    policies.propose({"escrow.hold_for_s": 100.0}, "another", "why", 1.0)
    for proposal in policies.proposals:
        if proposal.state == "waiting":
            policies.reject(proposal.id, "alice", "no", 2.0)
    assert len(policies.proposals) == MAX_DECIDED
