"""``cai score`` and the first steps of ``cai serve``: what is typed, read and written."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from constitutional_ai import machine
from constitutional_ai.cli import main, models
from constitutional_ai.errors import RecordError
from constitutional_ai.records import (
    Answer,
    Completion,
    Conversation,
    Message,
    Prompt,
    Response,
    Verdict,
    as_messages,
)
from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel, Scorable
from constitutional_ai.runs.rows import write_rows
from constitutional_ai.serve import score_file


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "best_dtype", lambda: torch.float32)


def cai(*args: object) -> Result:
    return CliRunner().invoke(main, list(map(str, args)))


def talk(*said: str) -> Conversation:
    return tuple(Message("assistant" if n % 2 else "user", text) for n, text in enumerate(said))


def write(name: str, *rows: Any) -> str:
    Path(name).write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return name


def scored(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


HI = as_messages(talk("Hi", "Hello"))
FORMS = [
    {"messages": HI},
    {"conversation": HI},
    {"messages": HI, "prompt": "something else"},
    {"prompt": HI[:1], "completion": HI[1:]},
    {"prompt": HI[:1], "response": "Hello"},
    {"prompt": "Hi", "completion": "Hello"},
    {"prompt": "Hi", "response": HI[1:]},
    {"prompt": "\n\nHuman: Hi\n\nAssistant:", "completion": " Hello"},
    {"text": "\n\nHuman: Hi\n\nAssistant: Hello"},
    {"text": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"},
]


def test_every_form_of_one_conversation_has_its_one_score(tiny_pm: Path) -> None:
    result = cai("score", tiny_pm, write("in.jsonl", *FORMS), "--out", "deep/out.jsonl")
    assert result.exit_code == 0, result.output
    [expected] = PreferenceModel(tiny_pm).scores([talk("Hi", "Hello")])
    rows = scored("deep/out.jsonl")
    assert [row["score"] for row in rows] == pytest.approx([expected] * len(FORMS), abs=1e-4)
    assert [row["line"] for row in rows] == list(range(1, len(FORMS) + 1))


def test_scores_are_the_models_in_the_order_of_the_file_whatever_the_batch(
    tiny_pm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_file, "BATCH", 4)
    talks = [talk("Hi", "x" * (n * 7 % 30)) for n in range(11)]
    write("in.jsonl", *[{"id": f"n{n}", "messages": as_messages(c)} for n, c in enumerate(talks)])
    result = cai("score", tiny_pm, "in.jsonl", "--out", "out.jsonl")
    expected = PreferenceModel(tiny_pm).scores(talks)
    rows = scored("out.jsonl")
    assert [row["score"] for row in rows] == pytest.approx(expected, abs=1e-4)
    assert [row["id"] for row in rows] == [f"n{n}" for n in range(11)]
    assert f"11 conversations, mean score {fmean(expected):.4g}, standard deviation {stdev(expected):.4g}" in (
        result.stdout
    )


def test_a_run_is_named_by_its_folder_and_its_records_are_read_as_they_are(tiny_pm: Path) -> None:
    run = Path("run")
    (run / "06-preference-model").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    refused = cai("score", run, write("in.jsonl", *FORMS), "--out", "out.jsonl")
    assert (
        "has no preference model yet. Make it: cai run RECIPE out=run --until 06-preference-model"
        in refused.stderr
    )
    (run / "06-preference-model" / "model").symlink_to(tiny_pm)
    (run / "06-preference-model" / "stage.json").write_text(json.dumps(STAGE))
    answer = Response("p.0", Prompt.of(talk("Hi"), "red_team", "f"), Completion("Hello", "m", "stop", 0, 0))
    write_rows(run / "01.jsonl", Response, [answer])
    write_rows(run / "08.jsonl", Answer, [Answer("p.0.m", "start", answer, Verdict(False, None))])
    [expected] = PreferenceModel(tiny_pm).scores([talk("Hi", "Hello")])
    for name, row_id in (("01", "p.0"), ("08", "p.0.m")):
        assert cai("score", run, run / f"{name}.jsonl", "--out", f"{name}.jsonl").exit_code == 0
        assert scored(f"{name}.jsonl") == [
            {"line": 1, "id": row_id, "score": pytest.approx(expected, abs=1e-4)}
        ]


STAGE = {
    "stage": "06-preference-model", "config": {}, "inputs": {}, "output": "", "records": 0, "failures": 0,
    "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0, "finished": "", "notes": {}, "versions": {},
    "commit": None,
}  # fmt: skip

UNREADABLE = [  # (row, why it cannot be scored)
    ("{torn", "not JSON"),
    ('{"text": "\\ud800"}', "not JSON"),
    ([], "must be an object with keys"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: "),
    ({"messages": 1}, "messages: "),
    ({}, "it does not end with an answer of the assistant"),
    ({"prompt": "Hi"}, "it does not end with an answer of the assistant"),
    ({"messages": HI[1:]}, "it has no human turn"),
    ({"prompt": "Hi", "completion": "x " * 600}, "exceed the model's 512"),
]


def test_rows_that_cannot_be_scored_are_counted_and_named(tiny_pm: Path) -> None:
    write("in.jsonl", {"messages": HI}, "", *[row for row, _ in UNREADABLE], {"messages": HI})
    result = cai("score", tiny_pm, "in.jsonl", "--out", "out.jsonl")
    assert result.exit_code == 0
    assert "out.jsonl: 2 conversations, mean score" in result.stdout
    assert [row["line"] for row in scored("out.jsonl")] == [1, len(UNREADABLE) + 3]
    head = f"{len(UNREADABLE)} rows of in.jsonl could not be scored:\n"
    assert head in result.stderr
    named = result.stderr.partition(head)[2].splitlines()
    for number, (line, (_, why)) in enumerate(zip(named, UNREADABLE, strict=True), start=3):
        assert line.startswith(f"  line {number}: ")
        assert why in line


def test_only_the_first_bad_rows_are_named(tiny_pm: Path) -> None:
    write("in.jsonl", {"messages": HI}, *["{torn"] * 30)
    result = cai("score", tiny_pm, "in.jsonl", "--out", "out.jsonl")
    assert "30 rows of in.jsonl could not be scored" in result.stderr
    assert result.stderr.count("  line ") == models.NAMED
    assert "standard deviation" not in result.stdout  # of one score there is none


def test_a_mistake_is_one_sentence(tiny_pm: Path, tiny: Path) -> None:
    good, bad = write("good.jsonl", {"messages": HI}), write("bad.jsonl", "{torn")
    Path("there.jsonl").write_text("mine")
    Path("folder").mkdir()
    for args, said in [
        (
            ("score", tiny_pm, good, "--out", "there.jsonl"),
            "there.jsonl already exists. Delete it, or choose another",
        ),
        (("score", tiny_pm, "nowhere.jsonl", "--out", "out.jsonl"), "no file 'nowhere.jsonl'"),
        (("score", tiny_pm, "folder", "--out", "out.jsonl"), "no file 'folder'"),
        (
            ("score", tiny_pm, good, "--out", "there.jsonl/out.jsonl"),
            "cannot read 'good.jsonl' or write 'there.jsonl/",
        ),
        (
            ("score", tiny_pm, bad, "--out", "out.jsonl"),
            "no conversation in bad.jsonl could be scored. line 1",
        ),
        (
            ("score", "folder", good, "--out", "out.jsonl"),
            "'folder' is neither a run nor the folder of a preference",
        ),
        (("score", tiny, good, "--out", "out.jsonl"), "is not a preference model"),
        (("serve", "folder"), "'folder' is neither a run nor the folder of a preference model"),
        (("serve", tiny), "is not a preference model"),
    ]:
        result = cai(*args)
        assert result.exit_code == 1, args
        assert said in result.stderr
        assert "Traceback" not in result.output
    assert Path("there.jsonl").read_text() == "mine"
    assert not Path("out.jsonl").exists()


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(tiny_pm: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = cai("serve", tiny_pm, "--port", taken.getsockname()[1])
    assert result.exit_code == 1
    assert "Try another --port." in result.stderr


def test_without_its_libraries_the_server_says_what_to_install(
    tiny_pm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("reward_server", "listening"):
        monkeypatch.delitem(sys.modules, f"constitutional_ai.serve.{module}", raising=False)
        monkeypatch.delattr(f"constitutional_ai.serve.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = cai("serve", tiny_pm)
    assert result.stderr == (
        "cai: the package 'uvicorn' is not installed. Type: pip install 'constitutional-ai[serve]', or in a clone "
        "of the source: pip install --editable '.[serve]'\n"
    )


def test_a_row_that_is_too_long_is_counted_and_costs_no_memory(
    tiny_pm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_file, "MAX_BYTES", 1000)
    long = {"messages": [HI[0], {**HI[1], "content": "x" * 5000}]}
    exact = {"id": "", "messages": HI}
    exact["id"] = "y" * (999 - len(json.dumps(exact)))  # and its line break
    file = write("rows.jsonl", long, {"messages": HI}, long, exact, long)
    result = cai("score", tiny_pm, file, "--out", "scores.jsonl")
    assert [row["line"] for row in scored("scores.jsonl")] == [2, 4]
    assert "3 rows of rows.jsonl could not be scored" in result.stderr
    assert "line 1: it has more than 1000 bytes" in result.stderr


def test_a_conversation_far_beyond_the_context_is_not_tokenized(
    tiny_pm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = Scorable(tiny_pm)
    monkeypatch.setattr(checked, "_tokens", lambda _: pytest.fail("it is tokenized"))
    with pytest.raises(RecordError, match="1000002 characters exceed the model's 512 tokens"):
        checked.check(talk("Hi", "x" * 10**6))
    with pytest.raises(RecordError, match="1000 turns exceed the model's 512 tokens"):
        checked.check(talk(*["a"] * 1000))
