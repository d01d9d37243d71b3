"""What every test shares: the marks for things a machine may lack, and the closing account of what was skipped."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.summary import Skips, closing

os.environ.pop("COLUMNS", None)  # xdist's workers set it; what is printed here is as for a pipe
REAL = Path(__file__).parent / "real"
MARKS = {
    "root": "needs root",
    "bpf": "needs root, BPF and network namespaces",
    "npm": "needs the npm packages of tests/real",
    "runsc": "needs gVisor's runsc",
}
_skips = Skips()
_shown: list[str] = []
"""What tests want read whether they pass or not (`record_property("shown", text)`)."""


def _lacking() -> dict[str, str]:
    """Mark → why tests that carry it cannot run here. Empty where everything is present."""
    lacks: dict[str, str] = {}
    if os.geteuid() != 0:
        lacks["root"] = "not root"
        lacks["bpf"] = "not root"
    elif not Path("/sys/kernel/btf/vmlinux").exists():
        lacks["bpf"] = "the kernel has no BTF (/sys/kernel/btf/vmlinux)"
    if not (REAL / "node_modules" / "@modelcontextprotocol" / "sdk").is_dir():
        lacks["npm"] = "npm packages are not installed (npm ci --prefix tests/real)"
    if shutil.which("runsc") is None:
        lacks["runsc"] = "runsc is not installed"
    return lacks


def pytest_configure(config: pytest.Config) -> None:
    for mark, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{mark}: {meaning}")


GROUPS = {"real": ("real", "demo"), "machine": ("bpf", "faults", "mcp_server", "enforcer/helper", "enforcer/kernel", "enforcer/privilege")}
"""Tests that start real instances or look at the machine, by folder: those of a group run one after the other, in one worker, beside the others."""


def _group_of(item: pytest.Item) -> str | None:
    for group, folders in GROUPS.items():
        if any(item.path.is_relative_to(Path(__file__).parent / folder) for folder in folders):
            return group
    return "machine" if any(item.get_closest_marker(mark) is not None for mark in ("root", "bpf")) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacks = _lacking()
    for item in items:
        if (group := _group_of(item)) is not None:
            item.add_marker(pytest.mark.xdist_group(group))
        for mark, why in lacks.items():
            if item.get_closest_marker(mark) is not None:
                item.add_marker(pytest.mark.skip(reason=why))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _shown.extend(str(value) for name, value in report.user_properties if name == "shown" and report.when == "call")
    if report.skipped and isinstance(report.longrepr, tuple):
        _skips.add(report.longrepr[2])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    def count(*outcomes: str) -> int:
        return sum(len(terminalreporter.stats.get(outcome, [])) for outcome in outcomes)

    for text in _shown:
        terminalreporter.write_line(text)
    terminalreporter.write_sep("=", "account")
    for line in _skips.lines():
        terminalreporter.write_line(line)
    terminalreporter.write_line(closing(count("passed"), count("failed", "error"), count("skipped")))
