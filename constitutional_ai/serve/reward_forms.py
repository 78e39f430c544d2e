"""Define the requests that trainers send to a reward server, and the responses that they read.

docs/reward_server.md shows our form and that of OpenRLHF's client. A string may contain a policy's end of turn or a
forged turn, so lists of messages are the safest form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from pydantic import BaseModel

from constitutional_ai.data.dialogues import conversation_of
from constitutional_ai.errors import InputError
from constitutional_ai.records import Conversation


class Form(Protocol):
    """A request by one kind of client."""

    def to_score(self) -> list[Conversation]:
        """Return the conversations. Raises InputError if they cannot be parsed."""

    def answer(self, scores: list[float]) -> dict[str, Any]:
        """Return the JSON that the client reads, from one score for each conversation."""


class Messages(BaseModel):
    """Our own form, in which no string has to be parsed."""

    conversations: list[Conversation]

    def to_score(self) -> list[Conversation]:
        return self.conversations

    def answer(self, scores: list[float]) -> dict[str, Any]:
        return {"scores": scores}


class OpenRLHF(BaseModel):
    """OpenRLHF's form, in which each ``query`` is a prompt and its answer in one string.

    With two servers, a client may send empty lists to one of them.
    """

    query: list[str | Conversation]
    prompts: list[str] | None = None

    def to_score(self) -> list[Conversation]:
        prompts = [""] * len(self.query) if self.prompts is None else self.prompts
        if len(prompts) != len(self.query):
            raise InputError(f"query has {len(self.query)} texts, prompts {len(prompts)}: send one for each")
        return [
            conversation_of(query, prompt) if isinstance(query, str) else query
            for query, prompt in zip(self.query, prompts, strict=True)
        ]

    def answer(self, scores: list[float]) -> dict[str, Any]:
        return {"rewards": scores, "scores": scores, "extra_logs": {}}


FORMS: dict[str, Callable[[bytes], Form]] = {
    "/score": Messages.model_validate_json,
    "/get_reward": OpenRLHF.model_validate_json,
}
