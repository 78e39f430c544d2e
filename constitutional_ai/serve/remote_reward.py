"""Define reward functions for TRL and verl that get their scores from a reward server (``cai serve``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import openai

from constitutional_ai.data.dialogues import conversation_of, split_prompt
from constitutional_ai.errors import InputError, ModelError, RecordError
from constitutional_ai.records import as_messages

RETRIES, TIMEOUT_SECONDS = 4, 600.0


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


@cache
def _client(url: str) -> openai.OpenAI:
    """Return OpenAI's client, which is used for its retries. It connects to ``url`` only, and sends no key."""
    return openai.OpenAI(base_url=url, api_key="none", max_retries=RETRIES, timeout=TIMEOUT_SECONDS)


def _scores(url: str, conversations: list[list[dict[str, Any]]]) -> list[float]:
    try:
        reply: Any = _client(url).post("/score", cast_to=object, body={"conversations": conversations})
    except openai.APIStatusError as error:
        raise ModelError(f"the reward server at {url} says: {error.message}") from error
    except openai.OpenAIError as error:
        raise ModelError(
            f"no answer from the reward server at {url}: {error} Start one with: cai serve"
        ) from error
    scores = reply.get("scores") if isinstance(reply, dict) else None
    if not isinstance(scores, list) or len(scores) != len(conversations):
        raise ModelError(f"the server at {url} is not one of cai serve. Start one with: cai serve")
    return [float(score) for score in scores]
