"""What each principle did, worked out by hand for a handful of chains and labels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from constitutional_ai.evaluation.revision_scores import RevisionScore
from constitutional_ai.records import Judgement, PreferenceLabel, Revision, RevisionChain
from constitutional_ai.report.contents import read_contents
from constitutional_ai.report.page import principle_effects as module
from constitutional_ai.report.page.page import render
from constitutional_ai.report.page.principle_effects import PrincipleEffect, principle_effects, scorers
from constitutional_ai.runs.run import Run
from tests.report.conftest import HOSTILE, NO, RED, chain, completion, finish, label, write_rows
from tests.report.page.test_page import Elements

YES = "Sure! Here is how you do it. First you find a ladder."


def revised(n: int, *rounds: tuple[str, str, str | None]) -> RevisionChain:
    """A chain whose first answer complies, of rounds under a principle with a text and a fault."""
    first = replace(chain(RED[n]).initial, completion=completion(YES))
    steps = tuple(Revision(name, None, completion(text), None, fault) for name, text, fault in rounds)
    return RevisionChain(f"{n}", "c", first, steps)


CHAINS = (
    revised(0, ("stern", NO, None), ("soft", NO, None)),
    revised(1, ("soft", YES, None), ("stern", NO, None), ("stern", YES, None)),
    revised(2, ("stern", "", "empty"), ("soft", NO, None)),
)


def judged(n: int, total: float, *opinions: tuple[str, float]) -> PreferenceLabel:
    own = tuple(Judgement(name, "a", p) for name, p in opinions)
    return replace(label(RED[n], total), judgements=own)


LABELS = (
    judged(0, 0.8, ("stern", 0.9), ("soft", 0.7)),
    judged(1, 0.6, ("stern", 0.9), ("soft", 0.3)),
    judged(2, 0.5, ("stern", 0.5), ("soft", 0.5)),
    judged(3, 0.9, ("stern", 0.9)),
)


def effects(**more: object) -> dict[str, PrincipleEffect]:
    return {one.name: one for one in principle_effects(CHAINS, LABELS, **more)}


def test_objections_before_and_after_are_those_of_each_chains_first_sound_revision() -> None:
    stern, soft = effects()["stern"], effects()["soft"]
    assert (stern.drawn, stern.left_out) == (4, 1)
    # Chain 0: complied, then objected. Chain 1: complied, then objected; its third round counts no more. 2 was empty.
    assert (stern.before.value, stern.after.value, stern.change.count) == (0.0, 1.0, 2)
    # Chain 0 objected before and after, 1 did neither, and 2 began with the first answer, since the empty one is out.
    assert (soft.drawn, soft.left_out) == (3, 0)
    assert [round(m.value or 0, 9) for m in (soft.before, soft.after, soft.change)] == [
        round(1 / 3, 9),
        round(2 / 3, 9),
        round(1 / 3, 9),
    ]
    assert -1 <= (soft.change.low or -9) <= (soft.change.high or 9) <= 1


def test_labels_are_decided_confident_and_agree() -> None:
    stern, soft = effects()["stern"], effects()["soft"]
    assert (stern.labels, stern.decided.value) == (4, 0.75)
    assert stern.confidence.value == pytest.approx((0.9 + 0.9 + 0.5 + 0.9) / 4)
    assert (stern.confidence.low or 0) >= 0.5
    # The tie tells nothing, and neither does the label of one principle.
    assert (stern.agreement.value, stern.agreement.count) == (1.0, 2)
    assert (soft.agreement.value, soft.agreement.count) == (0.5, 2)


def test_scores_change_by_the_same_revisions() -> None:
    def score(chain: str, revision: int, value: float, by: str = "harmless") -> RevisionScore:
        return RevisionScore(f"{chain}.{revision}.{by}", "run", chain, revision, by, value, None)

    rows = [score("0", n, value) for n, value in enumerate((0.0, 2.0, 1.0))]
    rows += [score("1", n, value) for n, value in enumerate((0.0, 1.0, 5.0, 9.0))]
    stern, soft = (effects(scores=rows)[name].scores[0] for name in ("stern", "soft"))
    assert (stern.value, stern.count) == (3.0, 2)  # 2 − 0 in chain 0, 5 − 1 in chain 1
    assert (soft.value, soft.count) == (0.0, 2)  # 1 − 2 in chain 0, 1 − 0 in chain 1
    assert scorers([score("0", 0, 0.0, by) for by in "dcba"]) == ["a", "b", "c"]


def test_of_many_chains_the_detectors_read_the_first_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_READ", 1)
    stern = effects()["stern"]
    assert (stern.before.count, stern.drawn) == (1, 4)


def test_the_page_shows_them_and_leads_to_examples(run: Run) -> None:
    page = render(read_contents(run))
    elements = Elements(page)
    ids = {value for name, value in elements.attributes if name == "id"}
    targets = [value for name, value in elements.attributes if name == "href"]
    assert {"#revision-1", "#pair-1"} <= set(targets)
    assert {target[1:] for target in targets if target} <= ids
    assert page.count("<b>In revisions.</b>") == page.count("<b>In labels.</b>") == 1


def test_scores_of_cai_evaluate_are_shown_and_those_of_other_runs_are_not(run: Run) -> None:
    folder = run.folder / "evaluation/revisions"
    chains = run.rows("02-revisions", RevisionChain)
    rows = [
        RevisionScore(f"{c.id}.{n}.{of}", of, c.id, n, HOSTILE, float(n), None)
        for c in chains
        for n in (0, 1)
        for of in (run.folder.name, "another")
    ]
    write_rows(folder / "pm-x/records.jsonl", rows)
    assert "Score of" not in render(read_contents(run))  # not finished
    (folder / "metrics.json").write_text("[]")
    finish(folder, "pm-x")
    page = render(read_contents(run))
    assert "Score of &lt;script&gt;" in page and page.count('data-label="Score of') == 1
    assert read_contents(run).revision_scores == tuple(row for row in rows if row.run == run.folder.name)
