"""Turns text into tokens and back, in one way for all engines that run weights here: all see the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import constants
from jinja2 import TemplateError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.chat_template import settle
from constitutional_ai.models.load import refuse_scorer
from constitutional_ai.models.model import STOP_STRINGS, Context, Format, Sampling, cut_at_stop, plain
from constitutional_ai.models.rendering import escape_content, escape_messages, escape_tokens, uses_plain_format
from constitutional_ai.models.thinking import TAG, Reply, completion_of, opens_thought, split_thought
from constitutional_ai.records import Completion, Conversation, FinishReason, as_messages

constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL would call the hub at every training


class Generation(NamedTuple):
    """A request to generate."""

    tokens: list[int]
    sampling: Sampling
    """Its ``max_tokens`` cover a thought and the answer."""
    stop: tuple[str, ...]
    """Texts that end the completion, beside the tokenizer's own end."""
    in_thought: bool = False
    """Whether the prompt ends inside a thought, so that the completion begins in it."""


class Scoring(NamedTuple):
    """A request to score."""

    context: list[int]
    continuations: list[list[int]]


class Tokens:
    """The tokenizer of a folder or hub id, and the facts about its model that requests need. No weights are read."""

    def __init__(self, name: str, path: str | Path) -> None:
        """Raises ModelError when there is no tokenizer or configuration to read, or the model writes no text."""
        self.name = name
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(path, padding_side="left")
            self.config: Any = AutoConfig.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise cannot_load(name, error) from error
        refuse_scorer(name, self.config.architectures)
        settle(self.tokenizer, name)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.ends = _ends(path, self.config) | {self.tokenizer.pad_token_id}
        self.format: Format = "plain" if uses_plain_format(self.tokenizer) else "chat"
        self.limit: int | None = getattr(self.config, "max_position_embeddings", None)

    def generation(self, context: Context, sampling: Sampling) -> Generation:
        """Return the request. Raises RecordError when no room is left, or the chat template refuses the turns."""
        stop = sampling.stop + (STOP_STRINGS if self.format == "plain" else ())
        text = self._render(context, thinks=sampling.thinking > 0)
        sampling = replace(sampling, max_tokens=sampling.max_tokens + sampling.thinking, thinking=0)
        in_thought = self.format == "chat" and not isinstance(context, str) and opens_thought(text)
        return Generation(self._encode(context, text, sampling.max_tokens), sampling, stop, in_thought)

    def scoring(self, context: Context, continuations: Sequence[str]) -> Scoring:
        """Return the request. Each continuation is tokenised by itself: it is the same tokens after any context.

        Raises RecordError for an empty one, and as ``generation`` does.
        """
        ends = [self.tokenizer(c, add_special_tokens=False)["input_ids"] for c in continuations]
        if not all(ends):
            raise RecordError("an empty continuation has no probability")
        return Scoring(self._encode(context, self._render(context), max(map(len, ends))), ends)

    def completion(self, request: Generation, tokens: list[int]) -> Completion:
        """Return the completion whose ids are ``tokens``, the end included if it was generated.

        Raises OnlyThought when the model thought and gave no answer.
        """
        ended = bool(tokens) and tokens[-1] in self.ends
        reply = self._reply(request, tokens[: len(tokens) - ended])
        answer, stopped = cut_at_stop(reply.answer, request.stop)
        finish: FinishReason = "stop" if ended or stopped else "length"
        count = len(tokens) - (ended and stopped)
        reply = Reply(reply.thought, answer.strip())
        return completion_of(reply, self.name, finish, len(request.tokens), count, request.sampling)

    def _reply(self, request: Generation, tokens: list[int]) -> Reply:
        """Return the thought and the answer. Some tags of thoughts are control tokens, which a text lacks."""
        whole = self.tokenizer.decode(tokens)
        reply = split_thought(whole, opened=request.in_thought)
        if self.format == "plain" or (
            reply.thought is None and not request.in_thought and not TAG.search(whole)
        ):
            return Reply(None, self.tokenizer.decode(tokens, skip_special_tokens=True))
        return Reply(
            reply.thought and self._without_control(reply.thought), self._without_control(reply.answer)
        )

    def _without_control(self, text: str) -> str:
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, "")
        return text.strip()

    def _render(self, context: Context, *, thinks: bool = False) -> str:
        """Return the text of a prompt, in which no content opens a turn."""
        if isinstance(context, str):
            return escape_tokens(context, self.tokenizer)
        if self.format == "plain":
            safe = [replace(m, content=escape_content(m.content, self.tokenizer)) for m in context]
            return plain(tuple(safe))
        return self._chat(context, thinks)

    def _encode(self, context: Context, text: str, room: int) -> list[int]:
        """Return the ids of a rendered prompt. Raises RecordError when fewer than ``room`` tokens are left."""
        templated = self.format == "chat" and not isinstance(
            context, str
        )  # it writes its control tokens itself
        tokens: list[int] = self.tokenizer(text, add_special_tokens=not templated)["input_ids"]
        if self.limit is not None and len(tokens) + room > self.limit:
            raise RecordError(
                f"{len(tokens)} tokens of context and {room} to come exceed the model's {self.limit}"
            )
        return tokens

    def _chat(self, conversation: Conversation, thinks: bool) -> str:
        messages = escape_messages(as_messages(conversation), self.tokenizer)
        continued = conversation[-1].role == "assistant"
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=not continued,
                continue_final_message=continued,
                **({"enable_thinking": True} if thinks else {}),
            )
        # Some templates refuse a role or an order of turns; some cut what a text says before "</think>".
        except (TemplateError, ValueError) as error:
            raise RecordError(f"the model's chat template refuses this conversation: {error}") from error
        return text


def cannot_load(name: str, error: Exception) -> ModelError:
    """Return the error to raise when a library cannot load a model."""
    first = (str(error).strip().splitlines() or ["no reason given"])[0]
    return ModelError(f"cannot load '{name}': {first} Give hf:<folder with config.json and whole safetensors>.")


def _ends(path: str | Path, config: Any) -> set[int]:
    try:
        ends = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # a folder without generation_config.json
        ends = config.eos_token_id
    return set() if ends is None else {ends} if isinstance(ends, int) else set(ends)
