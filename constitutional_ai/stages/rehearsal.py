"""The steps of a run, rehearsed: with a model that says filler as long as it may, and in a run that writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, TypeVar

from constitutional_ai.data.prompts import KINDS
from constitutional_ai.errors import InputError, RecordError
from constitutional_ai.models.load import LOCAL_SCHEMES, model_path
from constitutional_ai.models.model import Context, Format, Model, Sampling, plain
from constitutional_ai.records import Completion, Conversation, Kind, Message, Prompt, as_messages
from constitutional_ai.rl_cai.feedback.label import METHODS
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import HasId, Pass
from constitutional_ai.stages.job import Job

Row = TypeVar("Row", bound=HasId)
SAMPLE, AT_ONCE = 300, 32
"""Requests of a stage that are tokenised, and that are measured. The others count by their letters."""
FILLERS = 64
LETTERS = 4
"""In a token, where no tokenizer is at hand."""
WORDS = 0.75
"""In a token of the filler."""


class Rehearsed:
    """A model that says filler, and counts."""

    def __init__(self, name: str, words: Sequence[str], *, votes: bool) -> None:
        self.name, self._words = name, words
        self._begins, self._fillers = "(A) " if votes else "", dict[tuple[int, int], str]()
        self._tokens, self.exact = tokens_of(name)
        self.format: Format = "plain" if self.exact and self._tokens.plain else "chat"
        self._server = not name.startswith((*LOCAL_SCHEMES, "scripted:"))
        self.calls = self.written = 0
        self._letters = self._sampled_letters = self._sampled = 0
        self.sample: list[Callable[[Model], Any]] = []

    async def generate(self, context: Context, sampling: Sampling) -> Completion:
        self._count(context)
        self._keep(lambda model: model.generate(context, sampling))
        self.written += sampling.max_tokens
        said = self._filler(sampling.seed % FILLERS, max(3, int(WORDS * sampling.max_tokens)))
        return Completion(said, self.name, "stop", 0, sampling.max_tokens)

    def _filler(self, which: int, words: int) -> str:
        """One of a few, which all records share: there may be a million."""
        if (which, words) not in self._fillers:
            said = (self._words[(17 * which + at) % len(self._words)] for at in range(words))
            self._fillers[which, words] = self._begins + " ".join(said)
        return self._fillers[which, words]

    async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        # A server reads the context alone too, and again for each continuation, and writes one token each time.
        times = len(continuations) + 1 if self._server else 1
        self._count(context, times=times, more="".join(continuations))
        self.written += times if self._server else 0
        self._keep(lambda model: model.score(context, continuations))
        return [-1.0] * len(continuations)

    @property
    def read(self) -> int:
        """Tokens of all contexts: counted of the first ones, in proportion of the others."""
        return round(self._letters * self._sampled / max(1, self._sampled_letters))

    def _count(self, context: Context, *, times: int = 1, more: str = "") -> None:
        letters = len(context if isinstance(context, str) else plain(context)) * times + len(more)
        self._letters, self.calls = self._letters + letters, self.calls + 1
        if self.calls <= SAMPLE:
            self._sampled_letters += letters
            self._sampled += self._tokens(context) * times + (self._tokens(more) if more else 0)

    def _keep(self, ask: Callable[[Model], Any]) -> None:
        if len(self.sample) < AT_ONCE:
            self.sample.append(ask)


@dataclass(frozen=True, slots=True)
class Tokens:
    """How many tokens a context has."""

    tokenizer: Any
    plain: bool

    def __call__(self, context: Context) -> int:
        if self.tokenizer is None:
            return len(context if isinstance(context, str) else plain(context)) // LETTERS + 1
        if isinstance(context, str) or self.plain:
            return len(self.tokenizer(context if isinstance(context, str) else plain(context))["input_ids"])
        return self._in_chat(context)

    def _in_chat(self, talk: Conversation) -> int:
        goes_on = talk[-1].role == "assistant"
        text = self.tokenizer.apply_chat_template(
            as_messages(talk), tokenize=False, add_generation_prompt=not goes_on, continue_final_message=goes_on
        )
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])


@cache
def tokens_of(name: str) -> tuple[Tokens, bool]:
    """A model's own tokens and True where its tokenizer is here, else letters by ``LETTERS`` and False."""
    if not name.startswith(LOCAL_SCHEMES):
        return Tokens(None, False), False
    from transformers import AutoTokenizer

    from constitutional_ai.models.rendering import uses_plain_format

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path(name))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the tokenizer of '{name}': {str(error).splitlines()[0]}") from error
    return Tokens(tokenizer, uses_plain_format(tokenizer)), True


@dataclass(frozen=True)
class Nowhere(Run):
    """A run that writes nothing: what is made is held, and what a stage was made from does not matter."""

    held: dict[str, list[Any]] = field(default_factory=dict)

    def rows(self, stage: str, row_type: type[Row], file: str = layout.RECORDS) -> list[Row]:
        return self.held.get(stage, [])

    async def make_extra_rows(
        self, stage: str, file: str, row_type: type[Row], work: Pass[Any, Row], **how: int
    ) -> list[Row]:
        return await _made(work)

    def output_digest(self, stage: str) -> str:
        return ""


@dataclass(frozen=True)
class Rehearsal(Job):
    asked: list[Rehearsed] = field(default_factory=list)

    @contextmanager
    def loaded(self, name: str) -> Iterator[Model]:
        votes = not METHODS[self.recipe.feedback.method].needs_scores and name == self.recipe.models.feedback
        trained = name.startswith(f"hf:{self.run.folder}")  # its tokenizer is the base's
        words = " ".join(p.conversation[-1].content for p in self.prompts["helpful"].train).split()
        model = Rehearsed(self.recipe.models.pretrained if trained else name, words or ["word"], votes=votes)
        self.asked.append(model)
        yield model

    @cached_property
    def drafted(self) -> dict[Kind, list[Prompt]]:
        """As if every draft were kept."""
        return {kind: [_draft(kind, n) for n in range(self.drafts_wanted.get(kind, 0))] for kind in KINDS}

    def make_rows(
        self, stage: str, row_type: type[Row], passes: Callable[[], AsyncIterable[Pass[Any, Row]]], **how: Any
    ) -> list[Row]:
        async def all_passes() -> list[Row]:
            return [row async for work in passes() for row in await _made(work)]

        assert isinstance(self.run, Nowhere)
        self.run.held[stage] = asyncio.run(all_passes())
        return self.run.held[stage]


async def _made(work: Pass[Any, Row]) -> list[Row]:
    rows = []
    for item in work.items.values():
        try:
            rows.append(await work.step(item))
        except RecordError:  # filler that means something after all; the call is counted
            continue
    return rows


def _draft(kind: Kind, number: int) -> Prompt:
    return Prompt.of(
        (Message("user", f"Would you please tell me about drafted matter {number}?"),), kind, "drafted"
    )
