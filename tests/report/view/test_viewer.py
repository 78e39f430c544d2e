"""The pages of ``cai view``: what they show, of which texts of strangers, and that they only read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from starlette.testclient import TestClient

from constitutional_ai.records import Response, RevisionChain
from constitutional_ai.report.view.viewer import view_app
from constitutional_ai.runs.rows import RowWriter
from constitutional_ai.runs.run import Run
from constitutional_ai.safe_text import visible
from constitutional_ai.serve.guard import Guard
from tests.report.conftest import RED, completion, prompt
from tests.report.page.test_page import Elements
from tests.report.test_hostile_report import BIDI, run_of, unspaced
from tests.test_hostile_text import FIELDS, LONG

TOKEN = "a-token-of-20-letters"


def client(run: Run) -> TestClient:
    return TestClient(Guard(view_app(run), TOKEN), base_url=f"http://testserver/{TOKEN}/")


def links(page: str, start: str) -> list[str]:
    return list(dict.fromkeys(unescape(link) for link in re.findall(rf'href="({start}[^"]*)"', page)))


def all_pages(browser: TestClient, *skipped: str) -> dict[str, str]:
    """Every page that links lead to, by its address."""
    pages, addresses = {}, ["./"]
    while addresses:
        address = addresses.pop().partition("#")[0]
        if address and address not in (*pages, *skipped):
            reply = browser.get(address)
            assert reply.status_code == 200, (address, reply.text)
            pages[address] = reply.text
            addresses += [unescape(link) for link in re.findall(r'href="([^"]*)"', reply.text)]
    return pages


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_link_leads_somewhere_and_nothing_is_written(run: Run) -> None:
    before = files(run.folder)
    pages = all_pages(client(run))
    assert {address.partition("?")[0] for address in pages} == {"./", "records", "report", "prompt", "question"}
    assert files(run.folder) == before


def test_only_who_knows_the_token_is_answered(run: Run) -> None:
    app = Guard(view_app(run), TOKEN)
    assert TestClient(app).get("/records").status_code == 401
    assert TestClient(app).get(f"/{TOKEN}/records").status_code == 200
    assert (
        TestClient(app).get(f"/{TOKEN}/records", headers={"Origin": "http://evil.invalid"}).status_code == 403
    )
    assert TestClient(app).post(f"/{TOKEN}/records").status_code == 405


def test_no_page_may_run_or_load_anything_and_none_is_kept(run: Run) -> None:
    browser = client(run)
    for address in ("./", "records", "nowhere"):
        headers = browser.get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy
        assert "form-action 'self'" in policy and "frame-ancestors 'none'" in policy
        assert headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"
    assert "unsafe" not in browser.get("records").headers["content-security-policy"]


def test_a_prompts_page_has_its_whole_life(run: Run) -> None:
    page = Elements(client(run).get("prompt", params={"id": RED[1].id}).text).text
    for expected in (
        "01-responses",
        "Round 1 under",
        "05-preference-labels",
        "P(a is better) = 0.30",
        "by sl-cai",
        "does not object",
        "words removed",
    ):
        assert expected in page, expected
    assert "04-comparisons" not in page  # the pair stands with its label


def test_changed_words_are_marked_for_eyes_and_for_ears(run: Run) -> None:
    page = client(run).get("prompt", params={"id": RED[0].id}).text
    assert re.search(r"<ins><span class=\"hidden-text\"> \[added:\] </span>Better. ", page)
    difference = next(iter(links(page, "difference")), None)
    assert difference is None  # one round


def test_two_rounds_of_a_chain_are_compared(run: Run) -> None:
    (first, *_) = run.rows("02-revisions", RevisionChain)
    chain = first.revised_by(first.revisions[0])
    with (run.folder / "02-revisions/records.jsonl").open("w") as stream:
        stream.write(json.dumps(as_json(chain)) + "\n")
    browser = client(run)
    (link,) = links(browser.get("prompt", params={"id": chain.initial.prompt.id}).text, "difference")
    assert "[added:]" in browser.get(link).text
    same = browser.get(link.replace("from=0", "from=1")).text
    assert "0 words removed, 0 words added" in same and "<ins>" not in same
    assert browser.get(link.replace("from=0", "from=99").replace("to=2", "to=-1")).status_code == 200


def as_json(record: Any) -> Any:
    from dataclasses import asdict

    return asdict(record)


def test_a_run_that_is_growing(empty_run: Run) -> None:
    browser = client(empty_run)
    assert "No stage was started yet" in browser.get("./").text
    assert "No record" in browser.get("records").text
    (empty_run.folder / "01-responses").mkdir()
    with RowWriter(empty_run.folder / "01-responses/records.jsonl", Response) as rows:
        for n in range(3):
            asked = prompt(f"request {n}")
            rows.append(Response(f"{asked.id}.0", asked, completion(f"reply {n}")))
            assert f"of {n + 1} record" in browser.get("records").text
            assert f"reply {n}" in browser.get("prompt", params={"id": asked.id}).text
    assert "not complete" in browser.get("./").text


def test_the_report_is_served_with_links_to_the_records(run: Run) -> None:
    browser = client(run)
    reply = browser.get("report")
    assert "script-src" not in reply.headers["content-security-policy"]
    assert links(reply.text, "prompt") and all(
        browser.get(link).status_code == 200 for link in links(reply.text, "prompt")
    )


def test_a_damaged_file_is_one_sentence_on_every_page(run: Run) -> None:
    path = run.folder / "04-comparisons/records.jsonl"
    path.write_bytes(path.read_bytes() + b"{nonsense\n")
    browser = client(run)
    for address in ("./", "records", f"prompt?id={RED[0].id}"):
        page = browser.get(address)
        assert page.status_code == 200
        assert page.text.count(f"{path}:5: ") == 1 and "Traceback" not in page.text
    (run.folder / "08-evaluation/metrics.json").write_text("{nonsense")
    broken = browser.get("report")
    assert broken.status_code == 500 and "08-evaluation/metrics.json cannot be read" in broken.text


@pytest.mark.parametrize(
    "address",
    [
        *(
            "nowhere",
            "prompt",
            "prompt?id=x",
            "question",
            "question?record=r4-0&number=99",
            "difference?record=r9-9",
        ),
        *("difference?record=r4-0", "question?record=<script>", "prompt?id=%ff%00<b>"),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(run: Run, address: str) -> None:
    reply = client(run).get(address)
    assert reply.status_code == 404
    assert re.search(r'<p class="note">[^<]+[.]', reply.text) and "<script" not in reply.text


@pytest.mark.parametrize(
    "address", ["records?page=99999999999", "records?page=-1", "records?low=1e999&order=x"]
)
def test_nonsense_in_an_address_asks_for_nothing(run: Run, address: str) -> None:
    assert client(run).get(address).text.count("<h3>") == 49


def test_ids_of_a_page_are_unique(run: Run) -> None:
    for page in all_pages(client(run), "report").values():
        ids = [value for name, value in Elements(page).attributes if name == "id"]
        assert len(ids) == len(set(ids))


@settings(max_examples=3, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(FIELDS)
@example([LONG] * 7)
@example(['"><script>alert(1)</script>\x1b\u202e'] * 7)
def test_no_text_becomes_markup_of_a_page(tmp_path: Path, fields: Sequence[str]) -> None:
    tame = all_pages(
        client(run_of(tmp_path / "tame", [f"word {n} {'long ' * 2000}" for n in range(7)])), "report"
    )
    usual = [Elements(page) for page in tame.values()]
    tags = {tag for page in usual for tag in page.tags}
    names = {name for page in usual for name, _ in page.attributes}
    pages = all_pages(client(run_of(tmp_path / "run", fields)), "report")
    for page in pages.values():
        assert set(Elements(page).tags) <= tags
        assert {name for name, _ in Elements(page).attributes} <= names
        assert not re.search(f"[\x00\x1b{BIDI}]", page)
    lives = [Elements(page).text for address, page in pages.items() if "prompt?" in address]
    life = unspaced("".join(lives))
    for text in fields[:6]:
        assert unspaced(visible(text[:300])) in life or not text
