"""Print everything that a run recorded for one prompt in the terminal (``cai show``).

A model's text is never markup, and its control characters are shown as symbols, so it cannot move the cursor.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from constitutional_ai.errors import InputError
from constitutional_ai.records import (
    Answer,
    Comparison,
    Draft,
    GateAnswer,
    Judgement,
    PreferenceLabel,
    Prompt,
    Response,
    Revision,
    RevisionChain,
)
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import visible
from constitutional_ai.sl_cai.clean import WHY

LISTED = 5
"""Maximum number of prompts that an error about an ambiguous id names."""


def history_of(run: Run, record: str) -> RenderableType:
    """Return everything that a run recorded for one prompt. ``record`` is a prefix of any id of its records.

    Raises InputError if no prompt, or more than one, has such an id.
    """
    return Group(*_sections(*records_of(run, record)))


@dataclass(frozen=True, slots=True)
class Records:
    """Records of a run, stage by stage."""

    drafts: Sequence[Draft]
    responses: Sequence[Response]
    chains: Sequence[RevisionChain]
    comparisons: Sequence[Comparison]
    gate: Sequence[GateAnswer]
    labels: Sequence[PreferenceLabel]
    answers: Sequence[Answer]

    def __iter__(self) -> Iterator[Any]:
        return (record for field in fields(self) for record in getattr(self, field.name))

    def by_id(self) -> dict[str, Prompt]:
        """Return the prompt of every record's id, including the prompts' own ids."""
        prompts = [(record.id, _prompt(record)) for record in self]
        return {prompt.id: prompt for _, prompt in prompts} | dict(prompts)

    def of(self, prompt: Prompt) -> Records:
        """Return the records of one prompt."""
        mine = {f.name: [r for r in getattr(self, f.name) if _prompt(r).id == prompt.id] for f in fields(self)}
        return Records(**mine)


def records_of(run: Run, record: str) -> tuple[Prompt, Records]:
    """Return the prompt of an id, or of a prefix of one, and all records of that prompt.

    Raises InputError as ``history_of`` does.
    """
    records = _read(run)
    prompt = _find(run, records.by_id(), record)
    return prompt, records.of(prompt)


def _read(run: Run) -> Records:
    return Records(
        drafts=run.rows(layout.PROMPTS, Draft),
        responses=run.rows(layout.RESPONSES, Response),
        chains=run.rows(layout.REVISIONS, RevisionChain),
        comparisons=run.rows(layout.COMPARISONS, Comparison),
        gate=run.rows(layout.PREFERENCE_LABELS, GateAnswer, layout.GATE),
        labels=run.rows(layout.PREFERENCE_LABELS, PreferenceLabel),
        answers=run.rows(layout.EVALUATION, Answer),
    )


def _prompt(record: Any) -> Prompt:
    """Return the prompt of a record, which may be in a nested record."""
    while not isinstance(record, Prompt):
        inner = ("prompt", "initial", "response", "comparison", "label")
        record = next(getattr(record, name) for name in inner if hasattr(record, name))
    return record


def _find(run: Run, by_id: dict[str, Prompt], record: str) -> Prompt:
    if not by_id:
        raise InputError(f"{run.folder} has no records yet. Make some with: cai run RECIPE out={run.folder}")
    if record in by_id:  # red_team.1 is also a prefix of red_team.10
        return by_id[record]
    matches = {prompt.id: prompt for name, prompt in by_id.items() if name.startswith(record)}
    if len(matches) == 1:
        return next(iter(matches.values()))
    if matches:
        some = ", ".join(list(matches)[:LISTED])
        more = f" and {len(matches) - LISTED} more" if len(matches) > LISTED else ""
        raise InputError(f"'{visible(record)}' is a prefix of the ids of {len(matches)} prompts: {some}{more}.")
    near = difflib.get_close_matches(record, by_id, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"An example of an id: {next(iter(by_id))}."
    page = run.folder / layout.REPORT_PAGE
    raise InputError(
        f"no record '{visible(record)}' in {run.folder}. {hint} Ids are in {page} and {layout.RECORDS}."
    )


# -- what is printed


def _sections(prompt: Prompt, records: Records) -> Iterator[RenderableType]:
    yield _heading(
        f"prompt {prompt.id}", f"{prompt.kind}, {', '.join(prompt.tags) or 'no tags'}, {prompt.source}"
    )
    for message in prompt.conversation:
        yield _text(message.role, message.content)
    for draft in records.drafts:
        yield _heading(layout.PROMPTS, f"{draft.id}, with the examples {', '.join(draft.shots)}")
        yield _text("draft", draft.completion.text)
    for response in records.responses:
        yield _heading(layout.RESPONSES, f"{response.id}, {response.completion.model}")
        yield _text("answer", response.text)
    for chain in records.chains:
        yield _heading(layout.REVISIONS, chain.id)
        for number, revision in enumerate(chain.revisions, start=1):
            yield from _revision(number, revision)
    for comparison in _unlabelled(records):
        yield _heading(layout.COMPARISONS, comparison.id)
        yield _pair(comparison)
    for label in records.labels:
        yield _heading(f"{layout.COMPARISONS} and {layout.PREFERENCE_LABELS}", f"{label.id}, {label.method}")
        yield from _label(label)
    for gate in records.gate:
        yield _heading(f"{layout.PREFERENCE_LABELS}, the gate", f"the right answer is {gate.better}")
        yield from _label(gate.label)
    for answer in records.answers:
        yield _heading(layout.EVALUATION, f"{answer.model}: {_verdict(answer)}")
        yield _text("answer", answer.response.text)


def _unlabelled(records: Records) -> list[Comparison]:
    labelled = {label.comparison.id for label in records.labels}
    return [comparison for comparison in records.comparisons if comparison.id not in labelled]


def _revision(number: int, revision: Revision) -> Iterator[RenderableType]:
    fault = f", left out: {visible(WHY.get(revision.fault, revision.fault))}" if revision.fault else ""
    yield Text(f"  revision {number} under {visible(revision.principle)}{fault}", style="bold")
    if revision.critique:
        yield _text("critique", revision.critique.text)
    if revision.cut:
        yield _text("cut off", revision.cut)
    yield _text("revised", revision.revised.text)


def _label(label: PreferenceLabel) -> Iterator[RenderableType]:
    yield _pair(label.comparison, label.probability_a)
    flipped = {
        True: "; the order changes the winner",
        False: "; the order does not change the winner",
        None: "",
    }[label.flipped]
    yield Text(f"  P(a is better) = {label.probability_a:.3f}{flipped}", style="bold")
    yield Padding(_judgements(label.judgements), (0, 0, 0, 2))
    for judgement in label.judgements:
        if judgement.reasoning:
            yield _text("reasoning", judgement.reasoning)


def _pair(comparison: Comparison, probability_a: float | None = None) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    wins = {
        "a": probability_a is not None and probability_a > 0.5,
        "b": probability_a is not None and probability_a < 0.5,
    }
    table.add_row(
        *[Text(f"  {side}{' (preferred)' if won else ''}", style="bold cyan") for side, won in wins.items()]
    )
    table.add_row(*[Padding(Text(visible(c.text)), (0, 0, 0, 2)) for c in (comparison.a, comparison.b)])
    return table


def _judgements(judgements: Sequence[Judgement]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for title in ("principle", "shown first", "P(first)", "P(a)"):
        table.add_column(title, overflow="fold")
    for j in judgements:
        numbers = (f"{j.probability_first:.3f}", f"{j.probability_a:.3f}")
        table.add_row(Text(visible(j.principle)), j.shown_first, *numbers)
    return table


def _verdict(answer: Answer) -> str:
    verb = "objects" if answer.response.prompt.kind == "red_team" else "refuses"
    parts = [verb if answer.verdict.objects else f"no sign that it {verb}"]
    parts += [f"broken: {answer.verdict.degenerate}"] if answer.verdict.degenerate else []
    parts += [f"score {answer.reward:.2f}"] if answer.reward is not None else []
    return ", ".join(parts)


def _heading(title: str, about: str) -> Rule:
    return Rule(
        Text.assemble((visible(title), "bold"), "  ", (visible(about), "dim")), align="left", style="dim"
    )


def _text(who: str, text: str) -> Padding:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=10, overflow="fold")
    table.add_column(overflow="fold")
    table.add_row(Text(who, style="cyan"), Text(visible(text) or "(empty)"))
    return Padding(table, (0, 0, 1, 2))
