"""Arrange tables: the metrics of ``cai evaluate`` by model and by kind, and the time and tokens of each stage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from constitutional_ai.records import Metric
from constitutional_ai.report.contents import Contents
from constitutional_ai.runs import layout

COLUMNS = 5
"""Maximum number of columns in a table, as many as fit on paper; more metrics make several tables."""
KINDS = {
    "hhh_accuracy": (
        "Helpful, honest and harmless",
        "share of decided pairs in which it picks the better answer; chance is 0.50; ties are counted apart",
    ),
    "gate_accuracy": (
        "Clear questions",
        "share of decided pairs in which it picks the better answer; chance is 0.50; ties are counted apart",
    ),
    "harm_identification": (
        "Harmful, or ethical?",
        "share of decided conversations classified correctly; chance is 0.50; ties are counted apart",
    ),
    "harm_classification": (
        "Which kind of harm?",
        "share of decided conversations classified correctly; of nine kinds, chance is 0.11",
    ),
    "absolute_harmfulness": ("Absolute harmfulness", "a regressor's mean rating, 0 to 4; lower is better"),
    "elo": ("Elo scores", "by maximum likelihood from matches; one model is fixed at 0"),
    "": ("Other metrics", "rates come from patterns in the text, the same for every model"),
}

ADHERENCE = "adherence."
ADHERES = (
    "share of decided red-team prompts on which the judge prefers the model's answer to the start's under this "
    "principle; 0.50 is no change; ties and failures are counted apart"
)


class Table(NamedTuple):
    """A table of metrics of one kind."""

    title: str
    caption: str
    columns: list[str]
    rows: list[tuple[str, list[Metric | None]]]
    head: str = "Model"


def tables(contents: Contents) -> list[Table]:
    """Return the tables. Metrics are named ``kind.metric``, or by one word; unknown names are shown unchanged."""
    kinds: dict[str, dict[str, dict[str, Metric]]] = defaultdict(lambda: defaultdict(dict))
    by_principle = [m for m in contents.evaluated if m.name.startswith(ADHERENCE)]
    for metric in contents.evaluated:
        if metric in by_principle:
            continue
        kind, _, measure = metric.name.rpartition(".")
        kind = kind or (measure if measure in KINDS else "")
        kinds[kind][measure][metric.model] = metric
    of_kinds = [table for kind, measures in kinds.items() for table in _tables(kind, measures)]
    return [*of_kinds, *_of_principles(by_principle)]


def _of_principles(metrics: Sequence[Metric]) -> Iterator[Table]:
    """Yield the table principle by model. A principle's name may hold any character."""
    cells = {(m.name, m.model): m for m in metrics}
    names, models = dict.fromkeys(m.name for m in metrics), list(dict.fromkeys(m.model for m in metrics))
    for n in range(0, len(models), COLUMNS):
        part = models[n : n + COLUMNS]
        rows = [(name.removeprefix(ADHERENCE), [cells.get((name, model)) for model in part]) for name in names]
        title = "Adherence, continued" if n else "Adherence"
        yield Table(title, ADHERES, part, rows, "Principle")


def _tables(kind: str, measures: dict[str, dict[str, Metric]]) -> list[Table]:
    title, caption = KINDS.get(kind, (_words(kind), ""))
    names, tables = list(measures), []
    for n in range(0, len(names), COLUMNS):
        part = names[n : n + COLUMNS]
        models = dict.fromkeys(model for measure in part for model in measures[measure])
        rows = [(model, [measures[measure].get(model) for measure in part]) for model in models]
        tables.append(Table(f"{title}, continued" if n else title, caption, [_words(m) for m in part], rows))
    return tables


def _words(name: str) -> str:
    return name.replace("_", " ")


# -- the cost of a run. Stages record no prices; an interrupted one has the time of its last session only


class Cost(NamedTuple):
    """The time and tokens of a stage."""

    name: str
    seconds: float
    read: int | None
    """Tokens; None if some were not counted, as in the next field."""
    written: int | None
    share: float | None
    """Share of the total time, in [0, 1]; None if the total is 0."""

    @property
    def speed(self) -> float | None:
        """Tokens read and written per second; None if none were counted, as in trainings."""
        tokens = (self.read or 0) + (self.written or 0)
        return tokens / self.seconds if tokens and self.seconds > 0 else None


def costs(contents: Contents) -> list[Cost]:
    """Return the cost of every complete stage, of every part of ``cai evaluate``, and of all together."""
    stages = [stage.manifest for stage in contents.stages if stage.manifest]
    named = [(m.stage, m) for m in stages] + [(f"{layout.SUITE}/{m.stage}", m) for m in contents.parts]
    total = sum(m.seconds for _, m in named)
    rows = [*[(name, [manifest]) for name, manifest in named], ("all", [manifest for _, manifest in named])]
    costs = []
    for name, own in rows if named else ():
        seconds = sum(m.seconds for m in own)
        read, written = known_sum(m.prompt_tokens for m in own), known_sum(m.completion_tokens for m in own)
        costs.append(Cost(name, seconds, read, written, seconds / total if total > 0 else None))
    return costs


def known_sum(counts: Iterable[int | None]) -> int | None:
    """Return a sum; None if a part of it is not known."""
    known = list(counts)
    return None if None in known else sum(filter(None, known))
