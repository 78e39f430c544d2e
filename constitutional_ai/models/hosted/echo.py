"""Read from a server how probable continuations of a plain text are, by ``echo`` with ``logprobs``.

vLLM and SGLang give them, llama.cpp's own server and ``transformers serve`` do not, and llama-cpp-python gives wrong
numbers for a model without a BOS token. So the servers are tested before the first score, and wrong scores raise
ModelError before there is a label.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import openai

from constitutional_ai.errors import BrokenReply, ModelError, RecordError
from constitutional_ai.models.hosted.addresses import Address, Pool
from constitutional_ai.models.hosted.probe import Probe
from constitutional_ai.models.hosted.reply import first_choice
from constitutional_ai.models.hosted.resend import whole_answer

PROBES = ("The capital of France is", "One, two, three, four,", "Once upon a time there was a")
TOLERANCE = 0.5
"""Nats by which the log-probabilities of a generated token and of the same token in a prompt may differ: in low
precision they are rounded."""
VOTES = "Use a server that does, or set feedback.method=votes, which needs none."

Client = openai.AsyncOpenAI


class _Tokens(NamedTuple):
    """Tokens with their log-probabilities; the first token of a prompt has none."""

    texts: list[str]
    logprobs: list[float | None]


class _NoLogprobs(BrokenReply):
    """A reply holds no log-probabilities. A server whose test ends so has none; later it is a fault of a record."""


class ScoreReader:
    """The scores of one server's prompts."""

    def __init__(self, name: str, model: str, pool: Pool[Client], message: Callable[[Exception], str]) -> None:
        """``name`` is the model's own in errors. ``message`` gives an error's text without the key."""
        self._name, self._model, self._pool, self._message = name, model, pool, message
        self._tested = Probe(self._test_addresses)

    async def read(self, context: str, continuations: Sequence[str]) -> list[float]:
        """Return the log-probability of each continuation of a text, in nats. See ``Model.score``."""
        await self._tested.result()
        prompts = [context + continuation for continuation in ("", *continuations)]
        before, *whole = await asyncio.gather(
            *[whole_answer(partial(self._pool.send, partial(self._echo, prompt))) for prompt in prompts]
        )
        return [_beyond(before, echo) for echo in whole]

    async def _echo(self, prompt: str, client: Client) -> _Tokens:
        """Return the tokens of a prompt. One new token is requested and dropped: not every server takes 0."""
        reply: Any = await client.completions.create(
            model=self._model, prompt=prompt, echo=True, logprobs=1, max_tokens=1, temperature=0.0
        )
        texts, logprobs = _tokens(reply)
        generated = getattr(reply.usage, "completion_tokens", None)
        end = len(texts) - (generated if isinstance(generated, int) else 1)
        if end < 1:
            raise _NoLogprobs(f"{self._name} does not return the log-probabilities of a prompt ('echo')")
        return _Tokens(texts[:end], logprobs[:end])

    async def _test_addresses(self) -> None:
        """Raise ModelError unless a token has the log-probability in a prompt with which it was generated."""
        addresses = self._pool.addresses
        try:
            for address in [a for a in addresses if not a.is_out] or addresses:
                for probe in PROBES:
                    await self._test(address, probe)
        except _NoLogprobs as error:
            raise ModelError(f"{error}. {VOTES}") from None
        except (openai.BadRequestError, openai.UnprocessableEntityError, openai.InternalServerError) as error:
            raise ModelError(f"{self._name} cannot score a prompt: {self._message(error)} {VOTES}") from None

    async def _generated(self, probe: str, client: Client) -> tuple[str, float]:
        """Return the token that continues a text, and its log-probability."""
        # At temperature 1 the distribution that is sampled from, which some servers report, is the model's own.
        reply: Any = await client.completions.create(
            model=self._model, prompt=probe, logprobs=1, max_tokens=1, temperature=1.0, seed=0
        )
        _, logprobs = _tokens(reply)
        if not logprobs or logprobs[0] is None:
            raise _NoLogprobs(f"{self._name} returns no log-probabilities as 'completions' do")
        return first_choice(reply).text, logprobs[0]

    async def _test(self, address: Address[Client], probe: str) -> None:
        send = partial(self._pool.send, only=address)
        token, generated = await whole_answer(partial(send, partial(self._generated, probe)))
        before, whole = await asyncio.gather(
            *[whole_answer(partial(send, partial(self._echo, text))) for text in (probe, probe + token)]
        )
        if len(whole.texts) != len(before.texts) + 1 or whole.texts[:-1] != before.texts:
            return  # an end of sequence or half a character is another token in a prompt, and tests nothing
        read = _beyond(before, whole)
        if not abs(read - generated) <= TOLERANCE:
            raise ModelError(
                f"{self._name} gives a token the log-probability {generated:.2f} when it generates it and "
                f"{read:.2f} when it reads it, so its scores mean nothing. {VOTES}"
            )


def _tokens(reply: Any) -> _Tokens:
    """Return the tokens of a reply, which may have none."""
    choice = getattr(first_choice(reply), "logprobs", None)
    texts, logprobs = getattr(choice, "tokens", None), getattr(choice, "token_logprobs", None)
    if not (isinstance(texts, list) and isinstance(logprobs, list) and texts and len(texts) == len(logprobs)):
        return _Tokens([], [])
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
