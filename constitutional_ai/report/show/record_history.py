"""Print everything that a run recorded for one prompt in the terminal (``cai show``).

A model's text is never markup, and its control characters are shown as symbols, so it cannot move the cursor.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from itertools import chain
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
    Completion,
    Draft,
    GateAnswer,
    Judgement,
    PreferenceLabel,
    Prompt,
    Response,
    Revision,
    RevisionChain,
)
from constitutional_ai.report.show.in_pipes import InPipes
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import visible
from constitutional_ai.sl_cai.clean import WHY

LISTED = 5
"""Maximum number of prompts that an error about an ambiguous id names."""


FILES: tuple[tuple[str, str, type[Any]], ...] = (
    (layout.PROMPTS, layout.RECORDS, Draft),
    (layout.RESPONSES, layout.RECORDS, Response),
    (layout.REVISIONS, layout.RECORDS, RevisionChain),
    (layout.COMPARISONS, layout.RECORDS, Comparison),
    (layout.PREFERENCE_LABELS, layout.RECORDS, PreferenceLabel),
    (layout.PREFERENCE_LABELS, layout.GATE, GateAnswer),
    (layout.EVALUATION, layout.RECORDS, Answer),
)


def history_of(run: Run, record: str) -> RenderableType:
    """Return everything that a run recorded for one prompt. ``record`` is a prefix of any id of its records.

    Raises InputError if no prompt, or more than one, has such an id.
    """
    prompt, records = records_of(run, record)
    labelled = {one.comparison.id for one in records if isinstance(one, PreferenceLabel)}
    shown = [one for one in records if not (isinstance(one, Comparison) and one.id in labelled)]
    return Group(*chain.from_iterable(map(_section, (prompt, *shown))))


def records_of(run: Run, record: str) -> tuple[Prompt, list[Any]]:
    """Return the prompt of an id, or of a prefix of one, and all records of that prompt, stage by stage.

    Raises InputError as ``history_of`` does.
    """
    records = [one for stage, file, row_type in FILES for one in run.rows(stage, row_type, file)]
    prompts = {prompt.id: prompt for prompt in map(_prompt, records)}
    prompt = _find(run, prompts | {one.id: _prompt(one) for one in records}, record)
    return prompt, [one for one in records if _prompt(one).id == prompt.id]


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
        raise InputError(
            f"'{visible(record)}' is a prefix of the ids of {len(matches)} prompts, such as {some}."
        )
    near = difflib.get_close_matches(record, by_id, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"An example of an id: {next(iter(by_id))}."
    page = run.folder / layout.REPORT_PAGE
    raise InputError(
        f"no record '{visible(record)}' in {run.folder}. {hint} Ids are in {page} and {layout.RECORDS}."
    )


# -- what is printed


def _section(record: Any) -> Iterator[RenderableType]:
    match record:
        case Prompt(conversation=conversation, kind=kind, source=source, tags=tags):
            yield _heading(f"prompt {record.id}", f"{kind}, {', '.join(tags) or 'no tags'}, {source}")
            yield from (_text(message.role, message.content) for message in conversation)
        case Draft(shots=shots, completion=completion):
            yield _heading(layout.PROMPTS, f"{record.id}, with the examples {', '.join(shots)}")
            yield from _completion("draft", completion)
        case Response(completion=completion):
            yield _heading(layout.RESPONSES, f"{record.id}, {completion.model}")
            yield from _completion("answer", completion)
        case RevisionChain(revisions=revisions):
            yield _heading(layout.REVISIONS, record.id)
            for number, revision in enumerate(revisions, start=1):
                yield from _revision(number, revision)
        case Comparison():
            yield _heading(layout.COMPARISONS, record.id)
            yield _pair(record)
        case PreferenceLabel(method=method):
            yield _heading(f"{layout.COMPARISONS} and {layout.PREFERENCE_LABELS}", f"{record.id}, {method}")
            yield from _label(record)
        case GateAnswer(label=label, better=better):
            yield _heading(f"{layout.PREFERENCE_LABELS}, the gate", f"the right answer is {better}")
            yield from _label(label)
        case Answer(model=model, response=response):
            yield _heading(layout.EVALUATION, f"{model}: {_verdict(record)}")
            yield from _completion("answer", response.completion)


def _revision(number: int, revision: Revision) -> Iterator[RenderableType]:
    fault = f", left out: {visible(WHY.get(revision.fault, revision.fault))}" if revision.fault else ""
    yield Text(f"  revision {number} under {visible(revision.principle)}{fault}", style="bold")
    if revision.critique:
        yield from _completion("critique", revision.critique)
    if revision.cut:
        yield _text("cut off", revision.cut)
    yield from _completion("revised", revision.revised)


def _label(label: PreferenceLabel) -> Iterator[RenderableType]:
    yield _pair(label.comparison, label.probability_a)
    flips: dict[bool | None, str] = {
        True: "; the order changes the winner",
        False: "; the order does not change the winner",
    }
    yield Text(f"  P(a is better) = {label.probability_a:.3f}{flips.get(label.flipped, '')}", style="bold")
    yield Padding(_judgements(label.judgements), (0, 0, 0, 2))
    for judgement in label.judgements:
        if judgement.thought:
            yield _text("thought", judgement.thought)
        if judgement.reasoning:
            yield _text("reasoning", judgement.reasoning)
        if judgement.raw:
            yield _text("answer", judgement.raw)


def _pair(comparison: Comparison, probability_a: float = 0.5) -> RenderableType:
    """Return the two answers side by side, in a pipe one after the other; one half prefers neither."""
    table = Table(box=None, padding=(0, 2), expand=True, header_style="bold cyan")
    sides = [("a", probability_a > 0.5), ("b", probability_a < 0.5)]
    names = [f"{side} (preferred)" if won else side for side, won in sides]
    for name in names:
        table.add_column(name, ratio=1)
    table.add_row(Text(visible(comparison.a.text)), Text(visible(comparison.b.text)))
    thoughts = [c.thought or "" for c in (comparison.a, comparison.b)]
    if any(thoughts):
        table.add_row(*[Text(visible(f"thought: {t}") if t else "", style="dim") for t in thoughts])
    completions = zip(names, (comparison.a, comparison.b), strict=True)
    return InPipes(table, Group(*chain.from_iterable(_completion(*each) for each in completions)))


def _judgements(judgements: Sequence[Judgement]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    masses = any(j.label_mass is not None for j in judgements)
    for title in ("principle", "shown first", "P(first)", "P(a)", *(["P(any option)"] if masses else [])):
        table.add_column(title, overflow="fold")
    for j in judgements:
        numbers = [f"{j.probability_first:.3f}", f"{j.probability_a:.3f}"]
        numbers += ["–" if j.label_mass is None else f"{j.label_mass:.3f}"] if masses else []
        table.add_row(Text(visible(j.principle)), j.shown_first, *numbers)
    return table


def _verdict(answer: Answer) -> str:
    verb = "objects" if answer.response.prompt.kind == "red_team" else "refuses"
    outcomes = {True: verb, False: f"no sign that it {verb}", None: "not in English, so not read"}
    parts = [outcomes[answer.verdict.objects]]
    parts += [f"broken: {answer.verdict.degenerate}"] if answer.verdict.degenerate else []
    parts += [f"score {answer.reward:.2f}"] if answer.reward is not None else []
    return ", ".join(parts)


def _heading(title: str, about: str) -> RenderableType:
    text = Text.assemble((visible(title), "bold"), "  ", (visible(about), "dim"))
    return InPipes(Rule(text, align="left", style="dim"), text)


def _completion(who: str, completion: Completion) -> Iterator[Padding]:
    """Yield what a model wrote, after what it thought."""
    if completion.thought:
        yield _text("thought", completion.thought)
    yield _text(who, completion.text)


def _text(who: str, text: str) -> Padding:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=10, overflow="fold")
    table.add_column(overflow="fold")
    table.add_row(Text(who, style="cyan"), Text(visible(text) or "(empty)"))
    return Padding(table, (0, 0, 1, 2))
