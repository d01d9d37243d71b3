"""What bpf/tap.bpf.c and bpf/tls.bpf.c hold: programs by name and kind, maps by name. A test compares it with the sources."""

from __future__ import annotations

from typing import Literal

Source = Literal["tap", "tls"]
ProgramKind = Literal["socket", "uprobe", "raw_tracepoint"]

PROGRAMS: dict[Source, dict[str, ProgramKind]] = {
    "tap": {"tap": "socket"},
    "tls": {
        "ssl_read": "uprobe",
        "ssl_read_ex": "uprobe",
        "ssl_read_done": "uprobe",
        "ssl_write": "uprobe",
        "ssl_write_ex": "uprobe",
        "ssl_write_done": "uprobe",
        "ssl_write_only": "uprobe",
        "ssl_new_done": "uprobe",
        "ssl_free": "uprobe",
        "ssl_shutdown": "uprobe",
        "ssl_set_bio": "uprobe",
        "ssl_set_rbio": "uprobe",
        "ssl_set_wbio": "uprobe",
        "ssl_set_fd": "uprobe",
        "bio_write": "uprobe",
        "process_started": "raw_tracepoint",
        "process_ended": "raw_tracepoint",
    },
}

MAPS: dict[Source, tuple[str, ...]] = {
    "tap": ("tap_settings", "tap_ports", "tap_counters", "tap_ring"),
    "tls": ("tls_settings", "tls_pids", "tls_counters", "tls_calls", "tls_objects", "tls_bios", "tls_ring"),
}
