"""Write worked examples of feedback before a question in the plain format (FB-7, FB-12).

They show a pretrained model how to answer. Ours are in ``data/few_shots/``; the paper's are read from a folder that the
user names, in the same format.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from constitutional_ai.constitutions.constitution import Principle, draw
from constitutional_ai.data.worked_examples import CRITIQUE_REVISION, examples_in
from constitutional_ai.errors import InputError
from constitutional_ai.models.model import ASSISTANT, HUMAN
from constitutional_ai.records import Message
from constitutional_ai.rl_cai.feedback import questions

MULTIPLE_CHOICE = "RLMadisonFewShotPrompts.json"
CHAIN_OF_THOUGHT = "RLMadisonPrecogFewShotPrompts.json"
SLOT = "{}"


@dataclass(frozen=True, slots=True, repr=False)
class WorkedChoice:
    """A prompt with a better and a worse answer."""

    prompt: str
    better: str
    worse: str

    def __repr__(self) -> str:  # a run's digest of its few-shots depends on this text, so it must not change
        return f"Choice(asked={self.prompt!r}, better={self.better!r}, worse={self.worse!r})"

    def solved(self, principle: str, better_first: bool) -> str:
        """Return the question of FB-4 with the letter of the better answer."""
        answers = (self.better, self.worse) if better_first else (self.worse, self.better)
        question = questions.question((Message("user", self.prompt),), principle, *answers)
        return f"\n\n{question}\n\n{questions.ANSWER}{questions.CHOICES[0 if better_first else 1]}"


class WorkedReply(NamedTuple):
    """A dialogue that was revised: what comes before the answer, the answer, and its revision."""

    before: str
    answer: str
    revision: str


@dataclass(frozen=True, slots=True)
class FewShots:
    """The worked examples of both of the paper's methods, and of ours."""

    choices: tuple[WorkedChoice, ...]
    thoughts: tuple[str, ...]
    replies: tuple[WorkedReply, ...] = field(default=(), repr=False)  # the digest of a run holds them already

    def multiple_choice(self, principles: Sequence[Principle], rng: random.Random) -> str:
        r"""Return the examples, each under a random principle, in random order (FB-7); begins with ``\n\nConsider``."""
        return "".join(c.solved(_preference(principles, rng), rng.random() < 0.5) for c in self.choices)

    def chain_of_thought(self, principles: Sequence[Principle], rng: random.Random) -> str:
        r"""Return the examples, each under a random principle, with their answers in the written order (FB-12).

        The text begins with ``\n\nHuman:``.
        """
        # As in the released principles: a line break before, "Options:" after. Not str.format: texts contain braces.
        return "".join(
            f"\n\n{shot.replace(SLOT, f'{chr(10)}{_preference(principles, rng)} Options:')}"
            for shot in self.thoughts
        )

    def revised(self) -> str:
        r"""Return the revised dialogues of the critiques as if each had been answered so at once (ours).

        The text begins with ``\n\nHuman:``.
        """
        return "".join(f"{reply.before}{ASSISTANT} {reply.revision}" for reply in self.replies)

    def unrevised(self) -> str:
        """Return the same dialogues with the answers that were revised."""
        return "".join(f"{reply.before}{ASSISTANT} {reply.answer}" for reply in self.replies)


def load_few_shots(folder: Path | None) -> FewShots | None:
    """Read the worked examples in the paper's repository, or in its ``prompts/`` folder; return None for None.

    Raises InputError that names what is missing or wrong.
    """
    if folder is None:
        return None
    return FewShots(
        choices=tuple(_choice(*item) for item in examples_in(folder, MULTIPLE_CHOICE)),
        thoughts=tuple(_thought(*item) for item in examples_in(folder, CHAIN_OF_THOUGHT)),
        replies=tuple(filter(None, map(_reply, _dialogues(folder)))),
    )


def _dialogues(folder: Path) -> list[Any]:
    """Return the worked critiques and revisions; none if a folder, which is then not the paper's, has no such file."""
    try:
        return [dialogue for _, dialogue in examples_in(folder, CRITIQUE_REVISION)]
    except InputError:
        return []


def _reply(dialogue: Any) -> WorkedReply | None:
    """Return a dialogue's answer and last revision; None if it has another form, as a few released ones may."""
    talk, request, rest = str(dialogue).partition("\n\nCritiqueRequest:")
    before, _, answer = talk.rpartition(ASSISTANT)
    revision = rest.rpartition("\n\nRevision:")[2].partition("\n\n")[0]
    if not (request and before and answer.strip() and revision.strip()):
        return None
    return WorkedReply(before, answer.strip(), revision.strip())


def _preference(principles: Sequence[Principle], rng: random.Random) -> str:
    return draw(principles, rng).preference or ""


def _choice(place: str, item: Any) -> WorkedChoice:
    match item:
        case {"prompt": str(prompt), "corrects": [str(better)], "incorrects": [str(worse)]}:
            begins, ends = prompt.startswith(f"{HUMAN} "), prompt.endswith(ASSISTANT)
            if begins and ends and prompt.count(HUMAN) == prompt.count(ASSISTANT) == 1:
                return WorkedChoice(prompt[len(HUMAN) + 1 : -len(ASSISTANT)], better, worse)
    raise InputError(
        f"{place} must hold 'prompt', one human turn from {HUMAN!r} to {ASSISTANT!r}, and 'corrects' and "
        "'incorrects', a list of one text each."
    )


def _thought(place: str, item: Any) -> str:
    """Return the example without line breaks around it, because released ones begin with two, one or none."""
    match item:
        case {"prompt": str(prompt)} if prompt.count(SLOT) == 1:
            return prompt.strip()
    raise InputError(f"{place} must hold 'prompt', a text with one {SLOT!r} where the principle goes.")
