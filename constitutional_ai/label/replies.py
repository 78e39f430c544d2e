"""Let models reply to the turns of conversations, and show the replies as they grow.

A whole reply is kept in the study. What has come of one when the server ends is not: after a restart it is written
again, with the same seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from constitutional_ai.errors import EmptyAnswer, ModelError, RecordError
from constitutional_ai.label.label_questions import PairQuestion
from constitutional_ai.label.study import Numbered, Study
from constitutional_ai.models.abilities import streamed
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.records import Side
from constitutional_ai.seeding import seed_of

LOOK_SECONDS = 0.1
"""How often a page hears of what is new."""
SIDES: tuple[Side, Side] = ("a", "b")
State = Literal["writing", "whole", "failed"]


@dataclass
class Growing:
    """A reply while it is written."""

    text: str = ""
    state: State = "writing"


@dataclass(frozen=True, slots=True)
class Shown:
    """Both replies to a turn at one moment."""

    a: str
    b: str
    state: State
    """``writing`` until both have ended; ``failed`` if one of them gave no reply."""

    def text(self, side: Side) -> str:
        """Return the reply of a side so far."""
        return self.a if side == "a" else self.b


@dataclass
class Replies:
    """Writes the replies of a study's models."""

    study: Study
    models: Mapping[str, Model]
    """Models by label."""
    say: Callable[[str], None]
    """Receives why a model gave no reply."""
    _growing: dict[tuple[int, Side], Growing] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def begin(self, turn: Numbered) -> None:
        """Begin the replies to a turn that are neither there nor being written."""
        question = turn.question
        assert isinstance(question, PairQuestion)
        for side in SIDES:
            if question.reply(side) is None and (turn.number, side) not in self._growing:
                growing = self._growing[turn.number, side] = Growing()
                task = asyncio.create_task(self._write(turn.number, question, side, growing))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def begin_again(self, turn: Numbered) -> None:
        """Begin the replies to a turn again that have failed."""
        for side in SIDES:
            growing = self._growing.get((turn.number, side))
            if growing and growing.state == "failed":
                del self._growing[turn.number, side]
        self.begin(turn)

    def shown(self, number: int) -> Shown:
        """Return both replies to a turn as far as they are there."""
        turn = self.study.question(number)
        assert turn is not None and isinstance(turn.question, PairQuestion)
        parts = {side: self._part(turn.question, number, side) for side in SIDES}
        states = {part.state for part in parts.values()}
        state: State = "writing" if "writing" in states else "failed" if "failed" in states else "whole"
        return Shown(parts["a"].text, parts["b"].text, state)

    async def changes(self, number: int) -> AsyncIterator[Shown]:
        """Yield both replies whenever they have grown, until none is being written."""
        before = None
        while True:
            now = self.shown(number)
            if now != before:
                yield now
            if now.state != "writing":
                return
            before = now
            await asyncio.sleep(LOOK_SECONDS)

    async def close(self) -> None:
        """Stop writing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _part(self, question: PairQuestion, number: int, side: Side) -> Growing:
        text = question.reply(side)
        return Growing(text, "whole") if text is not None else self._growing.get((number, side), Growing())

    async def _write(self, number: int, question: PairQuestion, side: Side, growing: Growing) -> None:
        settings, label = self.study.settings, question.a if side == "a" else question.b
        seed = seed_of(settings.seed, "talk", question.id, side)
        sampling = Sampling(temperature=settings.temperature, max_tokens=settings.max_tokens, seed=seed)

        def show(text: str) -> None:
            growing.text = text

        try:
            completion = await streamed(self.models[label], question.prompt.conversation, sampling, show)
            if not completion.text.strip():
                raise EmptyAnswer("the model returned an empty answer")
        except (RecordError, ModelError) as error:
            growing.state = "failed"
            self.say(f"{label} gave no reply: {error}")
        except Exception:
            growing.state = "failed"
            raise
        else:
            self.study.add_reply(number, side, completion.text)
            growing.text, growing.state = completion.text, "whole"
