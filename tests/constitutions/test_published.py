from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from constitutional_ai.constitutions.constitution import Constitution, load_constitution
from constitutional_ai.constitutions.published import (
    CRITIQUE,
    NEMO,
    PAIRS,
    QUESTIONS,
    REVISION,
    import_constitution,
)
from constitutional_ai.errors import InputError
from tests.paper_files import PAPER, paper

PAIR = {
    "prompt": ["\n\nCritiqueRequest: Was it {kind}?\n\nCritique:"],
    "edit_request": "\n\nRevisionRequest: Make it kindd.\n\nRevision:",
}
SWARM = {
    "constitutions": [{"critic": "Was it kind?", "revision": "Make it kind."}],
    "system_chat": [[{"role": "user", "content": "Hi"}], [], []],
}
LIST = """\
You judge {"chosen": 1}. Two answers follow.

```CONSTITUTION
Keep in mind:

  1. Choose the kinder answer.

  12. Which is 2. best?

By these you judge.
```
  3. Not in the list.
"""


def imported(folder: Path, name: str, content: object) -> Constitution:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return import_constitution(path)


def test_the_papers_pairs_lose_their_framing_and_nothing_else(tmp_path: Path) -> None:
    (found,) = imported(tmp_path, PAIRS, {"harmful7": PAIR}).principles
    assert (found.name, found.critique, found.revision) == ("harmful7", "Was it {kind}?", "Make it kindd.")


def test_the_papers_questions_lose_their_framing_and_nothing_else(tmp_path: Path) -> None:
    found = imported(
        tmp_path, QUESTIONS, ["\nWhich Options: are kinder? Options:", "\nWhich is wiser? Options:"]
    )
    assert [p.name for p in found.principles] == ["preference0", "preference1"]
    assert [p.preference for p in found.principles] == ["Which Options: are kinder?", "Which is wiser?"]


def test_llm_swarms_pairs_are_read_and_its_few_shots_counted(tmp_path: Path) -> None:
    found = imported(tmp_path, "constitution_mine.json", SWARM)
    (principle,) = found.principles
    assert (principle.critique, principle.revision) == ("Was it kind?", "Make it kind.")
    assert found.name == "constitution_mine"
    assert "3 few-shot dialogues" in found.description


def test_nemo_aligners_list_is_read_and_the_rest_of_its_system_prompt_is_not(tmp_path: Path) -> None:
    found = imported(tmp_path, NEMO, LIST)
    assert [p.preference for p in found.principles] == ["Choose the kinder answer.", "Which is 2. best?"]


def test_each_line_of_a_text_is_a_preference_question(tmp_path: Path) -> None:
    found = imported(tmp_path, "mine.txt", "\ufeffWhich is kinder?\r\n\n  Choose {the} wiser. Options:\n")
    assert [p.preference for p in found.principles] == ["Which is kinder?", "Choose {the} wiser."]
    assert found.for_revision == ()


def test_a_folder_gives_all_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "prompts"
    folder.mkdir(parents=True)
    imported(folder, PAIRS, {"harmful0": PAIR})
    imported(folder, QUESTIONS, ["\nWhich is kinder? Options:"])
    for source in (folder, folder.parent):
        found = import_constitution(source)
        assert [p.name for p in found.principles] == ["harmful0", "preference0"]
        assert found.name == "mine"


REFUSED: list[tuple[str, object, str]] = [  # (file, what it holds, what the one sentence says)
    ("a.json", "{", "a.json:1: not JSON"),
    ("a.txt", "[1,\n", "a.txt:2: not JSON"),
    ("a.json", "[" * 100_000, "JSON that cannot be read"),
    ("a.json", "9" * 5_000, "JSON that cannot be read"),
    ("a.json", {}, "JSON in no known format. Known: the paper's repository"),
    ("a.json", {"critiques": ["x"], "revisions": ["y"]}, "JSON in no known format"),
    ("a.json", [], "JSON in no known format"),
    ("a.json", "3", "JSON in no known format"),
    ("a.json", ["Which?", 3], "[1] is not a text"),
    ("a.json", ["Which?", "\n Options:"], "principles.1.preference: must not be empty"),
    ("a.json", ["\ud800"], "JSON that cannot be read"),
    ("a.json", {"constitutions": []}, "holds no principle"),
    ("a.json", {"constitutions": [{"critic": "Kind?"}]}, "constitutions[0] must hold two texts"),
    ("a.json", {"harmful0": PAIR, "harmful1": {"edit_request": "x"}}, "'harmful1' must hold 'prompt'"),
    ("a.json", {"h": {**PAIR, "prompt": ["a", "b"]}}, "'h' must hold 'prompt', a list of one text"),
    ("a.json", {"h": {**PAIR, "edit_request": "Make it kind."}}, "'h' must have its text between"),
    ("a.json", {"h": {**PAIR, "edit_request": "".join(REVISION)}}, "'h' must have its text between"),
    ("a.json", {"": PAIR}, "principles.0.name: must not be empty"),
    ("a.txt", " \n\n", "holds no principle"),
    ("a.txt", "```CONSTITUTION\n- be kind\n```", "holds no principle"),
    ("a.txt", "Which?\0", "is not text"),
    ("a.yaml", "name: mine", "YAML in no known format. Is it one of ours? Type: cai check"),
    ("a.yaml", "principles: []", "is one of our own constitutions. Type: cai check"),
]


@pytest.mark.parametrize(("name", "content", "said"), REFUSED)
def test_a_file_in_no_known_format_is_refused(tmp_path: Path, name: str, content: object, said: str) -> None:
    with pytest.raises(InputError) as caught:
        imported(tmp_path, name, content)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert said in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"holds neither {PAIRS} nor"):
        import_constitution(tmp_path)
    with pytest.raises(InputError, match=r"no file .*none\.json"):
        import_constitution(tmp_path / "none.json")
    (tmp_path / "bytes.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        import_constitution(tmp_path / "bytes.txt")


KEYS = st.sampled_from(
    ["constitutions", "critic", "revision", "prompt", "edit_request", "harmful0", "", "system_chat"]
)
WORDS = [
    "Which?",
    "{}",
    "{x",
    "%s",
    "\n",
    " Options:",
    "```CONSTITUTION\n1. ",
    "\ud800",
    "\u2028",
    *CRITIQUE,
    *REVISION,
]
TEXT = st.lists(st.sampled_from(WORDS) | st.text(max_size=4), max_size=5).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
)
FRAMED = st.tuples(st.just(REVISION[0]), TEXT, st.just(REVISION[1])).map("".join)
ALMOST = st.fixed_dictionaries({"prompt": st.lists(FRAMED | TEXT, max_size=2), "edit_request": FRAMED | TEXT})
RAW = JSON.map(json.dumps).map(str.encode) | TEXT.map(lambda t: t.encode(errors="surrogatepass")) | st.binary()
NEAR = st.dictionaries(TEXT, ALMOST, max_size=3).map(json.dumps).map(str.encode)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(RAW | NEAR, st.sampled_from(["a.json", "a.txt", NEMO]))
def test_hostile_files_give_a_constitution_or_one_sentence(tmp_path: Path, raw: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    try:
        found = import_constitution(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert len(found.principles) >= 1
        assert len(found.digest) == 12


@paper
def test_the_paper_has_sixteen_pairs_and_sixteen_questions_word_for_word(tmp_path: Path) -> None:
    found = import_constitution(PAPER)
    pairs = json.loads((PAPER / "prompts" / PAIRS).read_text(encoding="utf-8"))
    questions = json.loads((PAPER / "prompts" / QUESTIONS).read_text(encoding="utf-8"))
    assert len(found.for_revision) == len(found.for_preference) == 16
    assert [f"\n{p.preference} Options:" for p in found.for_preference] == questions
    assert [p.name for p in found.for_revision] == list(pairs)
    for p in found.for_revision:
        assert pairs[p.name]["prompt"] == [p.critique.join(CRITIQUE)]
        assert pairs[p.name]["edit_request"] == p.revision.join(REVISION)


@paper
def test_the_papers_version_is_the_same_from_anywhere_and_after_writing(tmp_path: Path) -> None:
    found = import_constitution(PAPER)
    path = tmp_path / "paper.yaml"
    path.write_text(found.to_yaml(), encoding="utf-8")
    assert load_constitution(path).digest == found.digest == import_constitution(PAPER / "prompts").digest
    assert found.digest == PAPERS_VERSION


PAPERS_VERSION = "3cece7417e20"
"""A hash, not wording: changes when the way a constitution is hashed changes, which makes every run anew."""
