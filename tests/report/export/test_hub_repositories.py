"""What is pushed to the hub and pulled from it, against a stand-in of its HTTP interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from constitutional_ai.cli import hub as hub_commands
from constitutional_ai.cli import main
from constitutional_ai.data.hub_files import local_file
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.errors import InputError
from constitutional_ai.report.export import hub_repositories as hub_export
from constitutional_ai.runs.run import Run
from tests.hub_server import HubServer

huggingface_hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("pyarrow")
TOKEN = "hf_thisisnotatoken"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A hub, which its client takes for the real one, with a cache of its own."""
    from huggingface_hub import constants

    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_the_data_of_a_run_goes_to_a_private_data_set_with_recipe_and_card(run: Run, hub: HubServer) -> None:
    (run.folder / "recipe.yaml").write_text("seed: 0\n")
    (run.folder / "constitution.yaml").write_text("name: mine\n")
    done = CliRunner().invoke(main, ["push", str(run.folder), "me/my-run"])
    assert done.exit_code == 0, done.output
    assert done.output == f"data: {hub.url}/datasets/me/my-run\n"
    files = hub.files["datasets/me/my-run"]
    assert hub.private["datasets/me/my-run"]
    assert {"recipe.yaml", "constitution.yaml", "README.md", "records/labels.parquet"} <= files.keys()
    assert {"train/sft.jsonl", "train/preference.jsonl", "train/prompts.jsonl"} <= files.keys()
    head = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert {"config_name": "preference", "data_files": "train/preference.jsonl"} in head["configs"]
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert not any(TOKEN.encode() in data for data in files.values())


def test_a_data_set_is_pulled_without_what_could_hold_code(run: Run, hub: HubServer, tmp_path: Path) -> None:
    list(hub_export.push(run, "me/my-run"))
    hub.files["datasets/me/my-run"]["loader.py"] = b"import os"
    hub.files["datasets/me/my-run"]["weights.bin"] = b"\x80\x04."
    done = CliRunner().invoke(main, ["pull", "datasets/me/my-run", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"preference.jsonl", "labels.parquet"} <= names
    assert not {"loader.py", "weights.bin"} & names
    again = CliRunner().invoke(main, ["pull", "datasets/me/my-run", "--out", str(tmp_path / "out")])
    assert (again.exit_code, "holds files already" in again.output) == (1, True)


def test_a_model_goes_to_a_repository_of_its_own(hub: HubServer, tmp_path: Path) -> None:
    weights = tmp_path / "model"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"weights" * 1000)
    (weights / "README.md").write_text("---\ntags: [sl-cai]\n---\nA card.\n")
    address = hub_export._upload(weights, "me/my-run-sl-cai", "model", public=True)
    assert address == f"{hub.url}/me/my-run-sl-cai"
    assert hub.files["models/me/my-run-sl-cai"]["model.safetensors"] == b"weights" * 1000
    assert not hub.private["models/me/my-run-sl-cai"]
    pulled = hub_export.pull("me/my-run-sl-cai", tmp_path / "out")
    assert (pulled / "model.safetensors").read_bytes() == b"weights" * 1000


def test_a_part_that_a_run_lacks_is_named(run: Run, hub: HubServer) -> None:
    with pytest.raises(InputError, match="has no rl-cai yet"):
        list(hub_export.push(run, "me/my-run", ["rl-cai"]))
    assert hub.requests == []


def test_the_commands_know_the_parts() -> None:
    assert hub_commands.PARTS == hub_export.PARTS


ROWS = b'{"prompt": "How do I bake bread?"}\n{"prompt": "How do I wash wool?"}\n'


def test_prompts_are_read_from_a_data_set_on_the_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["datasets/some/prompts"] = {"README.md": b"Prompts.", "data/train.jsonl": ROWS}
    for name in ("hf://datasets/some/prompts", "hf://datasets/some/prompts@main/data/train.jsonl"):
        loaded = load_prompts(name, "helpful")
        assert len(loaded.train) + len(loaded.held_out) == 2
    asked = len(hub.requests)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load_prompts("hf://datasets/some/prompts/data/train.jsonl", "helpful") == loaded
    assert len(hub.requests) == asked  # it is on this machine


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hf://datasets/some", "Write hf://datasets/OWNER/NAME/FILE"),
        ("hf://models/some/prompts", "names no data set"),
        ("hf://datasets/some/other", "the hub has no data set some/other"),
        ("hf://datasets/some/prompts/b.jsonl", "has no such file"),
        ("hf://datasets/some/two", "holds 2 files of rows: a.csv, b.jsonl.gz. Name one"),
        ("hf://datasets/some/none", "holds no file of rows"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_sentence(hub: HubServer, name: str, why: str) -> None:
    hub.files["datasets/some/prompts"] = {"a.jsonl": ROWS}
    hub.files["datasets/some/two"] = {"a.csv": ROWS, "b.jsonl.gz": ROWS}
    hub.files["datasets/some/none"] = {"README.md": b"Nothing."}
    with pytest.raises(InputError, match=why):
        local_file(name)


def test_without_a_hub_a_name_is_one_sentence(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        local_file("hf://datasets/some/prompts")


def test_other_names_are_paths() -> None:
    assert local_file("a/b.jsonl") == Path("a/b.jsonl")
