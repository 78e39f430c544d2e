"""A model behind an OpenAI-compatible server: vLLM, llama.cpp, SGLang, Ollama, hosted ones.

The ``openai`` client sends and reads; ``addresses.py`` tries again. The key is read from ``CAI_API_KEY`` or
``OPENAI_API_KEY``, and a user name and password from the address; they are never written anywhere.

All these servers generate. What else they tell is tested before the first question: decisions (``decisions.py``), and
the probabilities of what they say (``letters.py``), and scores of a prompt (``echo.py``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import openai

from constitutional_ai.errors import ModelError
from constitutional_ai.models.abilities import DecisionQuestion, Reading
from constitutional_ai.models.hosted.addresses import Address, Pool
from constitutional_ai.models.hosted.bounded import CONNECT_SECONDS, PLAIN, SILENT_SECONDS, Bounded
from constitutional_ai.models.hosted.decisions import DecisionEndpoint
from constitutional_ai.models.hosted.echo import ScoreReader
from constitutional_ai.models.hosted.faults import translating_errors
from constitutional_ai.models.hosted.fields import EFFORTS, EXTRAS, Fields, ServerFields, without_extras
from constitutional_ai.models.hosted.letters import LetterReader
from constitutional_ai.models.hosted.probe import Probe
from constitutional_ai.models.hosted.reply import first_choice, read_reply, tokens_of
from constitutional_ai.models.hosted.resend import whole_answer
from constitutional_ai.models.hosted.streaming import SHOW, showing, streamed_reply
from constitutional_ai.models.logins import keep_logins, with_login
from constitutional_ai.models.model import Context, Format, Sampling
from constitutional_ai.records import Completion, Conversation, as_messages
from constitutional_ai.safe_text import secrets_of, whole_characters

LOG = logging.getLogger(__name__)
NO_KEY = "none"
EXTENSIONS = ("chat_template_kwargs", "continue_final_message", "add_generation_prompt")
"""Fields that the client has no parameter for."""
CONTINUING: Fields = {"continue_final_message": True, "add_generation_prompt": False}
ANSWERING: Fields = {"continue_final_message": False, "add_generation_prompt": True}
OPEN_TURN = [{"role": "user", "content": "Name a fruit."}, {"role": "assistant", "content": "An"}]
LONGEST = 300
"""Characters to which the error message of a server is cut. It may be a page."""


class BoundedClient(Bounded, openai.DefaultAsyncHttpxClient):
    """The HTTP client of the ``openai`` package, with bounds."""


class ServerModel:
    """The model ``server:<model>@<url>``; several addresses are separated by commas.

    Conversations go to ``chat/completions``, raw text to ``completions``.
    """

    format: Format = "chat"

    def __init__(self, model: str, url: str, say: Callable[[str], None] = LOG.info) -> None:
        """``say`` receives what the user should know: a wait, or a field that the server refuses."""
        self._model, self._url = model, keep_logins(url)
        self.name = f"server:{model}@{self._url}"
        self._key = os.environ.get("CAI_API_KEY") or os.environ.get("OPENAI_API_KEY") or NO_KEY
        urls = [with_login(address) for address in self._url.split(",")]
        self._secrets = secrets_of(",".join(urls), *([] if self._key == NO_KEY else [self._key]))
        self._pool = Pool(urls, self._connect, openai.APIConnectionError, say)
        self._fields = ServerFields(self._url, say)
        self._continues = Probe(self._test_continuing)
        self._decisions = DecisionEndpoint(self.name, model, self._pool, self._message)
        self._letters = LetterReader(self.name, model, self._send, _thinking(0))
        self._scores = ScoreReader(self.name, model, self._pool, self._message)

    def _connect(self, address: Address[openai.AsyncOpenAI]) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=address.url,
            api_key=self._key,
            max_retries=0,  # the pool tries again
            timeout=openai.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS),
            http_client=BoundedClient(headers=PLAIN),
        )

    async def close(self) -> None:
        """Close the connections of the running event loop."""
        await self._pool.close()

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        """See ``Model``. Raises RecordError when the reply is no whole answer, after it was tried again."""
        fields: Fields = {
            "model": self._model,
            "temperature": sampling.temperature,
            "top_p": 1.0,  # the default is 0.95 in llama.cpp, and the model's own setting in vLLM (SL-10)
            "max_tokens": sampling.max_tokens + sampling.thinking,
            "seed": sampling.seed % 2**31,  # servers take 32 bits
            # A server would stop inside a thought too. The answer is cut here in any case.
            **({"stop": list(sampling.stop[:4])} if sampling.stop and not sampling.thinking else {}),
        }
        if isinstance(context, str):
            fields["prompt"] = context
        else:
            fields |= {"messages": as_messages(context), **_thinking(sampling.thinking)}
            if context[-1].role == "assistant":
                fields |= await self._continuing()
            elif SHOW.get():
                fields["stream_options"] = {"include_usage": True}
        with self._translating_errors():
            completion = await self._ask(fields, sampling)
        if isinstance(context, str) or context[-1].role != "assistant":
            return completion
        # llama.cpp's reply begins with the turn that it continues.
        return replace(completion, text=completion.text.removeprefix(context[-1].content.strip()).strip())

    async def stream(self, context: Context, sampling: Sampling, show: Callable[[str], None]) -> Completion:
        """See ``Streams``. Raw text and a turn that is continued come at once."""
        if isinstance(context, str) or context[-1].role == "assistant":
            return await self.generate(context, sampling)
        with showing(show):
            return await self.generate(context, sampling)

    async def _ask(self, fields: Fields, sampling: Sampling) -> Completion:
        """Return the answer to a request."""

        async def ask() -> Completion:
            return read_reply(await self._send(fields), self.name, sampling)

        return await whole_answer(ask, lambda completion: not completion.text)

    async def _send(self, fields: Fields) -> Any:
        """Send a request without the fields that the server refuses."""
        while True:
            sent = self._fields.accepted(fields)
            try:
                return await self._request(sent)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                message = self._message(error)
                if self._fields.learn(fields, sent, message):
                    continue
                bare = without_extras(sent, message)
                if bare is None:
                    raise
                try:
                    reply = await self._request(bare)
                except (openai.BadRequestError, openai.UnprocessableEntityError):
                    raise error from None
                self._fields.drop(*EXTRAS)
                return reply

    async def _request(self, sent: Fields) -> Any:
        known = {name: value for name, value in sent.items() if name not in EXTENSIONS}
        more = {name: sent[name] for name in EXTENSIONS if name in sent}
        show = SHOW.get()
        if show:
            streamed = {**known, "extra_body": more or None}
            return await self._pool.send(lambda client: streamed_reply(client, streamed, show))
        return await self._pool.send(
            lambda client: (client.completions if "prompt" in known else client.chat.completions).create(
                **known, **({"extra_body": more} if more else {})
            )  # type: ignore[call-overload]
        )

    async def _continuing(self) -> Fields:
        """Return the fields with which the server continues an assistant's turn. Raises ModelError if it cannot."""
        if not await self._continues.result():
            raise ModelError(
                f"{self.name} does not continue a turn that has begun: it would answer anew. Use a server that takes "
                "continue_final_message, such as vLLM or SGLang, or plain text (format=plain)."
            )
        return CONTINUING

    async def _test_continuing(self) -> bool:
        """Return whether the server obeys the fields; one that overlooks them would answer anew.

        It shows in the tokens that it reads: a turn that is continued has no end, and no other turn begins behind it.
        """
        with self._translating_errors():
            counts = [await self._tokens_read(flags) for flags in (CONTINUING, ANSWERING)]
        return 0 < counts[0] < counts[1]

    async def _tokens_read(self, flags: Fields) -> int:
        """Return the tokens of a prompt that ends in an assistant's turn; 0 if the server does not say."""
        fields = {"model": self._model, "messages": OPEN_TURN, "max_tokens": 1, **flags}

        async def ask() -> int:
            reply = await self._send(fields)
            first_choice(reply)
            return tokens_of(getattr(reply, "usage", None))[0]

        try:
            return await whole_answer(ask)
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            return 0

    async def decide(self, state: str, question: DecisionQuestion) -> Reading:
        """See ``Decides``. Raises ModelError if the server has no decision endpoint."""
        with self._translating_errors():
            return await self._decisions.ask(state, question)

    async def letters(self, conversation: Conversation, letters: Sequence[str]) -> Reading:
        """See ``ReadsLetters``. Raises ModelError if the server tells no ``top_logprobs``."""
        with self._translating_errors():
            return await self._letters.read(conversation, letters)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        if not isinstance(context, str):
            raise ModelError(
                f"{self.name} gives no log-probabilities in a chat. Set feedback.format=plain, "
                "so that the question goes to 'completions' as plain text."
            )
        with self._translating_errors():
            return await self._scores.read(context, continuations)

    def _translating_errors(self) -> AbstractContextManager[None]:
        return translating_errors(
            openai,
            openai.OpenAIError,
            self._message,
            unreachable=f"cannot reach {self._url}. Is the server running? Start it, then type the same command.",
            refused=f"{self._url} refuses the key. Set CAI_API_KEY, or write http://USER:PASSWORD@HOST in its address, "
            "which is never written anywhere.",
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
        for secret in self._secrets:
            message = message.replace(secret, "(key)")
        return " ".join(whole_characters(message).split())[:LONGEST]


def _thinking(tokens: int) -> Fields:
    """Return the fields that switch a thought on or off, in the names that servers and templates know."""
    switch = {"enable_thinking": tokens > 0, "thinking": tokens > 0}
    return {"chat_template_kwargs": switch, **({} if tokens else {"reasoning_effort": EFFORTS[0]})}
