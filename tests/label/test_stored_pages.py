"""The pages of stored pairs, ratings and revisions, over HTTP."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

import pytest

from constitutional_ai.label.instructions import WARNING
from constitutional_ai.label.label_questions import Choice, Rating, Review
from tests.label.study_fixtures import BASE, Browser, client, harm, number_in, pair, revision, study, texts_in


def test_a_warning_comes_before_anything_harmful(tmp_path: Path) -> None:
    of = study(tmp_path, "pairs", [pair(0)])
    anna = Browser(of, client(of))
    page = anna.get()
    assert WARNING in html.unescape(page) and "By sl" not in page
    assert "less evasive" in page  # EV-11
    assert "By sl 0." in anna.post("/agree")


def test_a_choice_is_of_the_side_and_not_of_the_place(tmp_path: Path) -> None:
    of = study(tmp_path, "pairs", [pair(n) for n in range(12)])
    anna = Browser(of, client(of))
    page, places = anna.post("/agree"), set()
    for _ in range(12):
        texts = texts_in(page)
        place = next(n for n, text in enumerate(texts) if text.startswith("By sl"))
        places.add(place)
        page = anna.post("/answer", question=number_in(page), answer=("first-2", "second-2")[place])
    assert "All 12 questions are answered" in page
    assert places == {0, 1}
    assert {vote.answer for vote in of.votes()} == {Choice("a", 2)}
    assert {vote.shown_first for vote in of.votes()} == {"a", "b"}


def test_no_page_names_a_model_or_a_record(tmp_path: Path) -> None:
    of = study(tmp_path, "pairs", [pair(0)])
    anna = Browser(of, client(of))
    page = anna.get() + anna.post("/agree") + anna.get("/question/1")
    assert not [name for name in ("sl-cai", "rl-cai", pair(0).id, pair(0).prompt.id) if name in page]


def test_an_answer_can_be_looked_at_and_changed(tmp_path: Path) -> None:
    of = study(tmp_path, "harm", [harm(0), harm(1)])
    anna = Browser(of, client(of))
    page = anna.post("/agree")
    assert "question 1 of 2" in page and "Harm 0." in page and "Reply 0." in page
    page = anna.post("/answer", question=1, answer="4")
    assert "question 2 of 2" in page and f'href="{anna.base}/question/1"' in page
    assert 'value="4" data-key="4" aria-pressed="true"' in anna.get("/question/1")
    anna.post("/answer", question=1, answer="0")
    assert [vote.answer for vote in of.votes()] == [Rating(0)]


@pytest.mark.parametrize(
    ("form", "kept"),
    [
        ({"answer": "accept", "text": "ignored"}, Review("accept")),
        ({"answer": "edit", "text": "Better.\r\nMuch."}, Review("edit", "Better.\nMuch.")),
        ({"answer": "edit", "text": "After 0."}, Review("accept")),
        ({"answer": "reject", "text": "After 0."}, Review("reject")),
    ],
)
def test_a_revision_is_accepted_edited_or_rejected(tmp_path: Path, form: dict[str, str], kept: Review) -> None:
    of = study(tmp_path, "revisions", [revision(0)])
    anna = Browser(of, client(of))
    page = anna.post("/agree")
    assert "It is rude." in page and "be-kind" in page and "Before." in page
    anna.post("/answer", question=1, **form)
    assert [vote.answer for vote in of.votes()] == [kept]


def test_what_a_revision_changed_is_shown_word_by_word(tmp_path: Path) -> None:
    before, after = "You should steal it from <b>the shop</b>.", "You should buy it from <b>the shop</b>."
    of = study(tmp_path, "revisions", [replace(revision(0), before=before, revised=after)])
    page = Browser(of, client(of)).post("/agree")
    assert "<del>" in page and "[removed:] </span>steal " in page and "[added:] </span>buy " in page
    assert "Words: 1 removed, 1 added, 6 kept." in page
    assert "<b>the" not in page and "&lt;b&gt;the shop" in page


BAD = [
    ("/answer", {"question": "1", "answer": "third-1"}, 400),
    ("/answer", {"question": "1"}, 400),
    ("/answer", {"question": "2", "answer": "tie"}, 404),
    ("/answer", {"question": "x" * 5000, "answer": "tie"}, 404),
    ("/answer", {"answer": "tie"}, 404),
    ("/answer", {"question": "٣", "answer": "tie"}, 404),
    ("/again", {"question": "1"}, 200),
    ("/write", {"turn": "anna.1.1", "text": "Hi"}, 200),
    ("/nothing", {}, 404),
]


@pytest.mark.parametrize(("path", "form", "status"), BAD)
def test_forms_that_no_page_has_change_nothing(
    tmp_path: Path, path: str, form: dict[str, str], status: int
) -> None:
    of = study(tmp_path, "pairs", [pair(0)])
    Browser(of, client(of)).post(path, status, **form)
    assert of.votes() == [] and len(list(of.questions())) == 1


def test_only_links_and_the_pages_own_forms_are_let_in(tmp_path: Path) -> None:
    of = study(tmp_path, "pairs", [pair(0)], ["anna", "ben"])
    page = client(of)
    token = of.person("anna").token
    assert (
        page.get("/").status_code
        == page.get("/anna/").status_code
        == page.get(f"/{token}x/").status_code
        == 401
    )
    for origin, status in (
        (BASE, 303),
        ("http://evil.invalid", 403),
        ("null", 403),
        ("http://testserver.evil", 403),
    ):
        answer = page.post(f"/{token}/agree", headers={"Origin": origin}, follow_redirects=False)
        assert answer.status_code == status
    assert [person.agreed for person in of.people()] == [True, False]


def test_every_response_forbids_foreign_scripts_and_frames(tmp_path: Path) -> None:
    of = study(tmp_path, "pairs", [pair(0)])
    page, base = client(of), f"/{of.person('anna').token}"
    for path in (
        "/",
        "/instructions",
        "/nothing",
        "/static/label.js",
        "/static/label.css",
        "/static/../study.py",
    ):
        headers = page.get(base + path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    assert page.get(f"{base}/static/%2e%2e/study.py").status_code == 404
