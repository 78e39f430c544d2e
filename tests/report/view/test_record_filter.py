from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from constitutional_ai.report.view.record_filter import Filter, matching, text_test, texts_in
from constitutional_ai.report.view.record_index import RecordIndex
from constitutional_ai.runs.run import Run
from tests.report.conftest import HOSTILE
from tests.test_hostile_text import TEXT

WHERE = st.sampled_from(["text", "prompt", "true", "12", "ow", "O", '"', "\\", ", ", 'x", "', "école", "ß"])


@settings(max_examples=50)
@given(st.lists(TEXT | WHERE, min_size=1, max_size=3), TEXT | WHERE, st.booleans())
@example(["a\nbefore"], "nbefore", False)
@example(["École"], "école", True)
@example(["a\\night"], "\\night", False)
def test_a_search_finds_what_a_text_holds_and_nothing_else(
    texts: list[str], wanted: str, ascii_only: bool
) -> None:
    wanted = wanted.strip()
    if not wanted or "\n" in wanted:
        return
    record = {"prompt": texts[:1], "text": {"raw": texts[1:]}, "n": 12, "ok": True}
    line = (json.dumps(record, ensure_ascii=ascii_only) + "\n").encode("utf-8", "surrogatepass")
    here = any(wanted.casefold() in text.casefold() for text in texts_in(json.loads(line)))
    assert text_test(wanted)(line) == here


def test_one_word_of_every_kind_is_searched_without_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", None)
    assert text_test("police")(b'{"text":"Police!"}\n') and not text_test("police")(b'{"text":"polite"}\n')


@pytest.mark.parametrize(
    ("query", "count"),
    [  # the run has 7 answers, 4 chains, 4 pairs, 4 labels, 8 gate questions, 21 evaluated answers, 1 failure
        ({}, 49),
        ({"stage": "08-evaluation"}, 21),
        ({"kind": "helpful"}, 3 + 9),
        ({"harm": "<i>helpful</i>"}, 3 + 9),
        ({"verdict": "objects"}, 6),
        ({"verdict": "does not object"}, 6),
        ({"verdict": "right"}, 4),
        ({"model": "sl-cai"}, 7),
        ({"fault": "EmptyAnswer"}, 1),
        ({"low": "3"}, 3),
        ({"low": "0.25", "high": "0.75", "stage": "05-preference-labels"}, 3),
        ({"low": "nan", "high": "x"}, 49),
        ({"text": "BOIL EGG 2"}, 1 + 3),
        ({"text": "finish_reason"}, 0),
        ({"kind": "nothing of that kind"}, 0),
    ],
)
def test_the_form_chooses_records(run: Run, query: dict[str, str], count: int) -> None:
    assert len(matching(RecordIndex(run), Filter.read(query))) == count


def test_a_hostile_principle_can_be_chosen_as_a_browser_sends_it(run: Run) -> None:
    index = RecordIndex(run)
    (shown,) = {name for entry in index for name in entry.facets.principles}
    assert shown != HOSTILE and "\x1b" not in shown
    found = matching(index, Filter.read({"principle": shown.replace("\n", "\r\n")}))
    assert len(found) == 4 + 4 + 8


def test_scores_are_put_in_order_and_records_without_one_left_out(run: Run) -> None:
    found = matching(RecordIndex(run), Filter.read({"order": "highest", "stage": "08-evaluation"}))
    assert [entry.facets.score for entry in found] == [3.0] * 3 + [2.0] * 3 + [1.0] * 3 + [0.0] * 3
