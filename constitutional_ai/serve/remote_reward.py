"""Define reward functions for TRL and verl that get their scores from a reward server (``cai serve``)."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import openai

from constitutional_ai.data.dialogues import conversation_of, split_prompt
from constitutional_ai.errors import InputError, ModelError, RecordError
from constitutional_ai.models.hosted.addresses import Address, Pool
from constitutional_ai.models.hosted.bounded import CONNECT_SECONDS, PLAIN, SILENT_SECONDS
from constitutional_ai.models.hosted.faults import UNPARSED
from constitutional_ai.models.hosted.resend import whole_answer
from constitutional_ai.models.hosted.server import BoundedClient
from constitutional_ai.models.logins import keep_logins, with_login
from constitutional_ai.records import as_messages
from constitutional_ai.safe_text import secrets_of, whole_characters, without_login

LOG = logging.getLogger(__name__)
LONGEST = 300
"""Characters to which the error message of a server is cut. It may be a page."""
MOST = 1e30
"""A number that is larger, infinite or NaN is no score."""


def remote_reward(url: str) -> Callable[..., list[float]]:
    """Return a reward function for TRL's trainers.

    Prompts and completions are lists of messages, or strings; a string may be a plain dialogue, or what a chat template
    of a known family rendered. The function raises ModelError if the server does not answer with scores, and InputError
    for a prompt that cannot be read.
    """

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float]:
        return _scores(url, [_messages(p, c) for p, c in zip(prompts, completions, strict=True)])

    return reward


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any], *, url: str, **_: Any
) -> float:
    """Return the score of one solution, as a custom reward function of verl.

    ``extra_info`` holds the ``prompt``, as messages or a string, or else the ``question``. Raises ModelError if the
    server does not answer with scores, and InputError for a prompt that cannot be read.
    """
    prompt = extra_info["prompt"] if "prompt" in extra_info else extra_info["question"]
    return _scores(url, [_messages(prompt, solution_str)])[0]


def _messages(prompt: Any, completion: Any) -> list[dict[str, Any]]:
    try:
        if isinstance(prompt, str) and isinstance(completion, str):
            return as_messages(conversation_of(prompt + completion, prompt))
        before = as_messages(split_prompt(prompt)[0]) if isinstance(prompt, str) else [dict(m) for m in prompt]
    except RecordError as error:
        raise InputError(f"a prompt cannot be read: {error}.") from error
    if isinstance(completion, str):
        return [*before, {"role": "assistant", "content": completion}]
    return [*before, *(dict(m) for m in completion)]


class _Rewards:
    """A reward server, asked from one event loop in a thread of its own: trainers have loops of theirs."""

    def __init__(self, url: str) -> None:
        self._url = with_login(keep_logins(url))
        # The path may be the token that ``cai serve`` demands.
        self.shown = "/".join(without_login(url).split("/")[:3])
        self._pool = Pool([self._url], _connect, openai.APIConnectionError, LOG.warning)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def ask(self, conversations: list[list[dict[str, Any]]]) -> Any:
        """Return the server's reply. Raises ModelError."""
        return asyncio.run_coroutine_threadsafe(self._ask(conversations), self._loop).result()

    async def _ask(self, conversations: list[list[dict[str, Any]]]) -> Any:
        body = {"conversations": conversations}
        try:
            return await whole_answer(
                lambda: self._pool.send(lambda client: client.post("/score", cast_to=object, body=body))
            )
        except openai.APIStatusError as error:
            raise ModelError(f"the reward server at {self.shown} says: {self._safe(error.message)}") from None
        except (openai.OpenAIError, TimeoutError, RecordError, *UNPARSED) as error:
            raise ModelError(
                f"no answer from the reward server at {self.shown}: {self._safe(str(error))} "
                "Start one with: cai serve"
            ) from None

    def _safe(self, message: str) -> str:
        for secret in secrets_of(self._url):
            message = message.replace(secret, "(key)")
        return whole_characters(message)[:LONGEST]


def _connect(address: Address[openai.AsyncOpenAI]) -> openai.AsyncOpenAI:
    """Return OpenAI's client, bounded in size and time. It connects to its address only, and sends no key."""
    return openai.AsyncOpenAI(
        base_url=address.url,
        api_key="none",
        max_retries=0,  # the pool tries again
        timeout=openai.Timeout(SILENT_SECONDS, connect=CONNECT_SECONDS),
        http_client=BoundedClient(headers=PLAIN),
    )


@cache
def _rewards(url: str, process: int) -> _Rewards:
    """Return the server at an address. A process that was forked has none of its parent's threads."""
    return _Rewards(url)


def _scores(url: str, conversations: list[list[dict[str, Any]]]) -> list[float]:
    server = _rewards(url, os.getpid())
    reply = server.ask(conversations)
    scores = reply.get("scores") if isinstance(reply, dict) else None
    if (
        not isinstance(scores, list)
        or len(scores) != len(conversations)
        or not all(type(score) in (int, float) and abs(score) <= MOST for score in scores)
    ):
        raise ModelError(f"the server at {server.shown} is not one of cai serve. Start one with: cai serve")
    return [float(score) for score in scores]
