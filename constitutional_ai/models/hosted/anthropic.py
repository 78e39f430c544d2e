"""A model behind Anthropic's Messages API: conversations only, no log-probabilities, no seeds.

The key is read from ``ANTHROPIC_API_KEY`` and never written anywhere; ``ANTHROPIC_BASE_URL`` may name another address.
The ``anthropic`` client sends and reads; ``addresses.py`` tries again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from constitutional_ai.errors import BrokenReply, ModelError, RecordError, missing_package
from constitutional_ai.models.hosted.addresses import Address, Pool
from constitutional_ai.models.hosted.bounded import CONNECT_SECONDS, PLAIN, SILENT_SECONDS, Bounded
from constitutional_ai.models.hosted.faults import translating_errors
from constitutional_ai.models.hosted.reply import tokens_of
from constitutional_ai.models.hosted.resend import whole_answer
from constitutional_ai.models.model import Context, Format, Sampling, cut_at_stop
from constitutional_ai.models.thinking import Reply, completion_of
from constitutional_ai.records import Completion, Conversation, FinishReason
from constitutional_ai.safe_text import secrets_of, whole_characters

try:
    import anthropic
except ModuleNotFoundError as error:
    raise ModelError(missing_package(str(error.name), "anthropic")) from error

URL = "https://api.anthropic.com"
LOG = logging.getLogger(__name__)
LONGEST = 300
"""Characters to which the error message of a server is cut. It may be a page."""
LEAST_THINKING = 1024
"""Tokens of the smallest thought that the API allows."""
WHOLE, CUT = ("end_turn", "stop_sequence", "refusal"), ("max_tokens", "model_context_window_exceeded")
"""Reasons for which an answer ends. A refusal is what the model answers."""


class BoundedClient(Bounded, anthropic.DefaultAsyncHttpxClient):
    """The HTTP client of the ``anthropic`` package, with bounds."""


class AnthropicModel:
    """The model ``anthropic:<model>``. Raises ModelError without a key."""

    format: Format = "chat"

    def __init__(self, model: str, say: Callable[[str], None] = LOG.info) -> None:
        """``say`` receives what the user should know, such as a wait."""
        self.name = f"anthropic:{model}"
        self._model = model
        self._key = os.environ.get("ANTHROPIC_API_KEY")
        if not self._key:
            raise ModelError(f"{self.name} needs a key. Set ANTHROPIC_API_KEY.")
        url = os.environ.get("ANTHROPIC_BASE_URL") or URL
        self._secrets = secrets_of(url, self._key)
        self._pool = Pool([url], self._connect, anthropic.APIConnectionError, say)

    def _connect(self, address: Address[anthropic.AsyncAnthropic]) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(
            base_url=address.url,
            api_key=self._key,
            open_telemetry={"traces": False, "propagation": False},
            max_retries=0,  # the pool tries again
            timeout=anthropic.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS),
            http_client=BoundedClient(headers=PLAIN),
        )

    async def close(self) -> None:
        """Close the connections of the running event loop."""
        await self._pool.close()

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        if isinstance(context, str):
            raise ModelError(f"{self.name} cannot continue raw text. Set format=chat, or auto.")
        settings = _settings(context, sampling)

        async def ask() -> Completion:
            reply: Any = await self._pool.send(
                lambda client: client.messages.create(model=self._model, **settings)
            )
            return _completion(reply, self.name, sampling)

        with self._translating_errors():
            return await whole_answer(ask, lambda completion: not completion.text)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        raise ModelError(
            f"{self.name} gives no log-probabilities. Set feedback.method=votes, which needs none."
        )

    def _translating_errors(self) -> AbstractContextManager[None]:
        return translating_errors(
            anthropic,
            anthropic.AnthropicError,
            self._message,
            unreachable=f"cannot reach {self._pool.addresses[0].shown}. Is this machine on the network?",
            refused="the API refuses the key. Set ANTHROPIC_API_KEY.",
            unknown=f"the API does not know the model '{self._model}'",
        )

    def _message(self, error: Exception) -> str:
        """Return the server's message in one line, without the key."""
        message = str(error)
        for secret in self._secrets:
            message = message.replace(secret, "(key)")
        return " ".join(whole_characters(message).split())[:LONGEST]


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
        raise BrokenReply("the reply holds no answer")
    thoughts, texts = _texts(parts, "thinking"), _texts(parts, "text")
    text, stopped = cut_at_stop(whole_characters("".join(texts)), sampling.stop)
    reason = getattr(reply, "stop_reason", None)
    if not stopped and reason not in (*WHOLE, *CUT):
        raise RecordError(f"the server broke the answer off, with stop_reason '{str(reason)[:40]}'")
    finish: FinishReason = "length" if reason in CUT and not stopped else "stop"
    thought = whole_characters("\n\n".join(thoughts)) if thoughts else None
    read, written = tokens_of(usage)
    return completion_of(Reply(thought, text.strip()), name, finish, read, written, sampling)


def _texts(parts: list[Any], kind: str) -> list[str]:
    """Return the texts of all parts of a kind. Raises BrokenReply if one is no text."""
    texts = [getattr(part, kind, None) for part in parts if getattr(part, "type", None) == kind]
    whole = [text for text in texts if isinstance(text, str)]
    if len(whole) < len(texts):
        raise BrokenReply("the reply's text is no text")
    return whole
