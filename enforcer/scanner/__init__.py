"""The scanner: unpacking (escrow), rules, classifier; in the relay for what was seen before, in workers for the rest.

document ─▶ judge.Scanner ─▶ facts.Facts (unpack, rules, windows; remembered) ─▶ model.Model ─▶ head.Head ─▶ Verdict
daemon: judge.Scanner.quick, pool.WorkerPool ─ frames ─ worker.serve: judge.Scanner.judge
CLI: scan.scan_text, scan.scan_lines
"""
