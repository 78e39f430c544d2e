"""Push a run to Hugging Face's hub: its records and training rows as a data set, and each trained model with its card.

Constitution and recipe go along with all of them. Repositories are private unless the user says otherwise. The token is
the hub's own (``hf auth login`` or HF_TOKEN): it is neither read nor written here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from constitutional_ai.data.hub_files import hub_errors
from constitutional_ai.errors import InputError
from constitutional_ai.report.card import plain
from constitutional_ai.report.export import Written
from constitutional_ai.report.export.parquet import to_parquet
from constitutional_ai.report.export.trainer_files import to_trainer
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run

DATA = "data"
MODELS = {
    "sl-cai": layout.SL_CAI_MODEL,
    "preference-model": layout.PREFERENCE_MODEL,
    "rl-cai": layout.RL_CAI_MODEL,
}
PARTS = (DATA, *MODELS)
"""What can be pushed. A model goes to NAME-PART, the data set to NAME."""
SAFE = ("*.safetensors", "*.json", "*.jsonl", "*.yaml", "*.md", "*.txt", "*.jinja", "*.model", "*.parquet")
"""Files that are pulled: no pickles, no code."""
ABOUT = (
    "The data of a run of Constitutional AI (Bai et al. 2022): what models wrote, and how a feedback model judged it "
    "under the constitution beside this file. It holds red-team prompts, and answers that may be harmful."
)
WITH_ALL = (layout.RECIPE, layout.CONSTITUTION)


class Pushed(NamedTuple):
    """A part of a run on the hub."""

    part: str
    address: str


def push(run: Run, name: str, parts: Iterable[str] = (), *, public: bool = False) -> Iterator[Pushed]:
    """Push parts of a run, and yield each that is there; without ``parts``, all that the run has.

    Raises InputError if a part is not complete, or the hub refuses it.
    """
    present = [part for part in PARTS if part == DATA or run.manifest(MODELS[part])]
    wanted = list(parts) or present
    if absent := [part for part in wanted if part not in present]:
        raise InputError(f"{run.folder} has no {absent[0]} yet. It has: {', '.join(present)}.")
    for part in wanted:
        if part == DATA:
            with tempfile.TemporaryDirectory() as folder:
                write_data_set(run, Path(folder))
                yield Pushed(part, _upload(Path(folder), name, "dataset", public))
        else:
            run.check(MODELS[part], in_full=True)
            weights = run.stage(MODELS[part]) / layout.WEIGHTS
            yield Pushed(part, _upload(weights, f"{name}-{part}", "model", public))


def _upload(folder: Path, name: str, kind: str, public: bool) -> str:
    """Upload a folder as one commit, and return its address. Files of other names that were there stay."""
    with hub_errors(f"{kind} {name}"):
        from huggingface_hub import HfApi

        api = HfApi()
        address = api.create_repo(name, repo_type=kind, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=name, folder_path=folder, repo_type=kind, commit_message="Push a run of constitutional-ai"
        )
        return str(address)


def write_data_set(run: Run, folder: Path) -> list[Written]:
    """Write the files of the data set: ``records``, ``train``, the recipe, the constitution, and a card."""
    records = to_parquet(run, folder / "records")
    rows = to_trainer("trl", run, folder / "train")
    for name in WITH_ALL:
        if (source := run.folder / name).exists():
            (folder / name).write_bytes(source.read_bytes())
    (folder / "README.md").write_text(_card(run, folder, [*rows, *records]), encoding="utf-8")
    return [*records, *rows]


def _card(run: Run, folder: Path, files: Iterable[Written]) -> str:
    """Return the data set's card, whose head names each file as a configuration that ``load_dataset`` takes."""
    listed = [(one.file.relative_to(folder).as_posix(), one.file.stem, one.rows) for one in files]
    configs: list[dict[str, Any]] = [
        {"config_name": stem, "data_files": file} for file, stem, _ in listed if not stem.endswith("-test")
    ]
    for config in configs:
        if any(stem == f"{config['config_name']}-test" for _, stem, _ in listed):
            config["data_files"] = [
                {"split": "train", "path": f"train/{config['config_name']}.jsonl"},
                {"split": "test", "path": f"train/{config['config_name']}-test.jsonl"},
            ]
    head = yaml.safe_dump({"tags": ["constitutional-ai"], "configs": configs}, sort_keys=False)
    table = "".join(f"| `{file}` | {count:,} |\n" for file, _, count in listed)
    return f"---\n{head}---\n\n# {plain(run.folder.name)}\n\n{ABOUT}\n\n| file | rows |\n|---|---|\n{table}"


def pull(name: str, out: Path) -> Path:
    """Download a model, or with ``datasets/`` before its name a data set, into a new folder.

    Only files that can hold no code are downloaded. Raises InputError.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} holds files already. Name a new folder.")
    kind, wanted = (
        ("dataset", name.removeprefix("datasets/")) if name.startswith("datasets/") else ("model", name)
    )
    with hub_errors(f"{kind} {wanted}"):
        from huggingface_hub import snapshot_download

        snapshot_download(wanted, repo_type=kind, local_dir=out, allow_patterns=list(SAFE))
    return out
