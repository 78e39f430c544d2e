"""Any OpenAI-compatible server: vLLM, llama.cpp, SGLang, Ollama, hosted ones.

Retries, ``Retry-After`` and time-outs are the ``openai`` client's. The key is read from ``CAI_API_KEY`` or
``OPENAI_API_KEY`` and never written anywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import openai

from cai.errors import ModelError, RecordError
from cai.models.model import Context, Format, Sampling, cut_at_stop
from cai.records import Completion, FinishReason, as_messages

NO_KEY = "none"
RETRIES, TIMEOUT_SECONDS = 4, 600.0


class ServerModel:
    """``server:<model>@<url>``. Conversations go to ``chat/completions``, raw text to ``completions``."""

    format: Format = "chat"

    def __init__(self, model: str, url: str) -> None:
        self.name = f"server:{model}@{url}"
        self._model, self._url = model, url
        self._key = os.environ.get("CAI_API_KEY") or os.environ.get("OPENAI_API_KEY") or NO_KEY

    def _client(self) -> openai.AsyncOpenAI:
        # A client belongs to the event loop that made its connections, and every stage has a loop of its own.
        return openai.AsyncOpenAI(
            base_url=self._url, api_key=self._key, max_retries=RETRIES, timeout=TIMEOUT_SECONDS
        )

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        settings: dict[str, Any] = {
            "model": self._model,
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            # Servers take a seed of 32 bits.
            "seed": sampling.seed % 2**31,
            "stop": list(sampling.stop[:4]) or openai.omit,
        }
        with self._translating():
            async with self._client() as client:
                if isinstance(context, str):
                    reply: Any = await client.completions.create(prompt=context, **settings)
                    text = _first(reply).text
                else:
                    messages: Any = as_messages(context)
                    reply = await client.chat.completions.create(messages=messages, **settings)
                    text = _first(reply).message.content
        text, stopped = cut_at_stop(text or "", sampling.stop)
        cut_short = reply.choices[0].finish_reason == "length" and not stopped
        finish: FinishReason = "length" if cut_short else "stop"
        tokens = reply.usage
        return Completion(
            text.strip(),
            self.name,
            finish,
            tokens.prompt_tokens if tokens else 0,
            tokens.completion_tokens if tokens else 0,
        )

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        if not isinstance(context, str):
            raise ModelError(
                f"{self.name} gives no log-probabilities inside a chat. Set feedback.format=plain, "
                "so that the question goes to its 'completions' address as plain text."
            )
        with self._translating():
            async with self._client() as client:
                return [await self._score_one(client, context, c) for c in continuations]

    async def _score_one(self, client: openai.AsyncOpenAI, context: str, continuation: str) -> float:
        reply = await client.completions.create(
            model=self._model,
            prompt=context + continuation,
            echo=True,
            logprobs=1,
            max_tokens=1,
            temperature=0.0,
        )
        logprobs = _first(reply).logprobs
        if logprobs is None or not logprobs.token_logprobs or not logprobs.text_offset:
            raise ModelError(f"{self.name} does not return the log-probabilities of a prompt ('echo').")
        start, end = len(context), len(context) + len(continuation)
        pairs = zip(logprobs.text_offset, logprobs.token_logprobs, strict=True)
        inside = [value for at, value in pairs if start <= at < end]
        if start not in logprobs.text_offset or not inside or None in inside:
            raise RecordError("the server's tokens do not begin where the continuation begins")
        return float(sum(inside))

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except openai.OpenAIError as error:
            raise self._translated(error) from None  # the client's own traceback may show the key
        except json.JSONDecodeError as error:
            raise RecordError(f"the server's reply cannot be read: {error}") from None

    def _translated(self, error: openai.OpenAIError) -> Exception:
        """The server is away or refuses us: the user must act. This one request is bad: only its record fails."""
        url, said = self._url, str(error).replace(self._key, "(key)") if self._key != NO_KEY else str(error)
        if isinstance(error, openai.APITimeoutError):
            return RecordError(f"no answer within {TIMEOUT_SECONDS:.0f} s")
        if isinstance(error, openai.APIConnectionError):
            return ModelError(
                f"cannot reach {url}. Is the server running? Start it, then type the same command."
            )
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return ModelError(f"{url} refuses the key. Set CAI_API_KEY.")
        if isinstance(error, openai.NotFoundError):
            return ModelError(f"{url} does not know this model or address: {said}")
        return RecordError(said)


def _first(reply: Any) -> Any:
    """The first choice of a reply. What a stranger's server sends may be anything."""
    choices = getattr(reply, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    if choice is None or (
        getattr(choice, "message", None) is None and not isinstance(getattr(choice, "text", None), str)
    ):
        raise RecordError("the server's reply holds no answer")
    return choice
