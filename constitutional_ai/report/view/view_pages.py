"""Write the pages of ``cai view``. Each is made anew from what the run holds at that moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment

from constitutional_ai.constitutions.constitution import Constitution, load_constitution
from constitutional_ai.errors import InputError
from constitutional_ai.metrics.word_changes import word_changes
from constitutional_ai.records import GateAnswer, PreferenceLabel, RevisionChain
from constitutional_ai.report.view.hits import hits
from constitutional_ai.report.view.life import answers_of, life_of
from constitutional_ai.report.view.record_filter import ORDERS, Choice, Filter, choices, matching
from constitutional_ai.report.view.record_index import Entry, RecordIndex
from constitutional_ai.report.view.replayed_question import replayed_question
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run

EACH_PAGE = 50
"""Records on one page of a list."""
Query = Mapping[str, str]


class NoSuchRecord(Exception):
    """An address names a record that the run does not have."""


class ViewPages:
    """The pages of one run."""

    def __init__(self, run: Run, templates: Environment) -> None:
        """Index the records of ``run``."""
        self._run, self._templates = run, templates
        self._index = RecordIndex(run)
        self._choices: tuple[int, list[Choice]] = (-1, [])
        self._report: tuple[Any, str] = (None, "")

    def refresh(self) -> None:
        """Read what the run has written since. Raises InputError for a fault of the disk."""
        self._index.refresh()

    def _render(self, template: str, **values: Any) -> str:
        return self._templates.get_template(template).render(
            run=self._run.folder.name, faults=self._index.faults, layout=layout, **values
        )

    def fault(self, sentence: str) -> str:
        """Return a page that says what is wrong."""
        return self._render("fault.html", sentence=sentence)

    # -- all records

    def overview(self, query: Query) -> str:
        """Return the first page: how far each stage is, and what the records can be searched by."""
        counts = self._index.counts()
        stages = [
            (stage, self._run.manifest(stage), counts[stage, layout.RECORDS], counts[stage, layout.FAILURES])
            for stage in layout.STAGES
            if self._run.stage(stage).is_dir()
        ]
        return self._render(
            "overview.html",
            stages=stages,
            total=len(self._index),
            choices=[choice for choice in self._lists() if choice.name != "stage"],
            wanted=Filter({}),
            orders=ORDERS,
        )

    def _lists(self) -> list[Choice]:
        if self._choices[0] != self._index.version:
            self._choices = (self._index.version, choices(self._index))
        return self._choices[1]

    def records(self, query: Query) -> str:
        """Return a page of the records that a form asks for."""
        wanted = Filter.read(query)
        chosen = matching(self._index, wanted)
        last = max(1, -(-len(chosen) // EACH_PAGE))
        page = min(max(1, _whole(query.get("page", "1"), 1)), last)
        shown = chosen[(page - 1) * EACH_PAGE : page * EACH_PAGE]
        return self._render(
            "records.html",
            hits=hits(self._index, shown, wanted.text),
            count=len(chosen),
            total=len(self._index),
            first=(page - 1) * EACH_PAGE + 1,
            page=page,
            last=last,
            wanted=wanted,
            choices=self._lists(),
            orders=ORDERS,
            query=urlencode(wanted.query),
        )

    # -- one record

    def prompt(self, query: Query) -> str:
        """Return the page of one prompt: everything that the run recorded for it, stage by stage."""
        name = query.get("id", "")
        life = life_of(self._index, name, self._constitution())
        if not life.sections:
            raise NoSuchRecord(f"No record of this run has a prompt '{name}'. It may have been made again.")
        return self._render("life.html", id=name, life=life)

    def difference(self, query: Query) -> str:
        """Return the page that tells two rounds of a chain of revisions apart."""
        chain = self._record(query, RevisionChain)
        answers = answers_of(chain)
        old, new = (
            min(max(0, _whole(query.get(side, ""), default)), len(answers) - 1)
            for side, default in (("from", 0), ("to", len(answers) - 1))
        )
        principles = [revision.principle for revision in chain.revisions]
        return self._render(
            "difference.html",
            chain=chain,
            mark=query.get("record", ""),
            old=old,
            new=new,
            principles=principles,
            changes=word_changes(answers[old], answers[new]),
        )

    def question(self, query: Query) -> str:
        """Return the page of one judgement, with its question as it was put."""
        record = self._record(query, PreferenceLabel, GateAnswer)
        label = record.label if isinstance(record, GateAnswer) else record
        number = _whole(query.get("number", ""), 0)
        if not 0 <= number < len(label.judgements):
            raise NoSuchRecord(f"This label has {len(label.judgements)} judgements. Go back to its prompt.")
        return self._render(
            "question.html",
            label=label,
            number=number,
            judgement=label.judgements[number],
            question=replayed_question(self._run, label, number),
        )

    def _record(self, query: Query, *types: type[Any]) -> Any:
        """Return the record whose mark an address has."""
        mark = query.get("record", "")
        entry: Entry | None = next((e for e in self._index if e.mark == mark), None)
        record = self._index.record(entry) if entry else None
        if not isinstance(record, types):
            raise NoSuchRecord("There is no such record in this run. It may have been made again.")
        return record

    def _constitution(self) -> Constitution | None:
        try:
            return load_constitution(self._run.folder / layout.CONSTITUTION)
        except InputError:
            return None

    # -- the report

    def report(self, query: Query) -> str:
        """Return the report of what the run holds, which takes seconds where it has changed."""
        from constitutional_ai.report.contents import read_contents
        from constitutional_ai.report.page.page import render

        stamp = _stamps(self._run)
        if self._report[0] != stamp:
            self._report = (stamp, render(read_contents(self._run), served=True))
        return self._report[1]


def _whole(text: str, default: int) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else default


def _stamps(run: Run) -> list[tuple[str, int, int]]:
    """Return what changes whenever something does that the report shows."""
    files = [*run.folder.glob("*.*"), *run.folder.glob("*/*.json*"), *run.folder.glob("*/*/*.json*")]
    stats = [(str(path), path.stat()) for path in sorted(files) if path.is_file()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats if not name.endswith(".sqlite")]
