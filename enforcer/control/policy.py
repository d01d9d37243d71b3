"""What people and supervising agents can do to the running policy, from either socket."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from enforcer.control import asks
from enforcer.policies import Policies, Proposal
from escrow.policy import PolicyError


def answer(policies: Policies, ask: Any, by: str, now: float) -> Any:
    """A person's command. Raises PolicyError, PolicyRefused."""
    match ask:
        case asks.PolicyShow():
            return shown(policies, ask.origin)
        case asks.PolicySet():
            was = policies.current.version
            return {"version": policies.set(ask.text, by, now, ask.why, ask.against).version, "was": was}
        case asks.PolicyProposals():
            return [{**proposal.to_json(), **_consequence(policies, proposal)} for proposal in policies.proposals]
        case asks.PolicyAccept():
            was = policies.current.version
            return {"version": policies.accept(ask.id, by, ask.why, now, ask.against).version, "was": was}
        case asks.PolicyReject():
            return policies.reject(ask.id, by, ask.why, now).to_json()
    raise AssertionError(type(ask))


def shown(policies: Policies, origin: bool) -> dict[str, Any]:
    """text: the policy as TOML, without what is default. rule_lines: of each rule in the file; None: a live change."""
    current = policies.current
    found: dict[str, Any] = {
        "version": current.version,
        "policy": current.model_dump(mode="json"),
        "text": policies.text,
        "rule_lines": [policies.rule_line(index) for index in range(len(current.rule))],
        "live_changes": [asdict(change) for change in policies.changes],
        "set_aside": [asdict(change) for change in policies.set_aside],
    }
    if origin:
        found["origins"] = [asdict(origin) for origin in policies.origins()]
    return found


def _consequence(policies: Policies, proposal: Proposal) -> dict[str, Any]:
    """What accepting it now would change; why it cannot be, where it no longer fits."""
    if proposal.state != "waiting":
        return {"diff": None, "unfit": None, "now": policies.current.version}
    try:
        return {"diff": policies.diff(proposal), "unfit": None, "now": policies.current.version}
    except PolicyError as error:
        return {"diff": None, "unfit": str(error), "now": policies.current.version}
