"""Reject conversations that a preference model cannot score, because one of them would fail its whole batch."""

from __future__ import annotations

import math
import threading
from pathlib import Path

from jinja2 import TemplateError

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.rendering import escape_messages
from constitutional_ai.records import Conversation, as_messages


class Scorable:
    """A check of conversations for one preference model."""

    def __init__(self, folder: Path) -> None:
        """Load the tokenizer of the preference model in ``folder``. Raises ModelError if there is none."""
        from transformers import AutoConfig

        from constitutional_ai.training.datasets import load_tokenizer

        # Not the model's own tokenizer, because a fast tokenizer must not be used by two threads at once.
        self._tokenizer, self._lock = load_tokenizer(folder), threading.Lock()
        config = AutoConfig.from_pretrained(folder).get_text_config()
        self._limit: int | None = getattr(config, "max_position_embeddings", None)

    def check(self, conversation: Conversation) -> None:
        """Raise RecordError if a conversation cannot be scored. Empty answers are allowed: policies give some."""
        if not conversation or conversation[-1].role != "assistant":
            raise RecordError("it does not end with an answer of the assistant")
        if all(m.role != "user" for m in conversation):
            raise RecordError("it has no human turn")
        with self._lock:
            tokens = self._tokens(conversation)
        if self._limit is not None and tokens > self._limit:
            raise RecordError(f"its {tokens} tokens exceed the model's {self._limit}")

    def _tokens(self, conversation: Conversation) -> int:
        messages = escape_messages(as_messages(conversation), self._tokenizer)
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False)
        except TemplateError as error:
            raise RecordError(f"the model's chat template refuses it: {error}") from error
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def finite(scores: list[float]) -> list[float]:
    """Return the scores. Raises ModelError if one of them is infinite or NaN."""
    if not all(map(math.isfinite, scores)):
        raise ModelError(
            "the preference model gives infinite or NaN scores: its weights are broken. Train it again."
        )
    return scores
