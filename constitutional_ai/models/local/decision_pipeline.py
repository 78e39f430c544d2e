"""Answer decision questions by transformers' own pipeline: the reference for servers, and slow.

The pipeline adds two tokens to its tokenizer, and answers one question after another. So it gets a tokenizer and
weights of its own, in float32, which nobody shares.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM
from transformers.pipelines import DecisionPipeline

from constitutional_ai.errors import ModelError
from constitutional_ai.models.abilities import DecisionQuestion, Reading
from constitutional_ai.models.decision_answer import NAME, read_decision, systemone_question
from constitutional_ai.models.local.tokens import NO_CODE, cannot_load, settled_tokenizer


class DecisionReference:
    """transformers' decision pipeline on a folder of safetensors, or on a hub model."""

    def __init__(self, name: str, path: str | Path) -> None:
        """Raises ModelError if the model cannot be loaded, or has no chat template."""
        tokenizer = settled_tokenizer(
            name, path
        )  # the pipeline would answer inside a thought that a template opens
        try:
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, use_safetensors=True, **NO_CODE
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise cannot_load(name, error) from error
        if tokenizer.chat_template is None:
            raise ModelError(f"{name} has no chat template, so it answers no decision questions.")
        self._name, self._alone = name, threading.Lock()
        self._pipeline: Any = DecisionPipeline(model=model.eval(), tokenizer=tokenizer)

    def decide(self, state: str, question: DecisionQuestion) -> Reading:
        """Return the answer, with the probability that its labels hold together over the whole vocabulary.

        Raises ModelError if the labels are no single tokens of this model.
        """
        seen: list[torch.Tensor] = []
        request = {"state": state, "questions": {NAME: systemone_question(question)}}
        with self._alone, torch.inference_mode():
            watch = self._pipeline.model.register_forward_hook(lambda *call: seen.append(call[-1].logits))
            try:
                inputs = self._pipeline.preprocess(request)
                answers = self._pipeline.postprocess(self._pipeline.forward(inputs))
            except ValueError as error:
                raise ModelError(f"{self._name} answers no decision questions: {error}") from None
            finally:
                watch.remove()
            ((prompt, (parsed,)),) = inputs["prompts"]
            labels = self._pipeline.label_token_ids(tuple(parsed.labels))
            mass = float(seen[-1][0, -1].softmax(-1)[labels].sum())  # the pipeline tells only shares of it
        answer = {**answers[NAME], "label_mass": mass}
        usage = {"input_tokens": prompt["input_ids"].shape[-1]}
        return read_decision({"answers": {NAME: answer}, "usage": usage}, question)
