"""The reference for ``cai doctor``: one plain forward pass in float32, nothing batched and nothing cached."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from constitutional_ai.models.local.tokens import NO_CODE, cannot_load


class Reference:
    """A causal language model in a folder of safetensors, or on the hub, in float32."""

    def __init__(self, name: str, path: str | Path) -> None:
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, **NO_CODE)
            self._model = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, use_safetensors=True, **NO_CODE
            ).eval()
        except (OSError, ValueError, SafetensorError) as error:
            raise cannot_load(name, error) from error

    def score(self, context: str, continuation: str) -> float:
        """Return the natural log-probability of the continuation's tokens after those of the context (pitfall 5)."""
        before = self._tokenizer(context)["input_ids"]
        whole = self._tokenizer(context + continuation)["input_ids"]
        # A token that spans both is never scored: the continuation is then tokenised by itself.
        spans = whole[: len(before)] != before
        after = (
            self._tokenizer(continuation, add_special_tokens=False)["input_ids"]
            if spans
            else whole[len(before) :]
        )
        with torch.inference_mode():
            logps_TV = self._model(torch.tensor([before + after])).logits[0].log_softmax(-1)
        start = len(before)
        return sum(float(logps_TV[start + n - 1, token]) for n, token in enumerate(after))

    def greedy(self, context: str, tokens: int) -> str:
        """Return the text of the likeliest next tokens, at most ``tokens``, up to the end of text."""
        ids = self._tokenizer(context)["input_ids"]
        start = len(ids)
        ends = self._model.generation_config.eos_token_id
        with torch.inference_mode():
            while len(ids) < start + tokens:
                token = int(self._model(torch.tensor([ids])).logits[0, -1].argmax())
                if token == ends or (isinstance(ends, list) and token in ends):
                    break
                ids.append(token)
        text: str = self._tokenizer.decode(ids[start:], skip_special_tokens=True)
        return text
