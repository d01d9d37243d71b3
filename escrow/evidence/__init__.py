"""The evidence log's pure part: what an entry says, how it is encoded, the RFC 6962 tree over the entries, the signed checkpoint.

No files, clock or key here: `enforcer.evidence` writes, signs and verifies.
"""
