"""A model behind Anthropic's Messages API: conversations only, no log-probabilities, no seeds.

The key is read from ``ANTHROPIC_API_KEY`` and never written anywhere; ``ANTHROPIC_BASE_URL`` may name another address.
The ``anthropic`` client handles retries, ``Retry-After`` and time-outs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.hosted.addresses import (
    RETRIES,
    TIMEOUT_SECONDS,
    Address,
    Pool,
    translating_errors,
)
from constitutional_ai.models.model import Context, Format, Sampling, cut_at_stop
from constitutional_ai.models.thinking import Reply, completion_of
from constitutional_ai.records import Completion, Conversation, FinishReason

try:
    import anthropic
except ModuleNotFoundError as error:
    raise ModelError(
        f"no module '{error.name}'. Install what this backend needs: pip install 'constitutional-ai[anthropic]'"
    ) from error

URL = "https://api.anthropic.com"
LEAST_THINKING = 1024
"""Tokens of the smallest thought that the API allows."""
WHOLE, CUT = ("end_turn", "stop_sequence", "refusal"), ("max_tokens", "model_context_window_exceeded")
"""Reasons for which an answer ends. A refusal is what the model answers."""


class AnthropicModel:
    """The model ``anthropic:<model>``. Raises ModelError without a key."""

    format: Format = "chat"

    def __init__(self, model: str) -> None:
        self.name = f"anthropic:{model}"
        self._model = model
        self._key = os.environ.get("ANTHROPIC_API_KEY")
        if not self._key:
            raise ModelError(f"{self.name} needs a key. Set ANTHROPIC_API_KEY.")
        urls = [os.environ.get("ANTHROPIC_BASE_URL") or URL]
        self._pool = Pool(urls, self._connect, anthropic.APIConnectionError)

    def _connect(self, address: Address[anthropic.AsyncAnthropic]) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(
            base_url=address.url,
            api_key=self._key,
            open_telemetry={"traces": False, "propagation": False},
            max_retries=RETRIES,
            timeout=TIMEOUT_SECONDS,
            http_client=anthropic.DefaultAsyncHttpxClient(event_hooks={"response": [address.on_response]}),
        )

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        if isinstance(context, str):
            raise ModelError(f"{self.name} cannot continue raw text. Set format=chat, or auto.")
        settings = _settings(context, sampling)
        with self._translating_errors():
            reply: Any = await self._pool.send(
                lambda client: client.messages.create(model=self._model, **settings)
            )
        return _completion(reply, self.name, sampling)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        raise ModelError(
            f"{self.name} gives no log-probabilities. Set feedback.method=votes, which needs none."
        )

    def _translating_errors(self) -> AbstractContextManager[None]:
        return translating_errors(
            anthropic,
            anthropic.AnthropicError,
            lambda error: str(error).replace(self._key or "", "(key)"),
            unreachable=f"cannot reach {self._pool.addresses[0].url}. Is this machine on the network?",
            refused="the API refuses the key. Set ANTHROPIC_API_KEY.",
            unknown=f"the API does not know the model '{self._model}'",
        )


def _settings(conversation: Conversation, sampling: Sampling) -> dict[str, Any]:
    system = "\n\n".join(m.content for m in conversation if m.role == "system")
    stop = [text for text in sampling.stop if text.strip()]  # the API refuses blanks
    budget = max(sampling.thinking, LEAST_THINKING) if sampling.thinking else 0
    return {
        "max_tokens": sampling.max_tokens + budget,
        "messages": [{"role": m.role, "content": m.content} for m in conversation if m.role != "system"],
        **({"system": system} if system else {}),
        **({"stop_sequences": stop} if stop else {}),
        **({"thinking": {"type": "enabled", "budget_tokens": budget}} if budget else {}),
        # 1 is the API's default. The client has no parameter for others, which some models refuse.
        **({} if sampling.temperature == 1 else {"extra_body": {"temperature": sampling.temperature}}),
    }


def _completion(reply: Any, name: str, sampling: Sampling) -> Completion:
    """Return the completion of a reply. Raises RecordError when it is no whole answer: the server may send anything."""
    parts, usage = getattr(reply, "content", None), getattr(reply, "usage", None)
    if not isinstance(parts, list) or usage is None:
        raise RecordError("the reply holds no answer")
    thoughts = [part.thinking for part in parts if part.type == "thinking"]
    text, stopped = cut_at_stop("".join(part.text for part in parts if part.type == "text"), sampling.stop)
    if not stopped and reply.stop_reason not in (*WHOLE, *CUT):
        raise RecordError(f"the server broke the answer off, with stop_reason '{reply.stop_reason}'")
    finish: FinishReason = "length" if reply.stop_reason in CUT and not stopped else "stop"
    parted = Reply("\n\n".join(thoughts) if thoughts else None, text.strip())
    return completion_of(parted, name, finish, usage.input_tokens, usage.output_tokens, sampling)
