"""Local addresses, asked of a real routing table."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from enforcer.kernel import route
from tests.enforcer.helper.world import A_IP4, A_IP6, B_IP4, B_IP6, join, net

pytestmark = pytest.mark.bpf


def test_only_the_namespaces_own_addresses_are_local_and_each_has_its_interface() -> None:
    with net("a") as a, net("b") as b:
        join(a, b)
        veth = a.run(lambda: socket.if_nametoindex("veth0"))
        with a.run(route.open_socket) as routes:
            found = {
                text: route.local_interface(routes, ipaddress.ip_address(text))
                for text in ("127.0.0.1", "127.255.0.9", "::1", A_IP4, A_IP6, B_IP4, B_IP6, "0.0.0.0", "::", "192.0.2.1", "224.0.0.1", "ff02::1", "10.77.0.255")
            }
    assert {text: interface for text, interface in found.items() if interface is not None} == {
        "127.0.0.1": 1, "127.255.0.9": 1, "::1": 1, A_IP4: veth, A_IP6: veth,
    }  # fmt: skip
