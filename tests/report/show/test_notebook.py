from __future__ import annotations

import pytest

from constitutional_ai.records import (
    Comparison,
    Completion,
    Judgement,
    Message,
    Metric,
    PreferenceLabel,
    Prompt,
    Response,
    Revision,
    RevisionChain,
)
from constitutional_ai.report.show.notebook import show

HOSTILE = "<script>alert(1)</script>\x1b[2J"


def completion(text: str) -> Completion:
    return Completion(text, "m", "stop", 1, 1)


PROMPT = Prompt.of((Message("user", f"Rob a bank. {HOSTILE}"),), "red_team", "test")
CHAIN = RevisionChain(
    f"{PROMPT.id}.0",
    "digest",
    Response(f"{PROMPT.id}.0", PROMPT, completion("You should steal it.")),
    (
        Revision(HOSTILE, completion("It is a crime."), completion("You should buy it.")),
        Revision("be-kind", None, completion(""), fault="empty"),
        Revision("be-kind", None, completion("You should rather buy it.")),
    ),
)
PAIR = Comparison(f"{PROMPT.id}.0", PROMPT, completion(HOSTILE), completion("No."))
LABEL = PreferenceLabel(PAIR.id, "digest", PAIR, "multiple_choice", 0.2, (Judgement(HOSTILE, "a", 0.2),))
METRIC = Metric(HOSTILE, "rl-cai", 0.5, 0.4, None, 1200)


def test_a_chain_shows_word_by_word_what_each_revision_changed() -> None:
    html = show(CHAIN)._repr_html_()
    assert '<del title="removed">steal </del><ins title="added">buy </ins>' in html
    assert "left out: empty" in html
    # The last one is compared with the answer before the revision that was left out.
    assert 'You should <ins title="added">rather </ins>buy it.' in html


def test_a_label_shows_the_preferred_answer_and_what_it_rests_on() -> None:
    html = show(LABEL)._repr_html_()
    assert "P(a is better) = 0.20, by multiple_choice" in html and "<th>b, preferred</th>" in html
    assert "<th>a</th>" in html


def test_neighbouring_metrics_share_a_table() -> None:
    html = show(METRIC, METRIC, CHAIN, METRIC)._repr_html_()
    assert html.count("<th>metric</th>") == 2 and "above 0.40" in html and "1,200" in html


@pytest.mark.parametrize(
    "record", [PROMPT, CHAIN.initial, CHAIN, PAIR, LABEL, METRIC], ids=lambda r: type(r).__name__
)
def test_no_text_of_a_record_becomes_part_of_the_page(record: Prompt) -> None:
    html = show(record)._repr_html_()
    assert "<script" not in html and "&lt;script&gt;" in html and "\x1b" not in html


def test_a_terminal_gets_the_records_and_other_objects_are_refused() -> None:
    assert repr(show(PROMPT, METRIC)) == f"{PROMPT!r}\n{METRIC!r}"
    with pytest.raises(TypeError, match="not str"):
        show("chain")  # type: ignore[arg-type]
