"""The second loader's surroundings: which `bcc` is installed, and which headers it would compile against."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from enforcer.kernel.errors import Missing
from enforcer.taps import bcc


def test_pypis_package_of_the_same_name_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModuleType("bcc")
    other.__file__ = "/venv/site-packages/bcc/__init__.py"
    monkeypatch.setitem(sys.modules, "bcc", other)
    module, why = bcc.found()
    assert module is None
    assert "/venv/site-packages/bcc/__init__.py is not the BPF Compiler Collection" in why and "pip uninstall bcc" in why


def test_the_real_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ModuleType("bcc")
    real.BPF = SimpleNamespace(load_func=None)  # type: ignore[attr-defined]
    real.__version__ = "0.26.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bcc", real)
    assert bcc.found() == (real, "python3-bpfcc 0.26.0")


def test_a_missing_one_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcc", None)
    module, why = bcc.found()
    assert module is None and "apt install python3-bpfcc" in why
    with pytest.raises(Missing, match="python3-bpfcc"):
        bcc.load("tap", 65536)


def test_headers_say_which_they_are() -> None:
    tree, why = bcc.headers()
    assert (tree is not None and tree.is_dir()) or "kheaders" in why or "apt install" in why


def test_headers_in_two_packages_are_put_together(tmp_path: Path) -> None:
    own, common = tmp_path / "linux-headers-1-amd64", tmp_path / "linux-headers-1-common"
    for tree, part in ((own, "include/generated"), (own, "arch/x86/include/generated"), (common, "include/linux"), (common, "arch/x86/include/uapi")):
        (tree / part).mkdir(parents=True)
    (common / "include/linux/kconfig.h").touch()
    with bcc._whole(own):
        whole = Path(os.environ["BCC_KERNEL_SOURCE"])
        assert (whole / "include/linux/kconfig.h").exists() and (whole / "include/generated").is_dir()
        assert sorted(each.name for each in (whole / "arch/x86/include").iterdir()) == ["generated", "uapi"]
    assert not whole.exists() and "BCC_KERNEL_SOURCE" not in os.environ
