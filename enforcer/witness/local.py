"""Which addresses are the guarded machine's own."""

from __future__ import annotations

import ipaddress

_KNOWN_ADDRESSES = 4096


class LocalAddresses:
    """A namespace's own addresses. An address is looked at once."""

    def __init__(self, networks: tuple[str, ...]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._known: dict[str, bool] = {}

    def __contains__(self, address: object) -> bool:
        found = self._known.get(str(address))
        if found is None:
            if len(self._known) > _KNOWN_ADDRESSES:
                self._known.clear()
            plain = ipaddress.ip_address(str(address))
            found = self._known[str(address)] = any(plain in network for network in self._networks)
        return found
