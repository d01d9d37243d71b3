"""The pure core: types, parsing, policy, the gate's table and its decisions.

No sockets, files, clocks, threads or randomness: time and bytes come in as arguments (tests/test_imports.py enforces it).
Types flow one way: bytes → `jsonrpc.Message` → `call.Call` → `verdict.Verdict` → `decision.Decision` → `item.Item` in `gate.Entry`
→ an order that `enforcer.custody` carries out, with the words of `answers` where it is no release.
"""
