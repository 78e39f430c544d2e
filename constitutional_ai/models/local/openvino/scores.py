"""Log-probabilities of whole continuations from a model that OpenVINO runs.

OpenVINO GenAI gives none for a prompt, so the exported model itself is run beside it: the prefix of all contexts of a
batch is prefilled once, and every continuation follows from a copy of its context's state.

Axes: R rows, Q new tokens, N all tokens so far, K wanted places, V vocabulary.
"""

from __future__ import annotations

import constitutional_ai.models.local.openvino.quiet  # isort: skip  # noqa: F401

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from constitutional_ai.engine.open import common_prefix

FILE = "openvino_model.xml"
WORTH_SHARING = 32
"""Tokens from which a prefix is prefilled once rather than for every context."""


def precisions(precision: str | None) -> dict[str, str]:
    """Return OpenVINO's settings for ``f32`` or ``bf16``, of products and of the cache. None is the faster one here."""
    precision = precision or str(ov.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").to_string())
    # By default OpenVINO keeps keys and values in 8 bits, and the activations that 8-bit weights meet too.
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "KV_CACHE_PRECISION": precision,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }


class Scores:
    """Scores one batch at a time."""

    def __init__(self, folder: Path, precision: str | None) -> None:
        core = ov.Core()
        model = _at_wanted_places(core.read_model(folder / FILE))
        self._request = core.compile_model(model, "CPU", precisions(precision)).create_infer_request()
        self._held: list[int] = []
        self._states: list[Any] = []

    def score(
        self, contexts: Sequence[list[int]], continuations: Sequence[list[list[int]]]
    ) -> list[list[float]]:
        """Return the natural log-probability of each whole continuation after its context. None may be empty."""
        shared = self._prefill_prefix(contexts)
        rows = [context[shared:] for context in contexts]
        width = max(map(len, rows))
        mask_RN = np.array([[1] * (shared + len(r)) + [0] * (width - len(r)) for r in rows])
        last = [i * width + len(row) - 1 for i, row in enumerate(rows)]
        first_RV = self._infer(rows, mask_RN, [shared] * len(rows), np.arange(len(rows)) * (shared == 0), last)
        which = [i for i, many in enumerate(continuations) for _ in many]
        ends = [tokens for many in continuations for tokens in many]
        totals = [float(first_RV[i, tokens[0]]) for i, tokens in zip(which, ends, strict=True)]
        if max(map(len, ends)) > 1:
            starts = [len(contexts[i]) for i in which]
            rest = self._rest([tokens[:] for tokens in ends], mask_RN[which], starts, np.array(which))
            totals = [a + b for a, b in zip(totals, rest, strict=True)]
        scores = iter(totals)
        return [[next(scores) for _ in many] for many in continuations]

    def _rest(
        self, ends: list[list[int]], mask_RN: np.ndarray, starts: list[int], which: np.ndarray
    ) -> list[float]:
        """Return the log-probability of every continuation's tokens after its first."""
        rows = [tokens[:-1] for tokens in ends]
        width = max(map(len, rows))
        new = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        wanted = [
            (i * width + at, tokens[at + 1]) for i, tokens in enumerate(ends) for at in range(len(rows[i]))
        ]
        places, tokens_K = [place for place, _ in wanted], [token for _, token in wanted]
        logps_KV = self._infer(rows, np.concatenate([mask_RN, new], axis=1), starts, which, places)
        logps = iter(logps_KV[np.arange(len(tokens_K)), tokens_K])
        return [float(sum(next(logps) for _ in row)) for row in rows]

    def _prefill_prefix(self, contexts: Sequence[list[int]]) -> int:
        """Set the state to that after the prefix of all contexts, and return the length of the prefix.

        At least one token of every context is left, because the logits after it are wanted.
        """
        length = min(common_prefix(min(contexts), max(contexts)), min(map(len, contexts)) - 1)
        shared = contexts[0][:length]
        known = common_prefix(shared, self._held)
        self._request.reset_state()
        if len(shared) < WORTH_SHARING:
            return 0
        if known >= WORTH_SHARING:
            for state, tensor in zip(self._request.query_state(), self._states, strict=True):
                state.state = ov.Tensor(np.ascontiguousarray(tensor[:, :, :known]))
        else:
            known = 0
        if known and len(shared) - known < WORTH_SHARING:
            return known
        self._infer([shared[known:]], np.ones((1, len(shared)), int), [known], np.zeros(1), [0])
        self._held = shared
        self._states = [np.array(state.state.data) for state in self._request.query_state()]
        return len(shared)

    def _infer(
        self,
        rows: list[list[int]],
        mask_RN: np.ndarray,
        starts: list[int],
        which: np.ndarray,
        places: list[int],
    ) -> np.ndarray:
        """Return log-probabilities (K, V) after the tokens at ``places``, counted through all rows.

        Each row follows row ``which`` of the state, and begins at the position ``starts`` of its text.
        """
        width = max(map(len, rows))
        out = self._request.infer(
            {
                "input_ids": np.array([row + [0] * (width - len(row)) for row in rows]),
                "attention_mask": mask_RN,
                "position_ids": np.array(starts)[:, None] + np.arange(width),
                "beam_idx": which.astype(np.int32),
                "places": np.array(places),
            }
        )
        logits_KV = out["logits"].astype(np.float32)
        shifted = logits_KV - logits_KV.max(-1, keepdims=True)
        logps: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return logps


def _at_wanted_places(model: ov.Model) -> ov.Model:
    """Make the model multiply by the vocabulary at ``places`` only: a long context's logits fill gigabytes."""
    last = next(node for node in reversed(model.get_ordered_ops()) if node.get_type_name() == "MatMul")
    hidden = last.input_value(0)
    size = hidden.get_partial_shape()[2].get_length()
    places = ops.parameter([-1], dtype=ov.Type.i64, name="places")
    places.output(0).get_tensor().set_names({"places"})
    flat = ops.reshape(hidden, ops.constant([-1, size]), special_zero=False)
    picked = ops.gather(flat, places.output(0), ops.constant(0))
    last.input(0).replace_source_output(picked.output(0))
    model.add_parameters([places])
    model.validate_nodes_and_infer_types()
    return model
