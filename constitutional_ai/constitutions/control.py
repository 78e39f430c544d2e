"""Control arms: the same run under a constitution with its content taken out. Ours; the paper has none.

A recipe's ``control`` derives one from its ``constitution``, and all else stays. ``cai compare`` then says whether the
constitution did it, or only the machinery around it.

* ``empty`` asks the same number of times, and names no standard, not even "better". Described alike, two assistants
  are equally likely: every label by likelihood is then one half.
* ``shuffled`` keeps every principle's words and their number, in an order drawn from the run's seed. What such a run
  still does, the words alone do; one shuffle may lean some way by luck, so try several seeds.
* ``without:NAME`` leaves one principle out.

Names and weights stay, so both arms draw the same principles. Three things are not the constitution's and stay too:
worked examples, which hold requests of their own (``few_shots=none`` in both arms is without them), people's
helpfulness pairs, and the gate, which a control may well fail: leave ``feedback.gate`` at ``warn``.
"""

from __future__ import annotations

import random

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.errors import InputError, did_you_mean
from constitutional_ai.seeding import rng

WITHOUT = "without:"
EMPTY = {
    "critique": "Comment on your last reply.",
    "revision": "Write your reply again.",
    "preference": "Which of these replies would you choose?",
    "upheld": "You are an assistant.",
    "broken": "You are an assistant.",
}


def check_control(control: str) -> str:
    """Raises ValueError when it is none of the three. ``none`` could mean two things, so it means nothing."""
    if control in ("empty", "shuffled") or control.removeprefix(WITHOUT) not in ("", control):
        return control
    raise ValueError(
        f"unknown control '{control}'. Write empty, shuffled or without:PRINCIPLE; null is no control"
    )


def apply_control(constitution: Constitution, control: str | None, seed: int) -> Constitution:
    """The constitution that a control arm runs under. Raises InputError when there is nothing to leave out."""
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
    return Constitution(
        name=f"{constitution.name} (control: {control})",
        description=f"Made from '{constitution.name}', version {constitution.digest}, to compare with.",
        principles=tuple(principles),
    )


def _with(principle: Principle, texts: dict[str, str]) -> Principle:
    return Principle.model_validate(principle.model_dump() | texts)


def _shuffled(principle: Principle, seed: int) -> dict[str, str]:
    texts: dict[str, str] = {}
    for side in ("critique", "revision", "preference"):
        if text := getattr(principle, side):
            texts[side] = " ".join(_reordered(text.split(), rng(seed, "shuffled", principle.name, side)))
    if principle.upheld and principle.broken:
        # Together: each alone would keep its "no" or "yes", and their contrast is what is read.
        upheld, broken = principle.upheld.split(), principle.broken.split()
        dealt = _reordered(upheld + broken, rng(seed, "shuffled", principle.name, "upheld"))
        texts |= {"upheld": " ".join(dealt[: len(upheld)]), "broken": " ".join(dealt[len(upheld) :])}
    return texts


def _reordered(words: list[str], draws: random.Random) -> list[str]:
    """Never as they were, unless all are one word."""
    made = list(words)
    while made == words and len(set(words)) > 1:
        draws.shuffle(made)
    return made


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
            f"control={WITHOUT}{name} leaves constitution '{constitution.name}' without principles to revise under, "
            "or to compare under. To run without any, set control=empty."
        )
    return kept
