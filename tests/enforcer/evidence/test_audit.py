"""`holdfast audit`: exit codes, and what a person sees. No daemon runs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from enforcer.cli import audit
from enforcer.cli.app import main
from enforcer.evidence import keys
from enforcer.evidence.files import folder_of
from enforcer.store import Store
from escrow.call import Kind, Transport
from escrow.evidence.entry import Judged, Stopped
from escrow.item import Item, Payload, State
from escrow.verdict import Finding, Reason, Verdict
from tests.enforcer.evidence.logs import one_segment, opened, written

ITEM = Item(
    "hf-0", State.HELD, Kind.TOOL_CALL, "t", "tools/call", "s", "p", None, Transport.SESSION, 1, "00" * 32, "00" * 32, 2, "v", 0.0, 9e9, ()
)  # fmt: skip
HOSTILE = "ls\x1b[31m\u202e[bold]x[/bold]\n"


def run(monkeypatch: pytest.MonkeyPatch, state: Path, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["holdfast", "audit", *args, "--state-dir", str(state)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    written(tmp_path / "state", 3)
    log = opened(tmp_path / "state")
    verdicts = (Verdict("scanner", Finding.HOSTILE, 0.9, (Reason("rule.x", "why"),)),)
    log.record(Judged("to-client", "tools/call", HOSTILE, "port-1", "local:uid=0", None, None, b"{}", verdicts, "hold", "hostile", "v", item="hf-1"))
    log.close()
    return tmp_path / "state"


def test_tail_shows_the_last_entries_and_no_control_character_of_anybodys(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, state, "tail", "-n", "2") == 0
    second, third = capsys.readouterr().out.splitlines()
    assert "enforcing" in second and "why=event 2" in second
    assert "scanner:HOSTILE" in third and "tool=ls\\u{1b}[31m\\u{202e}[bold]x[/bold]\\n" in third and "\x1b" not in third


def test_a_name_cannot_pass_for_another_value_of_its_entry() -> None:
    line = audit._line({"seq": 1, "at": "t", "event": "decided", "tool": "x  by=root  why=fine" + "y" * 999, "by": "clock"})
    assert 'tool="x  by=root  why=fineyyy' in line and line.endswith("by=clock") and len(line) < 400


def test_tail_as_json_is_one_list(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, state, "tail", "--json") == 0
    out = capsys.readouterr().out
    assert [entry["seq"] for entry in json.loads(out)] == [0, 1, 2, 3] and out.isascii()


def test_tail_goes_on_over_an_entry_that_cannot_be_read(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = one_segment(state)
    path.write_bytes(path.read_bytes().replace(b"event 1", b"event 7"))
    assert run(monkeypatch, state, "tail") == 0
    assert "cannot be read" in capsys.readouterr().out.splitlines()[1]


def test_a_sound_log_is_0_and_the_person_is_told_to_keep_the_key(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, state, "verify") == 0
    out = capsys.readouterr().out
    assert "sound  4 entries under 3 checkpoints" in out and "Keep `holdfast audit key` elsewhere" in out


def test_the_key_that_is_printed_is_the_key_that_verifies(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, state, "key") == 0
    key = capsys.readouterr().out.strip()
    keys.key_file(state).unlink()  # the checker needs the log's own files only
    assert run(monkeypatch, state, "verify", "--key", key, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sound"] and found["entries"] == found["signed"] == 4 and found["problem"] is None and found["key"] == key
    assert run(monkeypatch, state, "verify") == 1, "without a key there is nothing to hold it against"


def test_a_bad_entry_is_1_and_named(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = one_segment(state)
    path.write_bytes(path.read_bytes().replace(b"event 1", b"event 7"))
    assert run(monkeypatch, state, "verify") == 1
    assert "NOT SOUND  entry 1 in entries-0000000000000000: it is not what it was when it was written" in capsys.readouterr().out
    assert run(monkeypatch, state, "verify", "--json") == 1
    assert json.loads(capsys.readouterr().out)["problem"]["entry"] == 1


def test_a_strange_files_name_is_escaped(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (folder_of(state) / "\x1b[31mx").touch()
    assert run(monkeypatch, state, "verify") == 1
    assert "\\u{1b}[31mx" in capsys.readouterr().out


def test_an_unsigned_tail_is_1_and_0_where_it_is_allowed(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    log = opened(state)
    log.record(Judged("to-client", "tools/call", "t", "s", "p", None, None, b"{}", (), "release", "scanner only", "v"))
    assert run(monkeypatch, state, "verify") == 1
    assert "1 entries past the last checkpoint, which covers 4" in capsys.readouterr().out
    assert run(monkeypatch, state, "verify", "--allow-tail") == 0
    assert "4 entries under 3 checkpoints, then 1 not signed yet" in capsys.readouterr().out
    log.close()


def test_checkpoints_kept_elsewhere_are_found_among_other_lines(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal"
    journal.write_text("ready\n" + "".join(written(state, 2)) + "bye\n")
    assert run(monkeypatch, state, "verify", "--since", str(journal)) == 0
    assert "1 checkpoints kept elsewhere agree" in capsys.readouterr().out
    journal.write_text(journal.read_text().replace("\n6\n", "\n7\n"))
    assert run(monkeypatch, state, "verify", "--since", str(journal)) == 1
    assert "is not signed by this key" in capsys.readouterr().out


@pytest.mark.parametrize(
    "args", [("verify", "--key", "nonsense"), ("verify", "--since", "/nonexistent"), ("export",), ("export", "--json", "--proof", "1"), ("tail", "-n", "0")]
)
def test_wrong_usage_is_2(args: tuple[str, ...], state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, state, *args) == 2


def test_a_file_without_a_checkpoint_of_this_log_is_wrong_usage(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "journal").write_text("ready\n")
    assert run(monkeypatch, state, "verify", "--since", str(tmp_path / "journal")) == 2


@pytest.mark.parametrize("command", ["tail", "verify", "key", "export --json", "export --proof 0"])
def test_without_a_log_it_is_1_and_said(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, tmp_path, *command.split()) == 1
    assert "holdfast: there is no evidence" in capsys.readouterr().err


def test_entries_are_exported_as_they_are(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, state, "export", "--json", "-o", str(tmp_path / "out")) == 0
    rows = (tmp_path / "out").read_bytes().splitlines()
    assert [json.loads(row)["seq"] for row in rows] == [0, 1, 2, 3]
    assert all(row in one_segment(state).read_bytes() for row in rows)


def test_a_proof_is_written_to_a_file_or_standard_output(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(monkeypatch, state, "export", "--proof", "2", "-o", str(tmp_path / "out")) == 0
    assert (tmp_path / "out").read_text().startswith("c2sp.org/tlog-proof@v1\nextra ")
    assert run(monkeypatch, state, "export", "--proof", "9", "-o", str(tmp_path / "none")) == 1
    assert not (tmp_path / "none").exists() and b"no proof of entry 9 yet" in capfdbinary.readouterr().err


def test_a_message_is_told_by_its_commitment_until_its_item_is_shredded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state, file = tmp_path / "state", tmp_path / "message"
    store = Store(state)
    held = replace(ITEM, id="hf-1")
    secret = store.put(held, Payload(b"the message"))
    log = opened(state)
    for item, salt in ((None, None), ("hf-1", secret)):
        log.record(Judged("to-client", "tools/call", "t", "s", "p", None, None, b"the message", (), "hold", "unsure", "v", item=item, salt=salt))
    log.record(Stopped("x"))
    file.write_bytes(b"the message")
    assert [run(monkeypatch, state, "match", str(index), str(file)) for index in (0, 1)] == [0, 0], "beside an open store"
    file.write_bytes(b"another message")
    assert [run(monkeypatch, state, "match", str(index), str(file)) for index in (0, 1)] == [1, 1]
    store.shred(replace(held, state=State.SHREDDED))
    file.write_bytes(b"the message")
    capsys.readouterr()
    assert [run(monkeypatch, state, "match", str(index), str(file)) for index in (0, 1, 2, 3)] == [0, 1, 1, 1]
    err = capsys.readouterr().err
    for words in ("nobody can tell any more", "entry 2 is not about a message", "the log has no entry 3"):
        assert words in err
    log.close()
    store.close()
