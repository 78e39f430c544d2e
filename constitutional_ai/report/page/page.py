"""Write the report: one HTML file that needs no network and no JavaScript.

It reads only the run's directory. Prompts, answers and names are strangers' text, so they are escaped, their control
characters are shown as symbols, and the page's security policy forbids loading and running anything.
"""

from __future__ import annotations

from pathlib import Path

from constitutional_ai.evaluation.answer_rates import not_read
from constitutional_ai.report.contents import LABEL, Contents, read_contents
from constitutional_ai.report.page import conversations
from constitutional_ai.report.page.anchors import anchors, examples
from constitutional_ai.report.page.audit import audit, gate_of, principles_of
from constitutional_ai.report.page.charts import histogram, reliability
from constitutional_ai.report.page.findings import QUESTIONS, Finding, Question, findings, summary
from constitutional_ai.report.page.frontier import elo_frontier, frontier
from constitutional_ai.report.page.principle_effects import MOST_READ, principle_effects, scorers
from constitutional_ai.report.page.rates import (
    DEFINITIONS,
    GATE,
    LABELS_CHART,
    MEASURED,
    READS,
    RELIABILITY,
    curves,
    headline,
    reinforcement,
)
from constitutional_ai.report.page.tables import costs, tables
from constitutional_ai.report.page.templates import environment
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.runs.run import Run
from constitutional_ai.sl_cai.clean import WHY, in_words


def write_report(run: Run) -> Path:
    """Write ``report.html`` into the run. Sections without data name the stage that provides them."""
    path = run.folder / layout.REPORT_PAGE
    write_atomically(path, render(read_contents(run)))
    return path


def render(contents: Contents, *, served: bool = False) -> str:
    """Return the page. The same contents give the same bytes.

    Where ``cai view`` has it ``served``, ids lead to the other pages.
    """
    gate, frontiers = gate_of(contents), [frontier(contents), elo_frontier(contents)]
    page = environment().get_template("page.html")
    chains, pairs = conversations.chains(contents.chains), conversations.pairs(contents.labels)
    sources = contents.preference_model.sources if contents.preference_model else ()
    return page.render(
        run=contents,
        served=served,
        layout=layout,
        questions=[(q.title, _answers(q, contents)) for q in QUESTIONS] if contents.metrics else [],
        summary=summary(contents),
        headline=headline(contents),
        frontiers=[each for each in frontiers if each],
        rows=[(row, [contents.metric(row.name, role) for role in contents.roles]) for row in MEASURED],
        definitions=DEFINITIONS,
        reads=READS,
        unread=sum(not_read(answer) for answer in contents.answers),
        evaluated=tables(contents),
        curves=curves(contents),
        rl=reinforcement(contents),
        gate=gate,
        gate_chart=[reliability(*GATE, gate.bins)] if gate else [],
        principles=principles_of(contents.labels),
        labels_chart=histogram(*LABELS_CHART, [x.probability_a for x in contents.labels]),
        audit=audit(contents),
        reliability=[reliability(*RELIABILITY, source.bins) for source in sources[-1:]],
        talks=conversations.talks(contents.answers),
        medians=conversations.medians(contents.medians),
        pairs=pairs,
        chains=chains,
        pair_anchors=anchors(pairs, "pair"),
        chain_anchors=anchors(chains, "revision"),
        effects=principle_effects(contents.chains, contents.labels, contents.revision_scores),
        most_read=MOST_READ,
        scorers=scorers(contents.revision_scores),
        examples=examples(chains, pairs),
        costs=costs(contents),
        cleaned=in_words(contents.chains),
        left_out=WHY,
        roles=[(role, LABEL[role]) for role in contents.roles],
    )


def _answers(question: Question, contents: Contents) -> list[Finding]:
    """Return the findings, of which none is wanted or unwanted in a control run."""
    answers = findings(question, contents)
    return [one._replace(wanted=None) for one in answers] if contents.control else answers
