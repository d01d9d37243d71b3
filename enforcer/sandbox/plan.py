"""What a keeper of twins is started with: whose twins, where they lie, and what is covered from it. Light, since the helper imports it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from escrow.policy import Policy
from escrow.sandbox.settings import SandboxSettings


@dataclass(frozen=True, slots=True)
class KeeperPlan:
    """servers: whose twins. folder: of templates and twins, root's own. hidden: files and folders that it is not to see."""

    servers: Mapping[str, SandboxSettings]
    folder: Path
    hidden: tuple[Path, ...] = ()


def plan_for(policy: Policy, state_dir: Path) -> KeeperPlan | None:
    """What a policy asks for; None where it names no twin. The store, and the files of keys, are hidden."""
    servers = {name: table.sandbox for name, table in policy.servers.items() if table.sandbox is not None}
    bearer, jury = policy.principal.bearer, policy.jury
    keys = [
        None if policy.tls is None else policy.tls.key,
        None if bearer is None else bearer.key_file,
        None if jury is None else jury.api_key_file,
    ]
    return KeeperPlan(servers, state_dir / "sandbox", (state_dir, *(Path(key) for key in keys if key is not None))) if servers else None
