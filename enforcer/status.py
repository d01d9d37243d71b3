"""What the daemon says of itself."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enforcer.daemon import Daemon


def status(daemon: Daemon) -> dict[str, Any]:
    """What `holdfast status` and the window say of the instance."""
    given = daemon.inherited
    return {
        "mode": given.mode,
        "port": given.port,
        "netns": given.netns,
        "server": given.server,
        "enforcing": daemon.enforcing,
        "why": daemon.why,
        "pid": os.getpid(),
        "started_at": daemon.started,
        "workers": daemon.pool.workers,
        "jury": None if daemon.jury is None else daemon.jury.present,
        "connections": 0 if daemon.listener is None else daemon.listener.connections,
        "counters": asdict(daemon.custody.counters),
        "lost_writes": daemon.custody.lost,
        "locked": None if daemon.custody.locked is None else asdict(daemon.custody.locked),
        "window": daemon.window.status(),
        "canaries": {"watched": len(daemon.canaries.all()), "problem": daemon.canaries.problem},
        "witness": None if (seen := daemon.witness or daemon.watch) is None else seen.status(),
        "observed": None if daemon.observer is None else {"judged": daemon.observer.judged, "not_judged": daemon.observer.not_judged},
        "evidence": {"entries": daemon.log.size, "problem": daemon.log.problem},
        **daemon.policies.status(),
        "policy_path": None if given.policy_path is None else str(given.policy_path),
        "state_dir": str(given.shown_state_dir),
        "weak_principals": given.policy.principal.require == "any",
        "upstream": None if given.upstream is None else f"{given.upstream.host}:{given.upstream.port}",
    }
