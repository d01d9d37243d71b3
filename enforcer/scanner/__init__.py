"""The scanner: of what a server says (unpacking, rules, classifier) and of what a client sends (secrets, canaries, whom it names).

document ─▶ judge.Scanner ─▶ facts.Facts (unpack, rules, windows; remembered) ─▶ model.Model ─▶ head.Head ─▶ Verdict
         └▶ outgoing.Outgoing ─▶ unpack, secret_rules.SecretRules, escrow.canary, escrow.identifiers ─▶ Examined
daemon: judge.Scanner.quick, outgoing.Outgoing.quick, pool.WorkerPool ─ frames ─ worker.serve
CLI: scan.scan_text, scan.scan_lines
"""
