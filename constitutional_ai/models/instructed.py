"""A model that reads the same instructions before every conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from constitutional_ai.models.model import Context, Format, Model, Sampling, plain
from constitutional_ai.records import Completion, Message


@dataclass(frozen=True)
class InstructedModel:
    """A model around a model: ``instructions`` are the system message of every conversation, before one of its own.

    >>> import asyncio
    >>> from constitutional_ai.models.scripted import ScriptedModel
    >>> polite = InstructedModel(ScriptedModel(say=lambda context: context), "Be polite.")
    >>> asyncio.run(polite.generate((Message("user", "Tea?"),), Sampling())).text
    '\\n\\nSystem: Be polite.\\n\\nHuman: Tea?\\n\\nAssistant:'
    """

    inner: Model
    instructions: str

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def format(self) -> Format:
        return self.inner.format

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        return await self.inner.generate(self._instructed(context), sampling)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        return await self.inner.score(self._instructed(context), continuations)

    def _instructed(self, context: Context) -> Context:
        if isinstance(context, str):
            return plain((Message("system", self.instructions),)).removesuffix("\n\nAssistant:") + context
        text = self.instructions
        if context and context[0].role == "system":  # templates take one system message
            text, context = f"{text}\n\n{context[0].content}", context[1:]
        return (Message("system", text), *context)
