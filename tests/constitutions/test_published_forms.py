"""Each published form, from the smallest true example, and back: a heading or a row of numbers is never a principle."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from constitutional_ai.constitutions.constitution import Constitution, load_constitution
from constitutional_ai.constitutions.export_forms import exported, left_behind
from constitutional_ai.constitutions.published import import_constitution
from constitutional_ai.constitutions.traits import QUESTION
from constitutional_ai.errors import InputError
from tests.paper_files import BESIDE

COMMENTS = """\
timestamp,comment-id,author-id,agrees,disagrees,moderated,comment-body
1689,0,4,8,2,1,The AI should be kind.
1690,1,4,1,9,1,The AI should be rude.
1691,2,4,9,1,1,"The AI should be fair, always."
1692,3,4,9,1,0,Hello?
"""
PARTICIPANTS = """\
participant,group-id,n-comments,n-votes,n-agree,n-disagree,0,1,2,3
1,0,1,3,3,0,1,1,1,
2,0,0,3,2,1,1,1,-1,
3,1,0,3,2,1,1,-1,1,
4,1,0,2,1,0,1,,0,
5,,0,1,1,0,,,1,
"""
GROUPS = """\
comment-id,comment,total-votes,total-agrees,group-a-votes,group-a-agrees,group-b-votes,group-b-agrees
7,The AI should be kind.,8,6,6,5,2,1
8,The AI should ask back.,8,7,6,6,2,2
9,The AI should be quick.,6,6,6,6,0,0
"""
SHARES = "comment-id,agrees,disagrees,comment-body,group_0_consensus\n0,188,12,Be kind.,0.88\n"
RBR = """\
completion_classes:
  ideal:
    refuse: {right: true}
    comply: {rude: false, no_help: false}
derived_propositions:
  right: {rude: false, right: true, brief: true}
  no_help: {helps: false}
simple_propositions:
  rude:
    prompt: |-
      Is the reply rude?
      - Examples: many
  brief:
    prompt: |-
      Is it any of these:
      - short
      - plain

      ### Examples
      Answer: no
  helps: {prompt: "Does it help?"}
"""
DISTILLED = {"0": "Prefer the kinder reply.", "1": "Prefer the longer reply."}
FORMS: list[tuple[str, Mapping[str, str], dict[str, float]]] = [  # (what to import, its files, text → weight)
    ("comments.csv", {"comments.csv": COMMENTS}, {
        "The AI should be kind.": 9 / 12, "The AI should be fair, always.": 10 / 12,
    }),
    (".", {"comments.csv": COMMENTS, "participants-votes.csv": PARTICIPANTS}, {
        "The AI should be kind.": 3 / 4 * 3 / 4,
    }),
    (".", {"comment-groups.csv": GROUPS}, {
        "The AI should ask back.": 7 / 8 * 3 / 4, "The AI should be quick.": 7 / 8,
    }),
    ("a.csv", {"a.csv": SHARES}, {"Be kind.": 0.88}),
    ("a.tsv", {"a.tsv": "Name\tStatement\tWeight\nkind\tBe kind; always.\t2\n"}, {"Be kind; always.": 2}),
    ("a.csv", {"a.csv": "statement\nBe kind, always.\n\nBe fair.\n"}, {"Be kind, always.": 1, "Be fair.": 1}),
    ("a.json", {"a.json": '[{"name": "kindness", "definition": "Be kind.", "weight": 2}]'}, {"Be kind.": 2}),
    ("a.json", {"a.json": '{"kindness": {"description": "Be kind."}}'}, {"Be kind.": 1}),
    ("a.jsonl", {"a.jsonl": '{"label": "a", "text": "Be kind."}\n{"label": "b", "text": "Be fair."}\n'}, {
        "Be kind.": 1, "Be fair.": 1,
    }),
    ("a.yaml", {"a.yaml": "- {name: kind, definition: Be kind., weight: 0.5}\n"}, {"Be kind.": 0.5}),
    ("a.yaml", {"a.yaml": "kind: {definition: Be kind.}\n"}, {"Be kind.": 1}),
    ("a.md", {"a.md": "# Values\n\n- **Kind** (0.3): Be kind.\n- **Fair (70%)**: Be\n  fair.\n- **Wise:** Be so.\n"}, {
        "Be kind.": 0.3, "Be fair.": 70, "Be so.": 1,
    }),
    ("a.txt", {"a.txt": json.dumps([{"trait": "I am kind.", "questions": ["What?"]}], indent=1)}, {
        QUESTION.replace("{trait}", "I am kind."): 1,
    }),
    (".", {"results/030_distilled_principles_per_cluster.json": json.dumps(DISTILLED),
           "results/041_votes_per_cluster.json": json.dumps({k: {"for": 7, "against": 1} for k in DISTILLED}),
           "results/060_constitution.json": json.dumps("1. Prefer the kinder reply.")}, {
        "Prefer the kinder reply.": 0.8,
    }),
    ("030.json", {"030.json": json.dumps(DISTILLED)}, dict.fromkeys(DISTILLED.values(), 1)),
    ("060.json", {"060.json": json.dumps("1. Be kind.\n2. Be fair.")}, {"Be kind.": 1, "Be fair.": 1}),
    ("a.yaml", {"a.yaml": RBR}, {
        "Answer this about each of the two replies: Is the reply rude? Choose the reply of which the answer is no.": 1,
        "Answer this about each of the two replies: Is it any of these: - short - plain Choose the reply of which the "
        "answer is yes.": 1,
    }),
]  # fmt: skip


def written(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(("source", "files", "texts"), FORMS)
def test_each_form_gives_its_principles_with_weights_and_anchors(
    tmp_path: Path, source: str, files: Mapping[str, str], texts: dict[str, float]
) -> None:
    found = import_constitution(written(tmp_path, files) / source)
    assert {p.preference: p.weight for p in found.principles} == pytest.approx(texts)
    for principle in found.principles:
        assert principle.source is not None
        assert principle.source.document in {Path(name).name for name in files}
        assert principle.source.line or principle.source.clause
    path = tmp_path / "ours.yaml"
    path.write_text(found.to_yaml(), encoding="utf-8")
    assert load_constitution(path) == found


def test_an_anchor_names_the_line_and_the_row(tmp_path: Path) -> None:
    found = import_constitution(written(tmp_path, {"comments.csv": COMMENTS}) / "comments.csv")
    assert [(p.source.line, p.source.clause) for p in found.principles if p.source] == [(2, "0"), (4, "2")]
    assert "Left out: 1 statements with which some group does not agree, 1 that" in found.description


def test_a_proposition_that_some_replies_want_is_for_their_prompts(tmp_path: Path) -> None:
    found = import_constitution(written(tmp_path, {"a.yaml": RBR}) / "a.yaml")
    assert {p.name: p.applies_to for p in found.principles} == {"rude: no": (), "brief: yes": ("refuse",)}
    assert "Left out: 1 propositions" in found.description


def test_a_table_with_our_columns_holds_whole_principles(tmp_path: Path) -> None:
    text = "name,critique,revision,preference,tags\nkind,Is it rude?,Be kinder.,,tone; care\nfair,,,Which is fairer?,\n"
    kind, fair = import_constitution(written(tmp_path, {"a.csv": text}) / "a.csv").principles
    assert (kind.critique, kind.revision, kind.preference) == ("Is it rude?", "Be kinder.", None)
    assert (kind.tags, fair.preference, fair.revision) == (("tone", "care"), "Which is fairer?", None)


REFUSED: list[tuple[str, str, str]] = [  # (file, what it holds, what the one sentence says after the path)
    ("a.csv", "0,188,Be kind.\n", ":1: no column of statements"),
    ("a.csv", "", ":1: no column of statements"),
    ("a.csv", "statement,statement\nBe kind.,x\n", ":1: two columns are named 'statement'"),
    ("a.csv", "statement\n12\n", ":2: 'statement' holds no words"),
    ("a.csv", "statement,weight\nBe kind.,\n\nBe fair.,high\n", ":4: weight: 'high' is no number above 0"),
    ("a.csv", "statement,weight\nBe kind.,0\n", ":2: weight: '0' is no number above 0"),
    ("a.csv", "statement,weight\nBe kind, always.,1\n", ":2: 3 cells, but the header has 2"),
    ("a.csv", 'statement,weight\n"Be kind.,1\n', ":2: not a table (unexpected end of data)"),
    ("a.csv", "statement,agrees,disagrees\nBe kind.,-3,1\n", ":2: agrees: '-3' is no number of votes"),
    ("a.csv", "statement,group-a-votes,group-a-agrees\nBe kind.,1,2\n", ":2: group-a-agrees: 2 is more than"),
    ("a.csv", "statement,group_0_consensus\nBe kind.,88\n", ":2: group-0-consensus: '88' is no share"),
    ("a.csv", ",".join(["a", *map(str, range(50_000))]) + "\nx\n", ":1: no column of statements"),
    ("a.csv", "statement\n" + "Be kind.\n" * 5_001, ":5002: more than 5,000 principles. Split the table."),
    ("a.xlsx", "x", ": a spreadsheet. Save it as CSV"),
    ("a.json", '[{"name": "a", "definition": "Be."}, {"name": "b"}]', ":1: 'b' must hold two texts"),
    ("a.json", '[{"definition": "Be kind."}]', ":1: 'an item' must hold two texts"),
    ("a.json", '[{"name": "a", "text": "Be.", "weight": "high"}]', ":1: 'a': weight must be a number above 0"),
    ("a.json", '[{"name": "a", "text": "Be.", "weight": 0}]', ":1: 'a': weight must be a number above 0"),
    ("a.yaml", "- {name: a, text: Be.}\n- {name: b}\n", ":2: 'b' must hold two texts"),
    ("a.json", '[{"trait": "I am."},\n {"trait": 3}]', ":2: must hold 'trait', a text"),
    ("a.json", '"1. Be kind.\\nAnd fair."', ": line 2 of its text is no numbered principle"),
    ("a.json", '{"0": "Be kind.", "1": 3}', ": '1' is not a text"),
    ("a.yaml", "simple_propositions: {}\n", " must hold 'simple_propositions' and"),
    ("a.yaml", RBR.replace('{prompt: "Does it help?"}', "{}").replace("no_help: false", "helps: true"),
     ":21: 'helps' must hold 'prompt'"),
    ("a.md", "- **Kind** (1.2.3): Be kind.\n", ":1: '(1.2.3)' is no weight"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "sentence"), REFUSED)
def test_what_is_no_principle_is_refused_with_its_line(
    tmp_path: Path, name: str, text: str, sentence: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        import_constitution(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}{sentence}")


def test_no_more_than_the_bound_is_read_packed_or_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"Be kind.\n" * 500_000)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"Be kind.\n" * 10_000_000, 1))
    for name in ("a.txt", "a.txt.gz"):
        with pytest.raises(InputError, match=r"holds more than 4 MB of text\. Split it"):
            import_constitution(tmp_path / name)


ENDLESS = ["principles: &a [*a]\n", "&a {name: *a}\n", "[" * 5_000, "- &x {a: b}\n" + "- {<<: *x}\n" * 3]
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize("text", [*ENDLESS, BOMB])
def test_yaml_that_repeats_itself_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    for read in (import_constitution, load_constitution):
        with pytest.raises(InputError) as caught:
            read(tmp_path / "a.yaml")
        assert "\n" not in str(caught.value)


# -- to other forms, and back


def texts(constitution: Constitution) -> list[tuple[str | None, str | None, str | None]]:
    return [(p.critique, p.revision, p.preference) for p in constitution.principles]


def test_what_is_exported_is_imported_again(tmp_path: Path) -> None:
    ours = load_constitution("default")
    (tmp_path / "swarm.json").write_text(exported(ours, "llm-swarm")[""], encoding="utf-8")
    (tmp_path / "ours.yaml").write_text(exported(ours, "yaml")[""], encoding="utf-8")
    nemo = written(tmp_path / "nemo", exported(ours, "nemo-aligner"))
    assert texts(import_constitution(tmp_path / "swarm.json")) == texts(ours)[:16]
    assert texts(import_constitution(nemo)) == texts(ours)[:32]  # the last 8 are propositions
    assert load_constitution(tmp_path / "ours.yaml") == ours


def test_an_export_says_what_it_leaves_behind(tmp_path: Path) -> None:
    found = import_constitution(written(tmp_path, {"a.yaml": RBR}) / "a.yaml")
    assert left_behind(found, "yaml") == []
    assert left_behind(found, "nemo-aligner") == ["1 scopes (applies_to)", "2 propositions"]
    with pytest.raises(InputError, match="has no principle with a critique and a revision"):
        exported(found, "llm-swarm")


PROPOSITIONS = BESIDE.parent / "judges" / "rbr-propositions.yaml"


@pytest.mark.skipif(not PROPOSITIONS.is_file(), reason=f"no file {PROPOSITIONS}")
def test_openais_own_propositions_are_read() -> None:
    found = import_constitution(PROPOSITIONS)
    by_name = {p.name: p for p in found.principles}
    assert (
        by_name["disallowed_content: no"].applies_to
        == by_name["illogical_continuation_of_prompt: no"].applies_to
        == ()
    )
    assert by_name["fully_complies: no"].applies_to == ("hard_refuse",)
    assert len(found.principles) == 21
