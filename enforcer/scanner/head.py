"""Our own head on the model's embedding: a small perceptron, trained by `train.py`, that separates an order to the agent from
documentation, tool output and talk about such orders.

Owns `head.json` and the arithmetic from a window's features to logits, and from the worst window to a score.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Head:
    """hidden, output: weights over standardised features. base, slope: the threshold in logits, base + slope · log2(windows)."""

    mean: Array
    scale: Array
    hidden: Array
    hidden_bias: Array
    output: Array
    output_bias: float
    base: float
    slope: float

    def logit(self, features: Array) -> float:
        """How much one window looks like an order to the agent."""
        inner = np.maximum(((features - self.mean) / self.scale) @ self.hidden + self.hidden_bias, 0)
        value = float(inner @ self.output) + self.output_bias
        return value if math.isfinite(value) else 30.0

    def threshold(self, windows: int) -> float:
        """The logit at which a message of so many windows scores 0.5: a long text has more chances to look odd once."""
        return self.base + self.slope * math.log2(max(1, windows))

    def score(self, logit: float, windows: int) -> float:
        """0.0 … 1.0."""
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit - self.threshold(windows)))))


def _array(text: str, *shape: int) -> Array:
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32).reshape(shape)


def load() -> Head:
    """The weights of the package. Opens `head.json`."""
    table = json.loads(resources.files("enforcer.scanner").joinpath("head.json").read_text("utf-8"))
    features, units = table["features"], table["units"]
    return Head(
        _array(table["mean"], features),
        _array(table["scale"], features),
        _array(table["hidden"], features, units),
        _array(table["hidden_bias"], units),
        _array(table["output"], units),
        float(table["output_bias"]),
        float(table["base"]),
        float(table["slope"]),
    )
