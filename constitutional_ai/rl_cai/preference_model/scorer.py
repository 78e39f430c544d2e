"""Score conversations with a trained preference model (section 4.2; PM-4, PM-6).

It renders conversations with its own chat template, so it may be of another model family than the policy.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.engine.open import open_engine
from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.batching import Batcher
from constitutional_ai.models.chat_template import rendered
from constitutional_ai.models.rendering import escape_messages
from constitutional_ai.records import Conversation, as_messages
from constitutional_ai.runs import layout

SCORE_BATCH = 32
MOST_CHARACTERS = 64
"""Characters for each token of the context: text has 3 to 5, and longer conversations are refused untokenized."""

Outputs = Callable[[list[list[int]]], Any]
"""Returns the scores of tokenized texts, as a tensor of shape (B,)."""


class Scorer:
    """A model with a scalar head, and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, by_engine: Outputs | None = None) -> None:
        self._model, self._tokenizer, self._by_engine = model, tokenizer, by_engine

    def scores(self, conversations: Sequence[Conversation]) -> list[float]:
        """Return one score for each conversation; each ends in the answer that is scored."""
        # The policy's text is hostile: a turn that it forges must not be scored as a real one.
        texts = [
            rendered(self._tokenizer, escape_messages(as_messages(c), self._tokenizer)) for c in conversations
        ]
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        # Neighbours share the most: a beginning where that is computed once, a length where batches are padded.
        alike = sorted(range(len(ids)), key=lambda i: ids[i] if self._by_engine else [len(ids[i])])
        scores = [0.0] * len(ids)
        for start in range(0, len(ids), SCORE_BATCH):
            batch = alike[start : start + SCORE_BATCH]
            for i, score in zip(batch, self._outputs([ids[i] for i in batch]), strict=True):
                scores[i] = float(score)
        return scores

    def _outputs(self, texts: list[list[int]]) -> Any:
        """Return the scores of tokenized texts, as a tensor of shape (B,)."""
        import torch

        if self._by_engine:
            return self._by_engine(texts)
        batch = self._tokenizer.pad({"input_ids": texts}, return_tensors="pt")
        with torch.no_grad():
            return self._forward(batch.to(self._model.device))

    def _forward(self, batch: Any) -> Any:
        """Return the scores of a padded batch of tokens, as a tensor of shape (B,)."""
        return self._model(**batch).logits[:, 0].float()


class PreferenceModel(Scorer):
    """A trained preference model; the sigmoid of the difference of two of its scores is a probability (PM-4).

    Scores of different preference models cannot be compared (PM-6).
    """

    def __init__(self, path: str | Path) -> None:
        """Load the model in folder ``path``.

        Raises ModelError if there is no model, or it does not give a single score.
        """
        model, tokenizer = _load(path)
        super().__init__(model, tokenizer, self._by_engine_of(model))
        self._requests: Batcher[Conversation, float] = Batcher(
            lambda conversations, _: self.scores(conversations),
            size=SCORE_BATCH,
            key=lambda _: 0,
            length=lambda c: sum(len(m.content) for m in c),
        )

    def _by_engine_of(self, model: Any) -> Outputs | None:
        """Return what scores texts by our engine, which takes the weights over; None on a GPU, or if it cannot."""
        engine = open_engine(model, None, set(), fixed=True) if model.device.type == "cpu" else None
        if engine is None:
            return None
        head_1D = model.score.weight.detach()
        return lambda texts: engine.outputs(texts, head_1D)[:, 0]

    async def reward(self, conversation: Conversation) -> float:
        """Return the score of one conversation, computed in one batch with all waiting requests."""
        return await self._requests.ask(conversation)


def tokenizer_of(path: str | Path) -> Any:
    """Load a tokenizer whose chat template never ends with the padding token.

    The head reads the last token that is not padding. If the template ends with an end-of-turn token that is also the
    padding token, append a line break for the head to read instead (the end-of-context token of PM-3).
    """
    from constitutional_ai.training.datasets import load_tokenizer

    tokenizer = load_tokenizer(path)
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    text = tokenizer.apply_chat_template(talk, tokenize=False)
    if tokenizer(text, add_special_tokens=False)["input_ids"][-1] == tokenizer.pad_token_id:
        tokenizer.chat_template += "{{ '\\n' }}"
    return tokenizer


def _load(path: str | Path) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    from constitutional_ai import machine
    from constitutional_ai.models.local.tokens import NO_CODE, cannot_load

    tokenizer = tokenizer_of(path)
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            path,
            num_labels=1,
            dtype=machine.best_dtype(),
            use_safetensors=True,
            output_loading_info=True,
            **NO_CODE,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise cannot_load(str(path), error) from error
    if info["missing_keys"]:  # transformers would initialise them at random, with no more than a warning
        raise ModelError(
            f"'{path}' is not a preference model: it lacks {', '.join(sorted(info['missing_keys']))}. "
            f"Name a folder such as runs/mine/{layout.PREFERENCE_MODEL}/{layout.WEIGHTS}"
        )
    # The head reads the last token that is no padding, by the model's own settings.
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = tokenizer.pad_token_id
    return model.to(machine.device()).eval(), tokenizer


class Scorable:
    """Rejects conversations that a preference model cannot score: one of them would fail its whole batch."""

    def __init__(self, folder: Path) -> None:
        """Load the tokenizer of the preference model in ``folder``. Raises ModelError if there is none."""
        from transformers import AutoConfig

        from constitutional_ai.training.datasets import load_tokenizer

        # Not the model's own tokenizer, because a fast tokenizer must not be used by two threads at once.
        self._tokenizer, self._lock = load_tokenizer(folder), threading.Lock()
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
        self._limit: int | None = getattr(config, "max_position_embeddings", None)

    def check(self, conversation: Conversation) -> None:
        """Raise RecordError if a conversation cannot be scored. Empty answers are allowed: policies give some."""
        if not conversation or conversation[-1].role != "assistant":
            raise RecordError("it does not end with an answer of the assistant")
        if all(m.role != "user" for m in conversation):
            raise RecordError("it has no human turn")
        characters, limit = sum(len(m.content) for m in conversation), self._limit
        if limit is not None and characters > limit * MOST_CHARACTERS:
            raise RecordError(f"its {characters} characters exceed the model's {limit} tokens")
        if limit is not None and len(conversation) > limit:
            raise RecordError(f"its {len(conversation)} turns exceed the model's {limit} tokens")
        with self._lock:
            tokens = self._tokens(conversation)
        if self._limit is not None and tokens > self._limit:
            raise RecordError(f"its {tokens} tokens exceed the model's {self._limit}")

    def _tokens(self, conversation: Conversation) -> int:
        messages = escape_messages(as_messages(conversation), self._tokenizer)
        text = rendered(self._tokenizer, messages)
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def finite(scores: list[float]) -> list[float]:
    """Return the scores. Raises ModelError if one of them is infinite or NaN."""
    if not all(map(math.isfinite, scores)):
        raise ModelError(
            "the preference model gives infinite or NaN scores: its weights are broken. Train it again."
        )
    return scores
