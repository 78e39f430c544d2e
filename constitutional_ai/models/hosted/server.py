"""A model behind an OpenAI-compatible server: vLLM, llama.cpp, SGLang, Ollama, hosted ones.

The ``openai`` client handles retries, ``Retry-After`` and time-outs. The key is read from ``CAI_API_KEY`` or
``OPENAI_API_KEY`` and never written anywhere.

All these servers generate. Only some score, that is, take ``echo`` with ``logprobs``: vLLM and SGLang do, llama.cpp's
own server and ``transformers serve`` do not, and llama-cpp-python gives wrong numbers for a model without a BOS token.
So the servers are tested before the first score, and wrong scores raise ModelError before there is a label.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import openai

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.hosted.addresses import (
    RETRIES,
    TIMEOUT_SECONDS,
    Address,
    Pool,
    translating_errors,
)
from constitutional_ai.models.model import Context, Format, Sampling, cut_at_stop
from constitutional_ai.records import Completion, FinishReason, as_messages

NO_KEY = "none"
PROBES = ("The capital of France is", "One, two, three, four,", "Once upon a time there was a")
TOLERANCE = 0.5
"""Nats by which the log-probabilities of a generated token and of the same token in a prompt may differ: in low
precision they are rounded."""
LONGEST = 300
"""Characters to which the error message of a server is cut. It may be a page."""
VOTES = "Use a server that does, or set feedback.method=votes, which needs none."


class _Tokens(NamedTuple):
    """Tokens with their log-probabilities; the first token of a prompt has none."""

    texts: list[str]
    logprobs: list[float | None]


class ServerModel:
    """The model ``server:<model>@<url>``; several addresses are separated by commas.

    Conversations go to ``chat/completions``, raw text to ``completions``.
    """

    format: Format = "chat"

    def __init__(self, model: str, url: str) -> None:
        self.name = f"server:{model}@{url}"
        self._model, self._url = model, url
        self._key = os.environ.get("CAI_API_KEY") or os.environ.get("OPENAI_API_KEY") or NO_KEY
        self._pool = Pool(url.split(","), self._connect, openai.APIConnectionError)
        self._is_tested, self._testing = False, asyncio.Lock()

    def _connect(self, address: Address[openai.AsyncOpenAI]) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=address.url,
            api_key=self._key,
            # When there are other addresses, these are tried instead.
            max_retries=RETRIES if len(self._pool.addresses) == 1 else 1,
            timeout=TIMEOUT_SECONDS,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [address.on_response]}),
        )

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        settings: dict[str, Any] = {
            "model": self._model,
            "temperature": sampling.temperature,
            "top_p": 1.0,  # the default is 0.95 in llama.cpp, and the model's own setting in vLLM (SL-10)
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed % 2**31,  # servers take 32 bits
            "stop": list(sampling.stop[:4]) or openai.omit,
        }
        with self._translating_errors():
            if isinstance(context, str):
                reply: Any = await self._pool.send(
                    lambda client: client.completions.create(prompt=context, **settings)
                )
                text = _first(reply).text
            else:
                messages: Any = as_messages(context)
                reply = await self._pool.send(
                    lambda client: client.chat.completions.create(messages=messages, **settings)
                )
                text = _first(reply).message.content
        # A reply that is cut inside an emoji may hold half of it, which no file can.
        text = (text or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text, stopped = cut_at_stop(text, sampling.stop)
        is_cut = reply.choices[0].finish_reason == "length" and not stopped
        finish: FinishReason = "length" if is_cut else "stop"
        usage = reply.usage
        tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        return Completion(text.strip(), self.name, finish, *tokens)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        if not isinstance(context, str):
            raise ModelError(
                f"{self.name} gives no log-probabilities in a chat. Set feedback.format=plain, "
                "so that the question goes to 'completions' as plain text."
            )
        with self._translating_errors():
            await self._test_once()
            prompts = [context + continuation for continuation in ("", *continuations)]
            before, *whole = await asyncio.gather(
                *[self._pool.send(partial(self._echo, prompt)) for prompt in prompts]
            )
        return [_beyond(before, echo) for echo in whole]

    async def _echo(self, prompt: str, client: openai.AsyncOpenAI) -> _Tokens:
        """Return the tokens of a prompt. One new token is requested and dropped: not every server takes 0."""
        reply: Any = await client.completions.create(
            model=self._model, prompt=prompt, echo=True, logprobs=1, max_tokens=1, temperature=0.0
        )
        texts, logprobs = _tokens(reply) or ([], [])
        generated = getattr(reply.usage, "completion_tokens", None)
        end = len(texts) - (generated if isinstance(generated, int) else 1)
        if end < 1:
            raise ModelError(f"{self.name} does not return the log-probabilities of a prompt ('echo'). {VOTES}")
        return _Tokens(texts[:end], logprobs[:end])

    async def _test_once(self) -> None:
        """Raise ModelError unless a token has the log-probability in a prompt with which it was generated."""
        async with self._testing:
            if self._is_tested:
                return
            try:
                for address in [a for a in self._pool.addresses if not a.is_out]:
                    for probe in PROBES:
                        await self._test(await address.client(), probe)
            except (
                openai.BadRequestError,
                openai.UnprocessableEntityError,
                openai.InternalServerError,
            ) as error:
                raise ModelError(f"{self.name} cannot score a prompt: {self._message(error)} {VOTES}") from None
            self._is_tested = True

    async def _test(self, client: openai.AsyncOpenAI, probe: str) -> None:
        # At temperature 1 the distribution that is sampled from, which some servers report, is the model's own.
        reply: Any = await client.completions.create(
            model=self._model, prompt=probe, logprobs=1, max_tokens=1, temperature=1.0, seed=0
        )
        tokens = _tokens(reply)
        generated = tokens.logprobs[0] if tokens else None
        if generated is None:
            raise ModelError(f"{self.name} returns no log-probabilities as 'completions' do. {VOTES}")
        texts = (probe, probe + _first(reply).text)
        before, whole = await asyncio.gather(*[self._echo(text, client) for text in texts])
        if len(whole.texts) != len(before.texts) + 1 or whole.texts[:-1] != before.texts:
            return  # an end of sequence or half a character is another token in a prompt, and tests nothing
        read = _beyond(before, whole)
        if not abs(read - generated) <= TOLERANCE:
            raise ModelError(
                f"{self.name} gives a token the log-probability {generated:.2f} when it generates it and {read:.2f} "
                f"when it reads it, so its scores mean nothing. {VOTES}"
            )

    def _translating_errors(self) -> AbstractContextManager[None]:
        return translating_errors(
            openai,
            openai.OpenAIError,
            self._message,
            unreachable=f"cannot reach {self._url}. Is the server running? Start it, then type the same command.",
            refused=f"{self._url} refuses the key. Set CAI_API_KEY.",
            unknown=f"{self._url} does not know this model or address",
        )

    def _message(self, error: Exception) -> str:
        """Return the server's message in one line, without the key."""
        message = str(error)
        if (
            isinstance(error, openai.APIStatusError)
            and message == f"Error code: {error.status_code}"
            and error.body
        ):
            # The client repeats a message only where OpenAI puts it. FastAPI puts it under "detail".
            detail = error.body.get("detail", error.body) if isinstance(error.body, dict) else error.body
            message += f" - {detail}"
        message = message.replace(self._key, "(key)") if self._key != NO_KEY else message
        return " ".join(message.split())[:LONGEST]


def _first(reply: Any) -> Any:
    """Return the first choice of a reply. Raises RecordError: the server may send anything."""
    choices = getattr(reply, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    if choice is None or (
        getattr(choice, "message", None) is None and not isinstance(getattr(choice, "text", None), str)
    ):
        raise RecordError("the server's reply holds no answer")
    return choice


def _tokens(reply: Any) -> _Tokens | None:
    """Return the tokens of a reply; None when there are none."""
    choice = getattr(_first(reply), "logprobs", None)
    texts, logprobs = getattr(choice, "tokens", None), getattr(choice, "token_logprobs", None)
    if not (isinstance(texts, list) and isinstance(logprobs, list) and texts and len(texts) == len(logprobs)):
        return None
    return _Tokens(texts, [x if isinstance(x, int | float) else None for x in logprobs])


def _beyond(before: _Tokens, whole: _Tokens) -> float:
    """Return the log-probability of the tokens of ``whole`` after those of ``before``.

    Tokens are counted, not characters (``text_offset``): servers may count the letters of a BOS token, or half a
    character as one or as none.
    """
    start = len(before.texts)
    inside = [x for x in whole.logprobs[start:] if x is not None]
    if whole.texts[:start] != before.texts or not inside or len(inside) < len(whole.texts) - start:
        raise RecordError("the server's tokens do not begin where the continuation does")
    return float(sum(inside))
