"""Trains `enforcer/scanner/head.json` and says how it does on a family of attacks that it has not seen.

    python -m tests.bench.train [--leave-out] [--write]

Needs the development data (`corpus.data_folder`) with `attacks_pool.jsonl.gz`. Seeded; about ten minutes on two cores, nearly all of them for
embeddings. Positive texts of many windows are learnt from their two worst windows, since which of them carries the instruction is not
labelled. The threshold comes from benign texts that were not learnt from; `tests.bench.detection` measures on others still.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enforcer.scanner import model
from escrow.windows import windows
from tests.bench import corpus, synthetic

Array = NDArray[np.float32]

HEAD = Path(__file__).resolve().parents[2] / "enforcer/scanner/head.json"
UNITS = 64
EPOCHS = 6
SEEDS = (0, 1, 2)
DROP = 0.3
DECAY = 1e-3
POOL_PER_KIND = 500
MIXED_PER_FAMILY = 700
FAMILY_WEIGHT = 900
"""A family counts as so many texts at most, so that the largest does not decide alone."""

MARGIN = 0.3
"""Logits added to the threshold over what the calibration texts ask for."""

SLOPE_MARGIN = 0.05
"""The same for each doubling of the number of windows: a few hundred documents fix it no better."""


@dataclass(frozen=True, slots=True)
class Text:
    """family: as left out. weight: of each of its windows. part: see `corpus.Sample`. rows: of its windows in the matrix."""

    family: str
    hostile: bool
    kind: str
    weight: float
    part: str
    rows: tuple[int, ...]


def main(leave_out: bool, write: bool) -> None:
    """Extract, train, report."""
    texts, vectors = _extract()
    mean, scale = vectors.mean(0), vectors.std(0) + 1e-6
    standard = ((vectors - mean) / scale).astype(np.float32)
    if leave_out:
        for family in sorted({text.family for text in texts if text.hostile and text.kind == "dev"}):
            scores = _score(_fit(texts, standard, family), standard)
            base, slope = _threshold(texts, scores)
            print(f"left out {family:20} recall {_flagged(texts, scores, base, slope, family):.3f}", flush=True)
    layers = _fit(texts, standard, None)
    base, slope = _threshold(texts, _score(layers, standard))
    print(f"threshold {base + MARGIN:.3f} + {slope + SLOPE_MARGIN:.2f} log2(windows)")
    if write:
        _write(layers, mean, scale, base + MARGIN, slope + SLOPE_MARGIN)


def _family(name: str) -> str:
    short = re.sub(r"^pa_", "", name)
    return next((kin for kin in ("injecagent", "llmail", "satml", "gandalf", "cyberseceval", "asb", "spikee") if kin in short), short)


def _extract() -> tuple[list[Text], Array]:
    folder = corpus.data_folder()
    if folder is None:
        raise SystemExit("the development data is not there: set HOLDFAST_SCANNER_DATA")
    network = model.load()
    known: dict[str, tuple[int, ...]] = {}
    vectors: list[Array] = []
    texts: list[Text] = []

    def add(text: str, family: str, hostile: bool, kind: str, weight: float, part: str = "train") -> None:
        rows: list[int] = []
        for start, end in windows(text):
            piece = text[start:end]
            if piece not in known:
                made = network.embed(piece)
                known[piece] = tuple(range(len(vectors), len(vectors) + len(made)))
                vectors.extend(made)
            rows.extend(known[piece])
        if rows:
            texts.append(Text(family, hostile, kind, weight, part, tuple(rows)))

    rng = random.Random(7)
    development = corpus.development(folder)
    short: dict[str, list[str]] = defaultdict(list)
    for sample in development:
        family = _family(sample.family) if sample.hostile else sample.family
        benign = 3.0 if sample.family in corpus.TOOL_OUTPUTS else 0.7
        add(sample.text, family, sample.hostile, "dev", 4.0 if sample.hostile else benign, "train" if sample.hostile else sample.part)
        if sample.hostile and len(sample.text) < 260:
            short[family].append(sample.text)
    seen = {sample.text for sample in development}
    pool: dict[tuple[str, str], list[str]] = defaultdict(list)
    with gzip.open(folder / "attacks_pool.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["text"] not in seen:
                pool[row["set"], row["sub"]].append(row["text"][:2500])
    for (name, _), rows in sorted(pool.items()):
        for text in rng.sample(rows, min(POOL_PER_KIND, len(rows))):
            add(text, _family(name), True, "pool", 4.0)
            if len(text) < 260:
                short[_family(name)].append(text)
    sentences: list[str] = []
    for sample in corpus.documentation(500):
        add(sample.text, "documentation", False, "docs", 1.0, sample.part)
        if sample.part == "train":
            pieces = (" ".join(piece.split()) for piece in re.split(r"(?<=[.!?])\s+|\n\n+", sample.text[:4000]))
            sentences.extend(piece for piece in pieces if 30 < len(piece) < 200)

    def inside(text: str) -> str:
        return synthetic.wrapped(text, rng.choice(sentences), rng.choice(sentences), rng)

    for text in synthetic.attacks(rng, 2500):
        add(text, "synthetic", True, "synthetic", 1.6)
        add(inside(text), "synthetic", True, "synthetic", 1.6)
    for family, rows in sorted(short.items()):
        for _ in range(MIXED_PER_FAMILY):
            add(inside(rng.choice(rows)), family, True, "mixed", 1.6)
    for text in synthetic.harmless(rng, 1200):
        add(text, "synthetic", False, "synthetic", 0.1)
        add(inside(text), "synthetic", False, "synthetic", 0.1)
    return texts, np.array(vectors, dtype=np.float32)


def _fit(texts: list[Text], standard: Array, without: str | None) -> list[list[Array]]:
    """Perceptrons of several seeds, the first of which only chooses the windows that the others learn the attacks from."""
    benign = [text for text in texts if not text.hostile and text.part == "train"]
    hostile = [text for text in texts if text.hostile and text.family != without]
    sizes = Counter((text.family, text.kind == "mixed") for text in hostile)
    scores: Array | None = None
    layers: list[list[Array]] = []
    for seed in (SEEDS[0], *SEEDS):
        rows = [row for text in benign for row in text.rows]
        weights = [text.weight for text in benign for _ in text.rows]
        split = len(rows)
        for text in hostile:
            chosen, share = list(text.rows), text.weight * min(1.0, FAMILY_WEIGHT / sizes[text.family, text.kind == "mixed"])
            if scores is None:
                share /= len(chosen)
            else:
                ranking = scores
                keep = 1 if text.kind == "mixed" and len(chosen) == 2 else 2
                chosen = sorted(chosen, key=lambda row: -float(ranking[row]))[:keep]
            rows.extend(chosen)
            weights.extend([share] * len(chosen))
        labels = np.zeros(len(rows), np.float32)
        labels[split:] = 1
        trained = _train(standard[rows], labels, np.array(weights, np.float32), seed)
        if scores is None:
            scores = _score([trained], standard)
        else:
            layers.append(trained)
    return layers


def _train(inputs: Array, labels: Array, weights: Array, seed: int) -> list[Array]:
    """One hidden layer, logistic loss, Adam, dropout."""
    rng = np.random.default_rng(seed)
    width = inputs.shape[1]
    drawn = [rng.normal(0, (2 / width) ** 0.5, (width, UNITS)), np.zeros(UNITS), rng.normal(0, width**-0.5, UNITS), np.zeros(1)]
    layer: list[Array] = [part.astype(np.float32) for part in drawn]
    first, second = [np.zeros_like(part) for part in layer], [np.zeros_like(part) for part in layer]
    count, batch, step = len(inputs), 1024, 0
    steps = EPOCHS * (count // batch + 1)
    for _ in range(EPOCHS):
        order = rng.permutation(count)
        for start in range(0, count, batch):
            pick = order[start : start + batch]
            raw = inputs[pick] @ layer[0] + layer[1]
            mask = (rng.random(raw.shape) > DROP).astype(np.float32) / (1 - DROP)
            inner = np.maximum(raw, 0) * mask
            logits = np.clip(inner @ layer[2] + layer[3], -30, 30)
            error = (1 / (1 + np.exp(-logits)) - labels[pick]) * weights[pick] / len(pick)
            back = np.outer(error, layer[2]) * mask * (raw > 0)
            slopes = [inputs[pick].T @ back + DECAY * layer[0], back.sum(0), inner.T @ error + DECAY * layer[2], np.array([error.sum()])]
            step += 1
            rate = 2e-3 * (1 - step / (steps + 1))
            for index, slope in enumerate(slopes):
                first[index] = 0.9 * first[index] + 0.1 * slope
                second[index] = 0.999 * second[index] + 0.001 * slope**2
                move = first[index] / (1 - 0.9**step) / (np.sqrt(second[index] / (1 - 0.999**step)) + 1e-8)
                layer[index] = (layer[index] - rate * move).astype(np.float32)
    return layer


def _score(layers: list[list[Array]], standard: Array) -> Array:
    total = np.zeros(len(standard), np.float32)
    for hidden, bias, output, last in layers:
        total += np.maximum(standard @ hidden + bias, 0) @ output + last
    return (total / len(layers)).astype(np.float32)


def _worst(texts: list[Text], scores: Array) -> tuple[Array, Array]:
    """The highest logit of each text, and log2 of its number of windows."""
    return np.array([scores[list(text.rows)].max() for text in texts]), np.log2([len(text.rows) for text in texts]).astype(np.float32)


def _threshold(texts: list[Text], scores: Array) -> tuple[float, float]:
    """Base from tool outputs (0.8 %), slope from documentation (2.5 %): what README promises, with room."""
    chosen = [text for text in texts if text.part == "calibrate"]
    outputs, _ = _worst([text for text in chosen if text.family in corpus.TOOL_OUTPUTS], scores)
    base = float(np.quantile(outputs, 0.992))
    worst, length = _worst([text for text in chosen if text.family == "documentation"], scores)
    slopes = np.arange(0, 1.5, 0.02)
    return base, float(next((slope for slope in slopes if (worst > base + slope * length).mean() <= 0.025), slopes[-1]))


def _flagged(texts: list[Text], scores: Array, base: float, slope: float, family: str) -> float:
    worst, length = _worst([text for text in texts if text.hostile and text.family == family and text.kind == "dev"], scores)
    return float((worst > base + slope * length).mean())


def _write(layers: list[list[Array]], mean: Array, scale: Array, base: float, slope: float) -> None:
    """The seeds' mean is one perceptron with all their hidden units."""

    def packed(array: Array) -> str:
        return base64.b64encode(array.astype("<f2").tobytes()).decode("ascii")

    table = {
        "features": int(mean.shape[0]),
        "units": UNITS * len(layers),
        "mean": packed(mean),
        "scale": packed(scale),
        "hidden": packed(np.concatenate([layer[0] for layer in layers], axis=1)),
        "hidden_bias": packed(np.concatenate([layer[1] for layer in layers])),
        "output": packed(np.concatenate([layer[2] / len(layers) for layer in layers])),
        "output_bias": float(np.mean([layer[3][0] for layer in layers])),
        "base": round(base, 3),
        "slope": round(slope, 3),
    }
    HEAD.write_text(json.dumps(table, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main("--leave-out" in sys.argv[1:], "--write" in sys.argv[1:])
