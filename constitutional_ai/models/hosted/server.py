"""Any OpenAI-compatible server: vLLM, llama.cpp, SGLang, Ollama, hosted ones.

Retries, ``Retry-After`` and time-outs are the ``openai`` client's. The key is read from ``CAI_API_KEY`` or
``OPENAI_API_KEY`` and never written anywhere.

All of them generate. Only some score, that is, take ``echo`` with ``logprobs``: vLLM and SGLang do, llama.cpp's own
server and ``transformers serve`` do not, and llama-cpp-python gives the wrong numbers for a model that begins without a
BOS token. So the first score of a model proves its servers, and one that cannot be trusted says so before it has made a
label.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import openai

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.hosted.addresses import Address, Pool
from constitutional_ai.models.model import Context, Format, Sampling, cut_at_stop
from constitutional_ai.records import Completion, FinishReason, as_messages

NO_KEY = "none"
RETRIES, TIMEOUT_SECONDS = 4, 600.0
PROBES = ("The capital of France is", "One, two, three, four,", "Once upon a time there was a")
SAME = 0.5
"""Nats by which a token's log-probability may differ from generating it to reading it: low precision rounds."""
LONGEST = 300
"""Letters of what a server says of an error. It may be a page."""
VOTES = "Use a server that does, or set feedback.method=votes, which needs none."


class _Tokens(NamedTuple):
    texts: list[str]
    logprobs: list[float | None]


class ServerModel:
    """``server:<model>@<url>``, or several addresses with commas between them.

    Conversations go to ``chat/completions``, raw text to ``completions``.
    """

    format: Format = "chat"

    def __init__(self, model: str, url: str) -> None:
        self.name = f"server:{model}@{url}"
        self._model, self._url = model, url
        self._key = os.environ.get("CAI_API_KEY") or os.environ.get("OPENAI_API_KEY") or NO_KEY
        self._pool = Pool(url.split(","), self._connect, openai.APIConnectionError)
        self._proven, self._proving = False, asyncio.Lock()

    def _connect(self, address: Address[openai.AsyncOpenAI]) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=address.url,
            api_key=self._key,
            # Where there are others, they are tried instead.
            max_retries=RETRIES if len(self._pool.addresses) == 1 else 1,
            timeout=TIMEOUT_SECONDS,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [address.heard]}),
        )

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        settings: dict[str, Any] = {
            "model": self._model,
            "temperature": sampling.temperature,
            "top_p": 1.0,  # llama.cpp cuts at 0.95 unless told, vLLM where the model's own settings do (SL-10)
            "max_tokens": sampling.max_tokens,
            # Servers take a seed of 32 bits.
            "seed": sampling.seed % 2**31,
            "stop": list(sampling.stop[:4]) or openai.omit,
        }
        with self._translating():
            if isinstance(context, str):
                reply: Any = await self._pool.ask(
                    lambda client: client.completions.create(prompt=context, **settings)
                )
                text = _first(reply).text
            else:
                messages: Any = as_messages(context)
                reply = await self._pool.ask(
                    lambda client: client.chat.completions.create(messages=messages, **settings)
                )
                text = _first(reply).message.content
        # Cut inside an emoji, some servers' replies hold half of it, which no file can.
        text = (text or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text, stopped = cut_at_stop(text, sampling.stop)
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
            await self._prove()
            prompts = [context + continuation for continuation in ("", *continuations)]
            before, *whole = await asyncio.gather(
                *[self._pool.ask(partial(self._echo, prompt)) for prompt in prompts]
            )
        return [_beyond(before, echo) for echo in whole]

    async def _echo(self, prompt: str, client: openai.AsyncOpenAI) -> _Tokens:
        """A prompt's tokens with their log-probabilities. Not every server takes 0 new tokens, so one is dropped."""
        reply: Any = await client.completions.create(
            model=self._model, prompt=prompt, echo=True, logprobs=1, max_tokens=1, temperature=0.0
        )
        texts, logprobs = _tokens(reply) or ([], [])
        generated = getattr(reply.usage, "completion_tokens", None)
        end = len(texts) - (generated if isinstance(generated, int) else 1)
        if end < 1:
            raise ModelError(f"{self.name} does not return the log-probabilities of a prompt ('echo'). {VOTES}")
        return _Tokens(texts[:end], logprobs[:end])

    async def _prove(self) -> None:
        """Raises ModelError unless a token has the log-probability in a prompt with which it was generated."""
        async with self._proving:
            if self._proven:
                return
            try:
                for address in [a for a in self._pool.addresses if not a.is_out]:
                    for probe in PROBES:
                        await self._probe(await address.client(), probe)
            except (
                openai.BadRequestError,
                openai.UnprocessableEntityError,
                openai.InternalServerError,
            ) as error:
                raise ModelError(f"{self.name} cannot score a prompt: {self._said(error)} {VOTES}") from None
            self._proven = True

    async def _probe(self, client: openai.AsyncOpenAI, probe: str) -> None:
        # At temperature 1 a server that reports what it sampled from reports the model's own distribution.
        reply: Any = await client.completions.create(
            model=self._model, prompt=probe, logprobs=1, max_tokens=1, temperature=1.0, seed=0
        )
        tokens = _tokens(reply)
        told = tokens.logprobs[0] if tokens else None
        if told is None:
            raise ModelError(f"{self.name} returns no log-probabilities as 'completions' do. {VOTES}")
        texts = (probe, probe + _first(reply).text)
        before, whole = await asyncio.gather(*[self._echo(text, client) for text in texts])
        if len(whole.texts) != len(before.texts) + 1 or whole.texts[:-1] != before.texts:
            return  # an end, or half a character: read again it is another token, and proves nothing
        found = _beyond(before, whole)
        if not abs(found - told) <= SAME:
            raise ModelError(
                f"{self.name} gives a token the log-probability {told:.2f} when it generates it and {found:.2f} "
                f"when it reads it, so its scores mean nothing. {VOTES}"
            )

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
        url, said = self._url, self._said(error)
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

    def _said(self, error: openai.OpenAIError) -> str:
        said = str(error)
        if (
            isinstance(error, openai.APIStatusError)
            and said == f"Error code: {error.status_code}"
            and error.body
        ):
            # The client repeats only what stands where OpenAI's does. FastAPI's stands under "detail".
            told = error.body.get("detail", error.body) if isinstance(error.body, dict) else error.body
            said += f" - {told}"
        said = said.replace(self._key, "(key)") if self._key != NO_KEY else said
        return " ".join(said.split())[:LONGEST]


def _first(reply: Any) -> Any:
    """The first choice of a reply. What a stranger's server sends may be anything."""
    choices = getattr(reply, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    if choice is None or (
        getattr(choice, "message", None) is None and not isinstance(getattr(choice, "text", None), str)
    ):
        raise RecordError("the server's reply holds no answer")
    return choice


def _tokens(reply: Any) -> _Tokens | None:
    """None where there are none. The first token of a prompt has no log-probability."""
    given = getattr(_first(reply), "logprobs", None)
    texts, logprobs = getattr(given, "tokens", None), getattr(given, "token_logprobs", None)
    if not (isinstance(texts, list) and isinstance(logprobs, list) and texts and len(texts) == len(logprobs)):
        return None
    return _Tokens(texts, [x if isinstance(x, int | float) else None for x in logprobs])


def _beyond(before: _Tokens, whole: _Tokens) -> float:
    """Log-probability of the tokens that ``whole`` has after ``before``.

    By tokens, not by ``text_offset``: servers count a BOS token's own letters, or half a character as one or as none.
    """
    start = len(before.texts)
    inside = [x for x in whole.logprobs[start:] if x is not None]
    if whole.texts[:start] != before.texts or not inside or len(inside) < len(whole.texts) - start:
        raise RecordError("the server's tokens do not begin where the continuation begins")
    return float(sum(inside))
