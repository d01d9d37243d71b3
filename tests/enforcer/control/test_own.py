"""Nobody decides for whom they act as, nor for their own token, user, control group or address."""

from __future__ import annotations

import pytest

from enforcer.control.own import Caller, credential_of, why_own
from enforcer.control.tokens import Token
from escrow.principal import from_address, from_authorization, from_process, from_subject
from escrow.supervisor.scopes import Scope

SECRET = "hft_secret"


def caller(*acts_as: str, address: str | None = "192.0.2.9", process: tuple[int, int | None] | None = None) -> Caller:
    return Caller(Token("t", "0" * 64, frozenset({Scope.APPROVE}), acts_as, "root", 0, 1), credential_of(SECRET), address, process)


@pytest.mark.parametrize(
    ("of", "by", "why"),
    [
        (str(from_subject("i", "s")), caller(str(from_subject("i", "s"))), "acts as"),
        (str(from_process(7, 99)), caller("local:uid=7,cgroup=99"), "acts as"),
        (str(from_process(7, 99)), caller("local:uid=7"), "acts as"),
        ("address:192.0.2.1", caller("local:uid=1", "address:192.0.2.1"), "acts as"),
        ("address:::ffff:c000:201", caller("address:192.0.2.1"), "acts as"),
        ("address:2001:db8::1", caller("address:2001:DB8:0::1"), "acts as"),
        (str(from_authorization(b"Bearer hft_secret")), caller(), "same token"),
        (str(from_authorization(b"bearer   hft_secret ")), caller(), "same token"),
        (str(from_process(7, 99)), caller(address="127.0.0.1", process=(7, 5)), "same user"),
        (str(from_process(7, 99)), caller(address="127.0.0.1", process=(8, 99)), "same control group"),
        ("address:192.0.2.9", caller(), "same address"),
        ("address:192.0.2.9", caller(address="::ffff:192.0.2.9"), "same address"),
        ("address:fe80::1", caller(address="fe80::1%eth0"), "same address"),
        (str(from_process(7, 99)), caller(address="127.0.0.1"), "which process"),
        (str(from_process(7, 99)), caller(address=None), "from where"),
        ("address:192.0.2.1", caller(address=None), "from where"),
    ],
)
def test_its_own(of: str, by: Caller, why: str) -> None:
    assert why in (why_own(of, by) or "")


@pytest.mark.parametrize(
    ("of", "by"),
    [
        (str(from_subject("i", "s")), caller(str(from_subject("i", "t")))),
        (str(from_process(7, 99)), caller("local:uid=77", address="127.0.0.1", process=(8, 5))),
        (str(from_process(77, 99)), caller("local:uid=7")),
        (str(from_process(7, 99)), caller("local:uid=7,cgroup=98", address="192.0.2.9")),
        (str(from_process(7, None)), caller(address="127.0.0.1", process=(8, None))),
        (str(from_authorization(b"Bearer other")), caller(address="127.0.0.1", process=(7, 5))),
        (str(from_address("192.0.2.1")), caller()),
    ],
)
def test_anothers(of: str, by: Caller) -> None:
    assert why_own(of, by) is None
