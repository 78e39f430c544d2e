"""Make control constitutions: the same principles without their content. Ours; the paper has none.

A recipe's ``control`` derives one from its ``constitution`` and changes nothing else in the run. ``cai compare`` then
shows whether an effect comes from the constitution, or only from the procedure around it.

* ``empty`` asks the same number of questions, but names no standard, not even "better". For feedback by likelihood both
  descriptions are the same, so every such label is one half.
* ``shuffled`` puts every principle's words in an order drawn from the run's seed. An effect that remains comes from
  the words alone. One shuffle may be biased by chance, so try several seeds.
* ``without:NAME`` leaves one principle out.

Names and weights are unchanged, so both runs draw the same principles. Three things are not part of the constitution
and are unchanged too: the worked examples, which contain requests of their own (set ``few_shots=none`` in both runs to
remove them), people's helpfulness pairs, and the gate. Its questions are asked, but it gives no verdict on a control,
which may well answer them at random, and does not stop it.
"""

from __future__ import annotations

import random
import re

from pydantic import ValidationError

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.errors import InputError, did_you_mean, first_fault
from constitutional_ai.seeding import rng

WITHOUT = "without:"
EMPTY = {
    "critique": "Comment on your last reply.",
    "revision": "Write your reply again.",
    "preference": "Which of these replies would you choose?",
    "upheld": "You are an assistant.",
    "broken": "You are an assistant.",
    "proposition": "Is this a reply?",
}

DERIVED = re.compile(r"\(control: (.+)\)$")
"""The end of the name of a control constitution."""


def check_control(control: str) -> str:
    """Return ``control``. Raises ValueError unless it is one of the three above; ``none`` would be ambiguous."""
    if control in ("empty", "shuffled") or control.removeprefix(WITHOUT) not in ("", control):
        return control
    raise ValueError(
        f"unknown control '{control}'. Write empty, shuffled or without:PRINCIPLE, or null for no control"
    )


def apply_control(constitution: Constitution, control: str | None, seed: int) -> Constitution:
    """Return the control constitution of ``constitution``, or itself if ``control`` is None.

    Raises InputError for a principle that does not exist or cannot be left out.
    """
    if control is None:
        return constitution
    if control == "empty":
        principles = [
            _with(p, {side: text for side, text in EMPTY.items() if getattr(p, side)})
            for p in constitution.principles
        ]
    elif control == "shuffled":
        principles = [_with(p, _shuffled(p, seed)) for p in constitution.principles]
    else:
        principles = _without(constitution, control.removeprefix(WITHOUT))
    try:
        return Constitution(
            name=f"{constitution.name} (control: {control})",
            description=f"Made from '{constitution.name}', version {constitution.digest}, to compare with.",
            principles=tuple(principles),
        )
    except ValidationError as error:  # the principle that is left out is the last one for all prompts
        raise InputError(f"control={control}: {first_fault(error)}.") from error


def describe_control(control: str | None, constitution: Constitution | None) -> str | None:
    """Return what makes a run a control run, such as ``control: empty``; None if it is no control.

    A run is one if its recipe says ``control``, if its constitution was made for a control, or if no principle that
    judges names a standard, so that the judge has nothing to go by.
    """
    derived = DERIVED.search(constitution.name) if constitution else None
    if control or derived:
        return f"control: {control or (derived and derived[1])}"
    judging = [p for p in constitution.principles if p.preference or p.upheld] if constitution else []
    return "a constitution without content" if judging and all(map(_names_no_standard, judging)) else None


def _names_no_standard(principle: Principle) -> bool:
    """Return whether a principle asks for a choice without a word on what is better."""
    question = principle.preference or ""
    return principle.upheld == principle.broken and (
        question == EMPTY["preference"] or not any(map(str.isalpha, question))
    )


def _with(principle: Principle, texts: dict[str, str]) -> Principle:
    return Principle.model_validate(principle.model_dump() | texts)


def _shuffled(principle: Principle, seed: int) -> dict[str, str]:
    texts: dict[str, str] = {}
    for side in ("critique", "revision", "preference", "proposition"):
        if text := getattr(principle, side):
            texts[side] = " ".join(_reordered(text.split(), rng(seed, "shuffled", principle.name, side)))
    if principle.upheld and principle.broken:
        # Shuffled together: shuffled alone, each would keep its "no" or "yes", and the label depends on their contrast.
        upheld, broken = principle.upheld.split(), principle.broken.split()
        words = _reordered(upheld + broken, rng(seed, "shuffled", principle.name, "upheld"))
        texts |= {"upheld": " ".join(words[: len(upheld)]), "broken": " ".join(words[len(upheld) :])}
    return texts


def _reordered(words: list[str], draws: random.Random) -> list[str]:
    """Return the words in another order, unless all are the same word."""
    order = list(words)
    while order == words and len(set(words)) > 1:
        draws.shuffle(order)
    return order


def _without(constitution: Constitution, name: str) -> list[Principle]:
    names = [p.name for p in constitution.principles]
    if name not in names:
        raise InputError(
            f"control={WITHOUT}{name}: constitution '{constitution.name}' has no such principle."
            f"{did_you_mean(name, names)}"
        )
    kept = [p for p in constitution.principles if p.name != name]
    if not (any(p.revision for p in kept) and any(p.preference for p in kept)):
        raise InputError(
            f"control={WITHOUT}{name} removes the last principle with 'revision' or 'preference' from constitution "
            f"'{constitution.name}'. To run without any, set control=empty."
        )
    return kept
