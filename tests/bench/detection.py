"""Recall and false positives of the scanner, set by set, through the code of `holdfast scan`.

    python -m tests.bench.detection [--full]

Positives are HOSTILE and UNSURE together: both hold. Benign figures come from a part that nothing is trained or tuned on;
the shipped head has learnt from kin
of these attacks, so that the honest figures for an unknown family are those of `tests.bench.train --leave-out`.
Without the development data, documentation alone is measured.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from itertools import groupby

from enforcer.scanner.scan import scan_lines
from escrow.scanner_settings import ScannerSettings
from escrow.verdict import Finding
from tests.bench import corpus

PER_SET = 120
"""Texts of a set in the short run."""

PER_DOCUMENTATION = 400
MANUALS = 500
DOCUMENTATION_GOAL = 0.03
TOOL_OUTPUT_GOAL = 0.01


def samples(full: bool) -> list[corpus.Sample]:
    """What is measured: the first texts of every set, in an order that is always the same; benign ones of the part for measuring."""
    folder = corpus.data_folder()
    everything = [sample for sample in (corpus.development(folder) if folder else []) if sample.hostile or sample.part == "measure"]
    everything.sort(key=lambda sample: (sample.family, corpus.bucket(sample.text + "order"), sample.text))
    kept: list[corpus.Sample] = []
    for family, rows in groupby(everything, key=lambda sample: sample.family):
        kept.extend(list(rows)[: None if full else PER_SET * (4 if family in corpus.TOOL_OUTPUTS else 1)])
    documents = [sample for sample in corpus.documentation(MANUALS) if sample.part == "measure"]
    return kept + documents[: None if full else PER_DOCUMENTATION]


def run(full: bool = False) -> list[dict[str, object]]:
    """One row a figure: {id, value, unit, goal, met}; goal and met are None where nothing is promised."""
    chosen = samples(full)
    lines = (json.dumps({"text": sample.text}) for sample in chosen)
    held: dict[tuple[str, bool], list[bool]] = defaultdict(list)
    for sample, verdict in zip(chosen, scan_lines(lines, ScannerSettings()), strict=True):
        held[sample.family, sample.hostile].append(verdict.finding is not Finding.CLEAN)
    rows = [_row(f"detection.{'recall' if hostile else 'false-positives'}.{family}", found, None) for (family, hostile), found in sorted(held.items())]
    documents = [flag for (family, _), found in held.items() if family.startswith("docs_") for flag in found]
    outputs = [flag for (family, _), found in held.items() if family in corpus.TOOL_OUTPUTS for flag in found]
    if documents:
        rows.append(_row("detection.false-positives.documentation", documents, DOCUMENTATION_GOAL))
    if outputs:
        rows.append(_row("detection.false-positives.tool-outputs", outputs, TOOL_OUTPUT_GOAL))
    return rows


def _row(name: str, found: list[bool], goal: float | None) -> dict[str, object]:
    value = sum(found) / len(found)
    return {"id": name, "value": round(value, 4), "unit": f"share of {len(found)}", "goal": goal, "met": None if goal is None else value <= goal}


if __name__ == "__main__":
    for row in run("--full" in sys.argv[1:]):
        print(f"{row['id']:60} {row['value']:8} {row['unit']:16} goal {row['goal']} met {row['met']}")
