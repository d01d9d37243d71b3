"""The policy: one TOML document, safe without any file. Pure: text in, values out.

`tables`: the tables and their keys. `rules`: what differs from tool to tool. `document`: the whole, and which rule a call meets.
`places`: at which line a key stands. `reading`: from text to a policy, with errors that name line and key. `patch`: a policy as
text again, and changes to some of its keys.
"""

from escrow.policy.document import Policy
from escrow.policy.reading import Document, PolicyError, load, read
from escrow.policy.rules import Rule, ToolRules
from escrow.policy.tables import Bearer, Bounds, Escrow, Evidence, Judging, PrincipalRules, Server, ServerTable, Tls, ToolNames

__all__ = [
    "Bearer",
    "Bounds",
    "Document",
    "Escrow",
    "Evidence",
    "Judging",
    "Policy",
    "PolicyError",
    "PrincipalRules",
    "Rule",
    "Server",
    "ServerTable",
    "Tls",
    "ToolNames",
    "ToolRules",
    "load",
    "read",
]
