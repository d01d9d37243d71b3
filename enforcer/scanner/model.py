"""The classifier: MiniLM-L6 from the `stackone-defender` wheel (Apache-2.0, int8 ONNX), read directly, one window at a time.

Owns the session, the tokenizer and what comes out of them: the two heads' logits and the pooled embedding that our own
head (`head.py`) reads. A window is scored alone and unpadded: the weights are quantised dynamically, so in a batch a window's score
would depend on its neighbours, which an attacker chooses; on one thread a batch is no faster (measured).

All files are opened by `load()`. `embed()` opens none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime
    import tokenizers
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

MAX_TOKENS = 256
"""Longest input the weights were trained on, with the two special tokens."""

OVERLAP_TOKENS = 32
EMBEDDING = 384
POOLED = "/Div_output_0"
"""Name of the mean-pooled sentence embedding inside the graph."""


class ModelMissing(RuntimeError):
    """The weights are not installed or are not the ones this code knows. `str()` is our text."""


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field (https://protobuf.dev/programming-guides/encoding/)."""
    size, head = len(payload), bytearray([number << 3 | 2])
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + payload


def with_pooled_output(weights: bytes) -> bytes:
    """The same ONNX model with the pooled embedding as a second output.

    Protobuf merges repeated occurrences of an embedded message, so that appending
    ModelProto.graph{output{name}} (fields 7, 12, 1 of onnx.proto) adds an output without rewriting the file.
    """
    return weights + _field(7, _field(12, _field(1, POOLED.encode())))


def model_folder() -> Path:
    """Where the wheel keeps its weights. The package itself is never imported. Raises ModelMissing."""
    spec = find_spec("stackone_defender")
    if spec is None or spec.origin is None:
        raise ModelMissing("the package stackone-defender, which carries the classifier's weights, is not installed")
    folder = Path(spec.origin).parent / "models" / "minilm-multihead-v5"
    if not (folder / "model_quantized.onnx").is_file():
        raise ModelMissing("the installed stackone-defender does not carry the weights minilm-multihead-v5")
    return folder


@dataclass(frozen=True, slots=True)
class Model:
    """Loaded weights. Not to be used by two threads at once."""

    session: onnxruntime.InferenceSession
    tokenizer: tokenizers.Tokenizer

    def embed(self, text: str) -> list[Vector]:
        """Features of every 256-token part of `text`: 384 embedding values, then the logits of both heads."""
        import numpy as np

        # A lone surrogate is no text to the tokenizer.
        encoding = self.tokenizer.encode(text.encode("utf-8", "replace").decode("utf-8"), add_special_tokens=False)
        ids: list[int] = encoding.ids
        room = MAX_TOKENS - 2
        vectors: list[Vector] = []
        start = 0
        while True:
            part = [101, *ids[start : start + room], 102]  # [CLS] … [SEP]
            batch = np.array([part], dtype=np.int64)
            logits, pooled = self.session.run(None, {"input_ids": batch, "attention_mask": np.ones_like(batch)})
            vectors.append(np.concatenate([pooled[0], logits[0]]).astype(np.float32))
            if start + room >= len(ids):
                return vectors
            start += room - OVERLAP_TOKENS


def load() -> Model:
    """Open the weights. Raises ModelMissing."""
    # onnxruntime's Linux wheels (seen in 1.32) send usage events to their maker from a thread of their own, ten seconds after a session is
    # made; `disable_telemetry_events()` does not stop that, this variable does, if it is set before the import (both seen with strace).
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime
    import tokenizers

    folder = model_folder()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(with_pooled_output((folder / "model_quantized.onnx").read_bytes()), options, providers=["CPUExecutionProvider"])
    if [output.name for output in session.get_outputs()] != ["logits", POOLED]:
        raise ModelMissing("the installed weights are not the ones this version knows")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    model = Model(session, tokenizer)
    model.embed("warm up")
    return model
