"""Turns text into tokens and back, in one way for all engines that run weights here: all see the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import constants
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.chat_template import rendered, settle
from constitutional_ai.models.model import STOP_STRINGS, Context, Format, Sampling, cut_at_stop, plain
from constitutional_ai.models.rendering import escape_content, escape_messages, escape_tokens, uses_plain_format
from constitutional_ai.models.scores_only import refuse_scorer
from constitutional_ai.models.thinking import TAG, Reply, completion_of, opens_thought, split_thought
from constitutional_ai.models.turn_tokens import end_of_turn
from constitutional_ai.records import Completion, Conversation, FinishReason, as_messages

constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL would call the hub at every training

NO_CODE: dict[str, Any] = {"trust_remote_code": False}
"""Python in a model's folder never runs. Without this, transformers asks on the terminal whether it may."""
BEFORE, SPACED = "\n", ("(A)", " (A)")
"""A text that no token joins with what follows, and texts that show whether the tokenizer puts a space before one."""


class Generation(NamedTuple):
    """A request to generate."""

    tokens: list[int]
    sampling: Sampling
    """Its ``max_tokens`` cover a thought and the answer."""
    stop: tuple[str, ...]
    """Texts that end the completion, beside the tokenizer's own end."""
    in_thought: bool = False
    """Whether the prompt ends inside a thought, so that the completion begins in it."""
    show: Callable[[str], None] | None = None
    """Gets the answer so far, from the thread that generates."""


class Scoring(NamedTuple):
    """A request to score."""

    context: list[int]
    continuations: list[list[int]]


class Tokens:
    """The tokenizer of a folder or hub id, and the facts about its model that requests need. No weights are read."""

    def __init__(self, name: str, path: str | Path) -> None:
        """Raises ModelError when there is no tokenizer or configuration to read, or the model writes no text."""
        self.name, self.tokenizer = name, settled_tokenizer(name, path)
        try:
            self.config: Any = AutoConfig.from_pretrained(path, **NO_CODE)
        except (OSError, ValueError) as error:
            raise cannot_load(name, error) from error
        refuse_scorer(name, self.config.architectures)
        give_padding(self.tokenizer, name)
        self.ends: set[int] = _ends(path, self.config) | {self.tokenizer.pad_token_id}
        if (turn := end_of_turn(self.tokenizer)) is not None:
            self.ends.add(turn)
        self.format: Format = "plain" if uses_plain_format(self.tokenizer) else "chat"
        self.limit: int | None = getattr(self.config, "max_position_embeddings", None)

    def generation(self, context: Context, sampling: Sampling) -> Generation:
        """Return the request. Raises RecordError when no room is left, or the chat template refuses the turns."""
        stop = sampling.stop + (STOP_STRINGS if self.format == "plain" else ())
        text = self._render(context, thinks=sampling.thinking > 0)
        sampling = replace(sampling, max_tokens=sampling.max_tokens + sampling.thinking, thinking=0)
        in_thought = self._is_templated(context) and opens_thought(text)
        return Generation(self._encode(context, text, sampling.max_tokens), sampling, stop, in_thought)

    def scoring(self, context: Context, continuations: Sequence[str]) -> Scoring:
        """Return the request. Each continuation is tokenised by itself: it is the same tokens after any context.

        Where the tokenizer puts a space before every text, they are the tokens that stand in the whole text. Raises
        RecordError for an empty continuation, and as ``generation`` does.
        """
        text = self._render(context)
        ends = [self._after(context, text, continuation) for continuation in continuations]
        if not all(ends):
            raise RecordError("an empty continuation has no probability")
        return Scoring(self._encode(context, text, max(map(len, ends))), ends)

    def _after(self, context: Context, text: str, continuation: str) -> list[int]:
        """Return the ids of a continuation of the rendered ``text``."""
        if not self._prefixes_space or not continuation:
            return self._ids(continuation)
        special = not self._is_templated(context)
        whole, before = self._ids(text + continuation, special), self._ids(text, special)
        if whole[: len(before)] == before:
            return whole[len(before) :]
        # A token spans the boundary: the continuation by itself, less the space.
        return self._ids(BEFORE + continuation)[len(self._ids(BEFORE)) :]

    @cached_property
    def _prefixes_space(self) -> bool:
        """Whether the tokenizer puts a space before a text, as Llama 2's does."""
        before = self._ids(BEFORE)
        inside = [self._ids(BEFORE + text) for text in SPACED]
        return any(
            whole[: len(before)] == before and whole[len(before) :] != self._ids(text)
            for text, whole in zip(SPACED, inside, strict=True)
        )

    def _ids(self, text: str, special: bool = False) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids

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

    def show(self, request: Generation, tokens: list[int]) -> None:
        """Show the answer so far, if somebody wants to see it, without a letter of which bytes are missing yet."""
        if request.show:
            answer = cut_at_stop(self._reply(request, tokens).answer, request.stop)[0]
            request.show(answer.rstrip("\ufffd").lstrip())

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
        tokens = self._ids(text, special=not self._is_templated(context))
        if self.limit is not None and len(tokens) + room > self.limit:
            raise RecordError(
                f"{len(tokens)} tokens of context and {room} to come exceed the model's {self.limit}"
            )
        return tokens

    def _is_templated(self, context: Context) -> bool:
        """Return whether a chat template renders the context. It then writes its control tokens itself."""
        return self.format == "chat" and not isinstance(context, str)

    def _chat(self, conversation: Conversation, thinks: bool) -> str:
        continued = conversation[-1].role == "assistant"
        return rendered(
            self.tokenizer,
            escape_messages(as_messages(conversation), self.tokenizer),
            add_generation_prompt=not continued,
            continue_final_message=continued,
            **({"enable_thinking": True} if thinks else {}),
        )


def give_padding(tokenizer: Any, name: str) -> None:
    """Choose a padding token where a tokenizer has none. Raises ModelError if there is none to choose."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"the tokenizer of '{name}' has no token for padding and none for the end of a text. Save it with an "
            "eos_token."
        )


def settled_tokenizer(name: str, path: str | Path) -> Any:
    """Return the tokenizer of a folder or hub id, with a settled chat template. Raises ModelError without one."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", **NO_CODE)
    except (OSError, ValueError) as error:
        raise cannot_load(name, error) from error
    settle(tokenizer, name)
    return tokenizer


def cannot_load(name: str, error: Exception) -> ModelError:
    """Return the error to raise when a library cannot load a model."""
    if "trust_remote_code" in str(error):
        return ModelError(
            f"'{name}' needs Python code from its own folder, which is never run here. Name a model of a family that "
            "transformers knows, or serve this one elsewhere and name it server:<model>@<url>."
        )
    reason = getattr(error, "strerror", None) or str(error).strip()
    first = (reason.splitlines() or ["no reason given"])[0]
    return ModelError(f"cannot load '{name}': {first} Give hf:<folder with config.json and whole safetensors>.")


def _ends(path: str | Path, config: Any) -> set[int]:
    try:
        ends = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # a folder without generation_config.json
        ends = config.eos_token_id
    return set() if ends is None else {ends} if isinstance(ends, int) else set(ends)
