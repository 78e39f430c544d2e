"""Count the tokens of every request to a model on the meter of the record that it is sent for (``runs/meter.py``)."""

from __future__ import annotations

from collections.abc import Sequence

from constitutional_ai.errors import RecordError
from constitutional_ai.models.abilities import DecisionQuestion, Reading, ReadsLetters, close, decider
from constitutional_ai.models.model import Context, Format, Model, Sampling
from constitutional_ai.records import Completion, Conversation
from constitutional_ai.runs import meter


def counted(model: Model) -> CountedModel:
    """Return a model that counts the requests to ``model``, and has its abilities."""
    return CountedLetters(model) if isinstance(model, ReadsLetters) else CountedModel(model)


class CountedModel:
    """A model whose requests are counted, those that fail too, where their tokens are known."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def format(self) -> Format:
        return self._model.format

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        """See ``Model``."""
        allowed = sampling.max_tokens + sampling.thinking
        try:
            completion = await self._model.generate(context, sampling)
        except RecordError as error:
            meter.count(*error.tokens, allowed)
            raise
        meter.count(completion.prompt_tokens, completion.completion_tokens, allowed)
        return completion

    async def close(self) -> None:
        """See ``Closes``."""
        await close(self._model)

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        """See ``Model``. Scores report no tokens."""
        return await self._model.score(context, continuations)

    async def decide(self, state: str, question: DecisionQuestion) -> Reading:
        """See ``Decides``. Raises ModelError if the model answers no decision questions."""
        return _count(await decider(self._model).decide(state, question))


class CountedLetters(CountedModel):
    """The same of a model whose letters can be read."""

    async def letters(self, conversation: Conversation, letters: Sequence[str]) -> Reading:
        """See ``ReadsLetters``."""
        assert isinstance(self._model, ReadsLetters)
        return _count(await self._model.letters(conversation, letters))


def _count(reading: Reading) -> Reading:
    meter.count(*reading.usage, reading.completion_tokens)
    return reading
