"""The socket filter in the guarded namespace. Made by the helper while it is in that namespace; the socket stays in it for good."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from enforcer.kernel import attach, libbpf
from enforcer.taps import loading, records
from enforcer.taps.loading import Loaded, LoaderName

CAPTURE_BYTES = 1 << 20
"""Of one segment: all there can be, with room."""
WAKE_BYTES = 64 << 10
_ONE = struct.pack("=I", 1)


class WireTap:
    """Loaded and attached to every interface of the namespace the calling thread is in, those that come later too."""

    def __init__(self, ports: Iterable[int], loader: LoaderName = "libbpf", ring_bytes: int = loading.RING_BYTES, wake_bytes: int = WAKE_BYTES) -> None:
        """Raises Missing, KernelError, BpfError."""
        self.loaded: Loaded = loading.load("tap", loader, ring_bytes)
        self._ports: set[int] = set()
        try:
            self.limit(CAPTURE_BYTES, wake_bytes)
            self.watch(ports)
            self._socket = attach.socket_filter(self.loaded.programs["tap"])
        except BaseException:
            self.loaded.close()
            raise

    def watch(self, ports: Iterable[int]) -> None:
        """From now on these ports and no others; at most 256."""
        wanted = set(ports)
        for port in wanted - self._ports:
            libbpf.map_update(self.loaded.maps["tap_ports"], struct.pack("=I", port), _ONE)
        for port in self._ports - wanted:
            libbpf.map_delete(self.loaded.maps["tap_ports"], struct.pack("=I", port))
        self._ports = wanted

    def limit(self, capture_bytes: int, wake_bytes: int = WAKE_BYTES) -> None:
        """How much of each segment is captured, and how much may lie unread before the reader is woken (0: at once)."""
        loading.write_settings(self.loaded, "tap_settings", records.TapSettings(capture_bytes, wake_bytes))

    def close(self) -> None:
        self._socket.close()
        self.loaded.close()
