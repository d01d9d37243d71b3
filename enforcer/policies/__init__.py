"""The running policy in the daemon: the file, the live changes recorded over it, and the changes that wait for a person.

`holder`: the running policy and every way to change it. `kept`: what the state folder keeps. `proposals`: what others ask for.
"""

from enforcer.policies.holder import FIXED, Origin, Policies
from enforcer.policies.kept import Change
from enforcer.policies.proposals import PolicyRefused, Proposal

__all__ = ["FIXED", "Change", "Origin", "Policies", "PolicyRefused", "Proposal"]
