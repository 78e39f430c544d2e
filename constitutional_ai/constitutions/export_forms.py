"""Write a constitution in the forms that others read: our own YAML, llm-swarm's JSON, or NeMo-Aligner's two files.

Their forms hold texts only. Names, weights, scopes and anchors stay behind, and so do the principles of which they hold
no side; ``left_behind`` says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Literal

from constitutional_ai.constitutions.constitution import Constitution
from constitutional_ai.constitutions.published import CRITIQUE, NEMO, PAIRS, REVISION
from constitutional_ai.errors import InputError

Form = Literal["yaml", "llm-swarm", "nemo-aligner"]
SYSTEM = """\
You compare two replies of an assistant. Use the numbered statements below, and nothing else.

```CONSTITUTION
{statements}
```

Say which reply fits them better.
"""
"""The judge's system prompt around the list. NeMo-Aligner reads it whole, and so do we, up to the list."""


def exported(constitution: Constitution, form: Form) -> dict[str, str]:
    """Return the texts of the files, by name; one file has the name ``""``, which the user chooses.

    Raises InputError if the form would hold no principle.
    """
    return FORMS[form](constitution)


def left_behind(constitution: Constitution, form: Form) -> list[str]:
    """Return what the form does not hold, a phrase each; nothing for our own YAML."""
    if form == "yaml":
        return []
    principles = [p for p in constitution.principles if p.revision or p.preference]
    counts = {
        "principles without a critique": sum(not p.critique for p in principles) if form == "llm-swarm" else 0,
        "revisions without a critique": sum(bool(p.revision) and not p.critique for p in principles)
        if form == "nemo-aligner"
        else 0,
        "weights other than 1": sum(p.weight != 1 for p in principles),
        "scopes (applies_to)": sum(bool(p.applies_to) for p in principles),
        "pairs of 'upheld' and 'broken'": sum(bool(p.upheld) for p in principles),
        "propositions": len(constitution.propositions),
    }
    return [f"{count} {what}" for what, count in counts.items() if count]


def _yaml(constitution: Constitution) -> dict[str, str]:
    return {"": constitution.to_yaml()}


def _swarm(constitution: Constitution) -> dict[str, str]:
    pairs = [{"critic": p.critique, "revision": p.revision} for p in constitution.for_revision if p.critique]
    if not pairs:
        raise _nothing(constitution, "llm-swarm", "a critique and a revision")
    return {"": _json({"constitutions": pairs, "system_chat": []})}


def _nemo(constitution: Constitution) -> dict[str, str]:
    pairs = {
        p.name: {"prompt": [p.critique.join(CRITIQUE)], "edit_request": (p.revision or "").join(REVISION)}
        for p in constitution.for_revision
        if p.critique
    }
    questions = [p.preference or "" for p in constitution.for_preference]
    lines = [f"{number}. {' '.join(text.split())}" for number, text in enumerate(questions, start=1)]
    files = {PAIRS: _json(pairs)} if pairs else {}
    if lines:
        files[NEMO] = SYSTEM.replace("{statements}", "\n".join(lines).replace("```", "'''"))
    if not files:
        raise _nothing(constitution, "nemo-aligner", "a critique and a revision, or a preference question")
    return files


def _json(data: object) -> str:
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"


def _nothing(constitution: Constitution, form: str, sides: str) -> InputError:
    return InputError(f"'{constitution.name}' has no principle with {sides}, which is all that {form} reads.")


FORMS: dict[Form, Callable[[Constitution], dict[str, str]]] = {
    "yaml": _yaml,
    "llm-swarm": _swarm,
    "nemo-aligner": _nemo,
}
