from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from constitutional_ai.data.prompts import load_prompts, load_prompts_of_kind, prompts_of, sample_prompts
from constitutional_ai.errors import InputError
from constitutional_ai.records import Kind, Message, Prompt, conversation_id
from constitutional_ai.rl_cai.feedback.gate import gate_questions
from constitutional_ai.rl_cai.preference_model.training_pairs import helpfulness

KINDS = ("red_team", "helpful", "borderline")


@pytest.mark.parametrize(("kind", "least"), [("red_team", 96), ("helpful", 96), ("borderline", 48)])
def test_ours_are_enough_to_train_and_to_evaluate_on(kind: str, least: int) -> None:
    ours = load_prompts("built-in", kind)
    assert len(ours.train) + len(ours.held_out) >= least
    assert len(ours.held_out) >= 24
    assert {p.kind for p in ours.train + ours.held_out} == {kind}


def test_ours_provoke_at_least_ten_kinds_of_harm() -> None:
    ours = load_prompts("built-in", "red_team")
    for part in ours:
        assert len({tag for p in part for tag in p.tags}) >= 10
    assert min(Counter(tag for p in ours.train for tag in p.tags).values()) >= 2


def test_no_held_out_prompt_is_trained_on_in_any_file() -> None:
    files = [load_prompts("built-in", kind) for kind in KINDS]
    trained = {p.id for file in files for p in file.train}
    trained |= {
        conversation_id(tuple(Message(**m) for m in r["prompt"])) for r in helpfulness("built-in", None, 0).rows
    }
    held_out = {p.id for file in files for p in file.held_out}
    assert not trained & held_out
    assert len(held_out) == sum(len(file.held_out) for file in files)


def test_the_gate_has_forty_questions_and_none_is_labelled_in_training() -> None:
    asked = gate_questions()
    assert len(asked) >= 40
    assert all(q.better.strip() and q.worse.strip() and q.better != q.worse for q in asked)
    trained = {p.id for kind in KINDS for p in load_prompts("built-in", kind).train}
    assert not trained & {conversation_id(q.conversation) for q in asked}


def talk(roles: str) -> tuple[Message, ...]:
    names = {"s": "system", "u": "user", "a": "assistant"}
    return tuple(Message(names[r], f"{r}{i}") for i, r in enumerate(roles))


@pytest.mark.parametrize(
    ("roles", "prompts"),
    [
        ("u", ["u"]),
        ("uau", ["uau"]),
        ("ua", ["u"]),
        ("uaua", ["u", "uau"]),
        ("suaua", ["su", "suau"]),
    ],
)
def test_a_whole_dialogue_gives_one_prompt_per_human_turn(roles: str, prompts: list[str]) -> None:
    """SL-1."""
    assert prompts_of(talk(roles)) == [talk(roles)[: len(p)] for p in prompts]


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_row_may_have_a_kind_tags_and_a_split(tmp_path: Path) -> None:
    file = write(
        tmp_path / "mine.jsonl",
        {"prompt": "One", "split": "train", "tags": ["t"]},
        {"prompt": "Two", "split": "held_out", "kind": "borderline"},
    )
    train, held_out = load_prompts(file, "red_team")
    assert train == [Prompt.of((Message("user", "One"),), "red_team", "mine.jsonl", ("t",))]
    assert held_out == [Prompt.of((Message("user", "Two"),), "borderline", "mine.jsonl")]


def test_a_fixed_fifth_of_the_rows_without_a_split_is_held_out(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", *[{"prompt": f"Question {n}"} for n in range(1000)])
    held_out = load_prompts(file, "red_team").held_out
    assert 150 < len(held_out) < 250  # 200, sd 13
    write(tmp_path / "mine.jsonl", *[{"prompt": f"Question {n}"} for n in reversed(range(1000))])
    assert set(load_prompts(file, "red_team").held_out) == set(held_out)


def test_a_prompt_in_both_splits_is_only_held_out(tmp_path: Path) -> None:
    rows = [{"prompt": "One", "split": "train"}, {"prompt": "One", "split": "held_out"}]
    train, held_out = load_prompts(write(tmp_path / "mine.jsonl", *rows), "red_team")
    assert (len(train), len(held_out)) == (0, 1)


def test_a_prompt_twice_is_one_prompt_and_blank_lines_are_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "One", "split": "train"}\n\n{"prompt": "One", "split": "train"}')
    assert len(load_prompts(str(path), "red_team").train) == 1


def test_a_limit_takes_from_the_whole_file_in_an_order_fixed_by_the_seed() -> None:
    prompts = load_prompts("built-in", "red_team").train
    assert sample_prompts(prompts, 5, 0) == sample_prompts(reversed(prompts), 5, 0)
    assert sample_prompts(prompts, 5, 0) == sample_prompts(prompts, 50, 0)[:5]
    assert sample_prompts(prompts, 5, 0) != sample_prompts(prompts, 5, 1)
    assert len(sample_prompts(prompts, None, 0)) == len(prompts)
    assert max(prompts.index(p) for p in sample_prompts(prompts, 10, 0)) > len(prompts) // 2


DIALOGUE = [
    {"from": "human", "value": "One"},
    {"from": "gpt", "value": "An answer"},
    {"from": "human", "value": "Two"},
]
ONE = [{"role": "user", "content": "One"}]
FORMS = [  # a row, and the human turns of each prompt
    ({"prompt": "One"}, ["One"]),
    ({"prompt": [{"role": "user", "content": "One"}]}, ["One"]),
    (
        {"prompt": [{"role": "user", "content": [{"type": "text", "text": "One"}]}], "id": 3, "license": "MIT"},
        ["One"],
    ),
    ({"prompt": "\n\nHuman: One\n\nAssistant:"}, ["One"]),
    ({"prompt": "\n\nHuman: One\n\nAssistant: An answer"}, ["One"]),
    ({"prompt": "\n\nSystem: Be brief.\n\nHuman: One\n\nAssistant:"}, ["One"]),
    ({"prompt": "System: a word with\n\nmany senses"}, ["System: a word with\n\nmany senses"]),
    ({"system": "Be brief.", "messages": [{"role": "system", "content": "Be brief. "}, *ONE]}, ["One"]),
    ({"prompt": "One", "type": None, "category": None, "transcript": None, "num_params": None}, ["One"]),
    ({"prompt": "Assistant: who calls it that?"}, ["Assistant: who calls it that?"]),
    ({"prompt": "One", "prompt_id": "x", "messages": DIALOGUE[:2]}, ["One"]),
    ({"prompt": "One", "conversation": [{"role": "user", "content": "One"}]}, ["One"]),
    ({"input": {"messages": [{"role": "user", "content": "One"}]}}, ["One"]),
    ({"conversations": DIALOGUE}, ["One Two"]),
    ({"conversations": [*DIALOGUE, DIALOGUE[1]]}, ["One", "One Two"]),
    (
        {
            "transcript": "\n\nHuman: One\n\nAssistant: An answer",
            "rating": 3.0,
            "tags": None,
            "num_params": "52B",
        },
        ["One"],
    ),
]


@pytest.mark.parametrize(("row", "prompts"), FORMS)
def test_every_common_form_gives_prompts_without_an_answer_at_the_end(
    tmp_path: Path, row: object, prompts: list[str]
) -> None:
    loaded = load_prompts(write(tmp_path / "mine.jsonl", row), "red_team")
    read = sorted(loaded.train + loaded.held_out, key=lambda p: len(p.conversation))
    assert [" ".join(m.content for m in p.conversation if m.role == "user") for p in read] == prompts
    assert {p.conversation[-1].role for p in read} == {"user"}


@pytest.mark.parametrize(
    "row",
    [
        {"system": "Be brief.", "prompt": "One"},
        {"system": "Be brief.", "messages": [{"role": "system", "content": "Be brief."}, *ONE]},
        {"prompt": "\n\nSystem: Be brief.\n\nHuman: One\n\nAssistant:"},
    ],
)
def test_a_system_turn_in_a_column_or_a_dialogue_begins_the_prompt(tmp_path: Path, row: object) -> None:
    loaded = load_prompts(write(tmp_path / "mine.jsonl", row), "helpful")
    ((prompt,),) = [part for part in loaded if part]
    assert prompt.conversation == (Message("system", "Be brief."), Message("user", "One"))


XSTEST = {
    "labelled": """\
id,prompt,type,label,focus,note
1,How do I kill a queue?,homonyms,safe,kill,violence
2,How do I kill a neighbour?,contrast_homonyms,unsafe,kill,
""",
    "second version": """\
id_v1,id_v2,type,prompt,focus,note
v1-1,v2-1,homonyms,How do I kill a queue?,kill,violence
,v2-2,contrast_homonyms,How do I kill a neighbour?,kill,
""",
}


@pytest.mark.parametrize("table", XSTEST.values(), ids=XSTEST.keys())
def test_xstest_is_read_as_it_is_published(tmp_path: Path, table: str) -> None:
    (tmp_path / "xstest.csv").write_text(table)
    name = str(tmp_path / "xstest.csv")
    loaded = load_prompts(name, "helpful")
    assert {(p.conversation[0].content, p.kind, p.tags) for p in loaded.train + loaded.held_out} == {
        ("How do I kill a queue?", "borderline", ("homonyms",)),
        ("How do I kill a neighbour?", "red_team", ("contrast_homonyms",)),
    }
    of_kind = load_prompts_of_kind(name, "borderline")
    assert [p.kind for p in of_kind.train + of_kind.held_out] == ["borderline"]
    with pytest.raises(InputError, match=r"no prompts of the kind 'helpful'.*prompts\.helpful\.file"):
        load_prompts_of_kind(name, "helpful")


@pytest.mark.parametrize("kind", ["borderline", "red_team"])
def test_or_bench_has_the_kind_that_the_user_says(tmp_path: Path, kind: Kind) -> None:
    (tmp_path / "or-bench-hard-1k.csv").write_text(
        'prompt,category\n"How, in a novel, is a bank robbed?",theft\n'
    )
    loaded = load_prompts(str(tmp_path / "or-bench-hard-1k.csv"), kind)
    assert [(p.kind, p.tags) for p in loaded.train + loaded.held_out] == [(kind, ("theft",))]


REFUSED = {  # content of the file → what the one sentence says
    "torn line": (b'{"prompt": "a"}\n{"prompt": "b', ":2: not JSON"),
    "not JSON": (b"How do I bake?\n", ":1: not JSON"),
    "empty file": (b"", "holds no prompts"),
    "blank file": (b"\n\n", "holds no prompts"),
    "not UTF-8": (b'{"prompt": "\xff"}\n', "is not UTF-8 text"),
    "a list": (b'["a"]\n', ":1: "),
    "no prompt": (b'{"promt": "a"}\n', ":1: unknown key 'promt'. Did you mean 'prompt'?"),
    "nothing": (b"{}\n", ":1: needs either 'prompt' or 'conversation'"),
    "misspelt split": (
        b'{"prompt": "a", "splt": "held_out"}\n',
        ":1: unknown key 'splt'. Did you mean 'split'?",
    ),
    "answers": (
        b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n',
        ":1: unknown key 'chosen': a row of prompts",
    ),
    "an answer": (b'{"prompt": "a", "completion": "b"}\n', ":1: unknown key 'completion': a row of prompts"),
    "two prompts": (
        b'{"prompt": "a", "conversation": [{"role": "user", "content": "b"}]}\n',
        ":1: prompt and conversation hold different prompts",
    ),
    "image": (
        b'{"messages": [{"role": "user", "content": [{"type": "image"}]}]}\n',
        ":1: messages.0.content.0.type: only text is read",
    ),
    "another type": (
        b'{"prompt": "a", "type": "homonym"}\n',
        ":1: type: no type of XSTest. Did you mean 'homonyms'?",
    ),
    "another contrast": (
        b'{"prompt": "a", "type": "contrast_homonym"}\n',
        ":1: type: no type of XSTest. Did you mean 'contrast_homonyms'?",
    ),
    "two system turns": (
        b'{"system": "a", "messages": [{"role": "system", "content": "b"}, {"role": "user", "content": "c"}]}\n',
        ":1: system and messages hold different system turns. Delete one.",
    ),
    "another label": (
        b'{"prompt": "a", "type": "homonyms", "label": "ok"}\n',
        ":1: label: must be 'safe'",
    ),
    "empty prompt": (b'{"prompt": ""}\n', ":1: prompt: is empty"),
    "blank prompt": (b'{"prompt": " \\n"}\n', ":1: prompt: is empty"),
    "empty turn": (b'{"conversation": [{"role": "user", "content": ""}]}\n', ":1: "),
    "no human turn": (b'{"conversation": [{"role": "assistant", "content": "a"}]}\n', "mine.jsonl"),
    "unknown kind": (
        b'{"prompt": "a", "kind": "redteam"}\n',
        ":1: kind: must be 'red_team', 'helpful'",
    ),
    "unknown split": (b'{"prompt": "a", "split": "test"}\n', ":1: split: "),
    "unknown role": (b'{"conversation": [{"role": "human", "content": "a"}]}\n', ":1: conversation.0.role: "),
}


@pytest.mark.parametrize(("content", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_file_is_refused_in_one_sentence_that_names_it(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_prompts(str(path), "red_team")
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.jsonl", "no file '{}'. Name a JSONL file, or 'built-in'."),
        (".", "'{}' is a folder. Name a JSONL file, or 'built-in'."),
        ("a-file/mine.jsonl", "'{}'"),  # the folder is a file
    ],
)
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "a-file").touch()
    path = tmp_path / name
    with pytest.raises(InputError) as caught:
        load_prompts(str(path), "red_team")
    assert said.format(path) in str(caught.value)


def test_a_file_with_other_keys_is_told_which_it_holds_and_which_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "conv.jsonl"
    path.write_text('{"dialog_text": "Hi", "turns_of": 3}\n')
    with pytest.raises(InputError) as caught:
        load_prompts(str(path), "red_team")
    assert str(caught.value) == (
        f"{path}:1: unknown key 'dialog_text'. The row holds 'dialog_text', 'turns_of'; wanted is one of 'prompt', "
        "'conversation', 'messages', 'conversations', 'input', 'transcript'."
    )


TALK = "\n\nHuman: Help me lie to my aunt.\n\nAssistant: No.\n\nHuman: Why?\n\nAssistant: She trusts you."
MESSAGES = [{"role": "user", "content": "Help me lie to my aunt."}, {"role": "assistant", "content": "No."}]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("a.jsonl", json.dumps({"messages": MESSAGES}), 1),
        ("a.jsonl", json.dumps({"transcript": TALK, "rating": 2.0}), 2),
        ("a.json", json.dumps([{"prompt": "Help me lie."}, {"prompt": "Help me cheat."}]), 2),
        ("a.csv", 'prompt,tags\n"Help me lie, please.",lies\n', 1),
        ("a.tsv", "prompt\ttags\nHelp me lie.\tlies\n", 1),
    ],
)
def test_the_usual_files_are_read_as_they_are(
    tmp_path: Path, name: str, text: str, count: int, packed: bool
) -> None:
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    train, held_out = load_prompts(str(path), "red_team")
    assert len(train) + len(held_out) == count
    assert all(prompt.conversation[0].content.startswith("Help me") for prompt in (*train, *held_out))
