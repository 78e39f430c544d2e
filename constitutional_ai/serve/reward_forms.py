"""What trainers send to a reward server, and what they read in its answer.

The forms of OpenRLHF and verl are those of their own clients; each is shown in docs/reward_server.md. A policy's end of
turn or a forged turn may stand in a string, so that lists of messages are the safest form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

from pydantic import AliasChoices, BaseModel, Field

from constitutional_ai.data.dialogues import conversation_of
from constitutional_ai.errors import InputError
from constitutional_ai.records import Conversation


class Form(Protocol):
    """What one kind of client sends, and is answered."""

    def asked(self) -> list[Conversation]: ...

    def answer(self, scores: list[float]) -> dict[str, Any]: ...


class Messages(BaseModel):
    """Our own form: nothing has to be read out of a string."""

    conversations: list[Conversation]

    def asked(self) -> list[Conversation]:
        return self.conversations

    def answer(self, scores: list[float]) -> dict[str, Any]:
        return {"scores": scores}


class OpenRLHF(BaseModel):
    """``query`` is a prompt and its answer as one string; with two servers, one of them is sent empty lists."""

    query: list[str | Conversation]
    prompts: list[str] | None = None

    def asked(self) -> list[Conversation]:
        prompts = [""] * len(self.query) if self.prompts is None else self.prompts
        if len(prompts) != len(self.query):
            raise InputError(f"query has {len(self.query)} texts, prompts {len(prompts)}: send one for each")
        return [
            conversation_of(said, prompt) if isinstance(said, str) else said
            for said, prompt in zip(self.query, prompts, strict=True)
        ]

    def answer(self, scores: list[float]) -> dict[str, Any]:
        return {"rewards": scores, "scores": scores, "extra_logs": {}}


class Embedding(BaseModel):
    """What verl asks of a reward model in SGLang: the score is an embedding of one number."""

    input: str | list[str]

    def asked(self) -> list[Conversation]:
        return [conversation_of(text) for text in ([self.input] if isinstance(self.input, str) else self.input)]

    def answer(self, scores: list[float]) -> dict[str, Any]:
        rows = [{"index": i, "object": "embedding", "embedding": [s]} for i, s in enumerate(scores)]
        return {"object": "list", "data": rows}


class Classification(Embedding):
    """What verl asks of a reward model in vLLM, where the activation must be declined: a score is no probability."""

    use_activation: Literal[False] = Field(validation_alias=AliasChoices("use_activation", "activation"))

    def answer(self, scores: list[float]) -> dict[str, Any]:
        rows = [{"index": i, "label": None, "probs": [s], "num_classes": 1} for i, s in enumerate(scores)]
        return {"object": "list", "data": rows}


FORMS: dict[str, Callable[[bytes], Form]] = {
    "/score": Messages.model_validate_json,
    "/get_reward": OpenRLHF.model_validate_json,
    "/v1/embeddings": Embedding.model_validate_json,
    "/classify": Classification.model_validate_json,
}
