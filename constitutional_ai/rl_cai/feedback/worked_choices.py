"""Write worked examples of feedback before a question in the plain format (FB-7, FB-12).

They show a pretrained model how to answer. Ours are in ``data/few_shots/``; the paper's are read from a folder that the
user names, in the same format.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constitutional_ai.constitutions.constitution import Principle, draw
from constitutional_ai.data.worked_examples import examples_in
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


@dataclass(frozen=True, slots=True)
class FewShots:
    """The worked examples of both of the paper's methods."""

    choices: tuple[WorkedChoice, ...]
    thoughts: tuple[str, ...]

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


def load_few_shots(folder: Path | None) -> FewShots | None:
    """Read the worked examples in the paper's repository, or in its ``prompts/`` folder; return None for None.

    Raises InputError that names what is missing or wrong.
    """
    if folder is None:
        return None
    return FewShots(
        choices=tuple(_choice(*item) for item in examples_in(folder, MULTIPLE_CHOICE)),
        thoughts=tuple(_thought(*item) for item in examples_in(folder, CHAIN_OF_THOUGHT)),
    )


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
