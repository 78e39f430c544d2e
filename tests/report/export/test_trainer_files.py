"""Files for other trainers, each read back by what reads it there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.cli.read import EXPORTS
from constitutional_ai.data.pairs import load_pairs
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.errors import InputError
from constitutional_ai.records import Conversation, Message, as_messages
from constitutional_ai.report.export import trainer_files, training_rows
from constitutional_ai.report.export.trainer_files import FORMS, to_trainer
from constitutional_ai.report.export.training_rows import TrainingRows
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Silent
from tests.report.export.conftest import PROMPT, TALK

TURNS = as_messages(TALK)
SFT = {
    "id": "a",
    "source": "revisions",
    "prompt": TURNS,
    "completion": [{"role": "assistant", "content": "No."}],
}
PAIR = {
    "id": "b",
    "source": "ai",
    "prompt": TURNS,
    "chosen": [{"role": "assistant", "content": "Yes."}],
    "rejected": [{"role": "assistant", "content": "No."}],
    "p_chosen": 0.75,
    "tie": False,
}
ASKED = {"id": "c", "source": "red_team", "prompt": TURNS}
UNUSUAL = {**ASKED, "prompt": [*TURNS, {"role": "user", "content": "Again."}]}
ROWS = TrainingRows([SFT], [PAIR, {**PAIR, "p_chosen": 0.5, "tie": True}], [PAIR], [ASKED, UNUSUAL], [])


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run has ``ROWS``."""
    monkeypatch.setattr(trainer_files, "training_rows", lambda run: ROWS)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_rows_come_from_the_records_of_an_unfinished_run(run: Run) -> None:
    found = training_rows.training_rows(run)
    assert [(row["completion"][0]["content"], row["source"]) for row in found.sft] == [("Kinder.", "revisions")]
    (pair,) = found.pairs
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"], pair["p_chosen"]) == ("a", "b", 0.75)
    assert [row["id"] for row in found.prompts] == [row["id"] for row in found.held_out_prompts] == [PROMPT.id]
    assert found.held_out_pairs == []


def test_the_command_says_what_it_wrote_and_left_out(run: Run, rows: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["export", str(run.folder), "--to", "llama-factory", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        f"{out}/sft.jsonl: 1 rows",
        f"{out}/preference.jsonl: 1 rows (left out: 1 ties)",
        f"{out}/preference-test.jsonl: 1 rows",
        f"{out}/prompts.jsonl: 1 rows (left out: 1 whose turns do not alternate)",
    ]


def test_the_command_knows_every_form() -> None:
    assert set(EXPORTS) == {"parquet", "inspect", *FORMS}


def test_a_run_without_records_has_nothing_to_export(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {}, Silent()) as empty, pytest.raises(InputError, match="cai run"):
        to_trainer("trl", empty, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["trl", "openrlhf"])
def test_trl_reads_its_rows(run: Run, rows: None, tmp_path: Path, form: str) -> None:
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    to_trainer(form, run, tmp_path)
    loaded = {
        name: datasets.load_dataset(
            "json", data_files=str(tmp_path / f"{name}.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
        )
        for name in ("sft", "preference", "prompts")
    }
    for data in loaded.values():
        assert trl.data_utils.is_conversational(data[0])
        assert data[0]["prompt"] == TURNS
    assert loaded["sft"][0]["completion"] == SFT["completion"]
    assert [loaded["preference"][0][key] for key in ("chosen", "rejected", "p_chosen")] == [
        PAIR["chosen"],
        PAIR["rejected"],
        0.75,
    ]


def test_verl_gets_the_prompt_where_its_reward_functions_find_it(run: Run, rows: None, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    written = to_trainer("verl", run, tmp_path)
    assert [one.file.name for one in written] == ["sft.parquet", "prompts.parquet"]  # it trains on no pairs
    first = parquet.read_table(tmp_path / "prompts.parquet").to_pylist()[0]
    assert first["prompt"] == first["extra_info"]["prompt"] == TURNS
    assert first["reward_model"] == {"style": "model", "ground_truth": ""}
    assert parquet.read_table(tmp_path / "sft.parquet").to_pylist() == [{"messages": TURNS + SFT["completion"]}]


@pytest.mark.parametrize("form", ["messages", "sharegpt"])
def test_common_forms_are_read_by_our_own_reader(run: Run, rows: None, tmp_path: Path, form: str) -> None:
    to_trainer(form, run, tmp_path)
    (pair,) = load_pairs(tmp_path / "preference.jsonl").usable
    assert (pair.conversation, pair.chosen, pair.rejected) == (TALK, "Yes.", "No.")
    prompts = load_prompts(str(tmp_path / "prompts.jsonl"), "red_team")
    assert TALK in {prompt.conversation for part in prompts for prompt in part}


def test_llama_factory_has_an_entry_for_each_file(run: Run, rows: None, tmp_path: Path) -> None:
    to_trainer("llama-factory", run, tmp_path)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info.keys() == {"cai_sft", "cai_preference", "cai_preference_test", "cai_prompts"}
    for entry in info.values():
        for row in lines(tmp_path / entry["file_name"]):
            assert set(entry["columns"].values()) <= row.keys()


def with_system(*turns: str) -> Conversation:
    roles = ("system", "user", "assistant")
    return tuple(Message(roles[0] if n == 0 else roles[2 - n % 2], text) for n, text in enumerate(turns))  # type: ignore[arg-type]


def test_an_alpaca_prompt_keeps_system_and_history() -> None:
    prompt = as_messages(with_system("Be kind.", "Hi", "Yes?", "Help me."))
    assert trainer_files._alpaca_prompt({"prompt": prompt}) == {
        "instruction": "Help me.",
        "history": [["Hi", "Yes?"]],
        "system": "Be kind.",
    }
