"""Find the models that a user names for an evaluation, and describe each as a candidate."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.constitutions.in_context import as_instructions
from constitutional_ai.errors import InputError
from constitutional_ai.models.load import check_name, model_path
from constitutional_ai.models.scores_only import check_writes
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Candidate
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.rows import read_steps
from constitutional_ai.runs.run import Run

BLOCK = 65536
"""Number of bytes that a digest reads at each of about sixteen positions in a file."""


def find_candidates(names: Sequence[str]) -> list[Candidate]:
    """Return the candidates of each name in turn.

    A name is a run's folder, which stands for all its models and snapshots, or a model's name, or ``label=model``.
    Raises InputError if a name is none of these, or two candidates have the same label.
    """
    runs = run_folders(names)
    candidates: list[Candidate] = []
    for name in names:
        candidates += (
            _of_run(Path(name), with_folder=len(runs) > 1) if Path(name) in runs else [_of_model(name)]
        )
    labels = [one.label for one in candidates]
    if twice := next((one for one in candidates if labels.count(one.label) > 1), None):
        raise InputError(f"two models are called '{twice.label}'. Rename one: OTHER={twice.model}")
    return [replace(one, parameters=_parameter_count(one.model)) for one in candidates]


def run_folders(names: Iterable[str]) -> list[Path]:
    """Return the names that are run folders."""
    return [Path(name) for name in names if (Path(name) / layout.RUN).exists()]


def choose_anchor(candidates: Sequence[Candidate], label: str | None) -> str:
    """Return the label of the model whose Elo is 0: ``label``, or the first SL-CAI model (EV-10), or the first model.

    Raises InputError if no candidate has that label.
    """
    labels = [one.label for one in candidates]
    if label is None:
        return next((one.label for one in candidates if one.role == layout.SL_CAI), labels[0])
    if label not in labels:
        raise InputError(f"no model is called '{label}'. Set --anchor to one of: {', '.join(labels)}.")
    return label


def _of_model(name: str) -> Candidate:
    label, _, model = name.partition("=") if "=" in name.partition(":")[0] else (name, "", name)
    if Path(name).is_dir():
        raise InputError(f"'{name}' is not a run: it has no run.json. If it is a model, write hf:{name}")
    check_name(model)
    check_writes(model)
    return Candidate(label, model, label)


def _of_run(folder: Path, *, with_folder: bool) -> list[Candidate]:
    """Return a run's models, then its snapshots. ``with_folder`` prefixes every label with the folder's name."""
    if not (folder / layout.RECIPE).exists():
        raise InputError(f"{folder} has no recipe.yaml. Name a folder that cai run wrote.")
    run, prefix = read_run(folder), f"{folder.resolve().name}:" if with_folder else ""
    recipe = load_recipe(str(folder / layout.RECIPE))
    models: list[tuple[str, str, str, int | None]] = [(layout.START, recipe.models.helpful, layout.START, 0)]
    names = _baseline_names(recipe)
    for role, stage in ((layout.SL_CAI, layout.SL_CAI_MODEL), (layout.RL_CAI, layout.RL_CAI_MODEL)):
        if run.manifest(stage):
            run.check(stage, in_full=True)
            seen = _prompts_seen(run, recipe) if role == layout.RL_CAI else 0
            models.append(
                (names.get(role, role), f"hf:{(run.stage(stage) / layout.WEIGHTS).resolve()}", role, seen)
            )
    for path in run.snapshots():
        models.append(
            (
                f"{names.get(layout.RL_CAI, layout.RL_CAI)}@{path.name}",
                f"hf:{path.resolve()}",
                layout.RL_CAI,
                int(path.name),
            )
        )
    candidates = [
        Candidate(f"{prefix}{label}", model, role, str(folder), sequences=sequences)
        for label, model, role, sequences in models
    ]
    return [*candidates, *_prompted(folder, prefix, recipe)]


def _baseline_names(recipe: Recipe) -> dict[str, str]:
    """Return other labels for the models of a run without revisions, or without AI feedback, by role (OV-4)."""
    names = {layout.SL_CAI: "sft"} if layout.REVISIONS in recipe.left_out else {}
    by_people = layout.PREFERENCE_LABELS in recipe.left_out and recipe.rl_cai.reward == "preference_model"
    return names | ({layout.RL_CAI: "rlhf"} if by_people else {})


def _prompted(folder: Path, prefix: str, recipe: Recipe) -> list[Candidate]:
    """Return the start with the run's constitution in its context, if the recipe measures it."""
    if not recipe.evaluation.prompted:
        return []
    text = as_instructions(load_constitution(folder / layout.CONSTITUTION))
    label, model = f"{prefix}{layout.PROMPTED}", recipe.models.helpful
    return [Candidate(label, model, layout.PROMPTED, str(folder), sequences=0, instructions=text)]


def _prompts_seen(run: Run, recipe: Recipe) -> int | None:
    """Return the number of prompts that RL saw in all, counting repeats in later epochs as snapshots do.

    Return None if the run logged no step, or used DPO, which samples nothing.
    """
    how = recipe.rl_cai
    steps = [row["step"] for row in read_steps(run.stage(layout.RL_CAI_MODEL) / layout.STEPS) if "step" in row]
    if not steps or not how.method.samples:
        return None
    return int(max(steps)) // how.passes * (how.batch_size // how.answers)


def weights_digest(name: str) -> str:
    """Return a digest of the weights of a model on this machine, or "" for any other model.

    It reads about a megabyte of each file, which detects other weights without reading gigabytes.
    """
    if not name.startswith(("hf:", "bundled:")):
        return ""
    digest = hashlib.sha256()
    for file in sorted(Path(model_path(name)).glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            for start in range(0, size, max(BLOCK, size // 16)):
                stream.seek(start)
                digest.update(stream.read(BLOCK))
    return digest.hexdigest()[:16]


def _parameter_count(name: str) -> int | None:
    """Return the number of parameters from the headers of a model's files; None if they are not on this machine."""
    from safetensors import safe_open

    if not name.startswith(("hf:", "bundled:")):
        return None
    total = 0
    for file in Path(model_path(name)).glob("*.safetensors"):
        with safe_open(file, "numpy") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - not a dict
                total += math.prod(tensors.get_slice(key).get_shape())
    return total or None
