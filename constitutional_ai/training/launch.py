"""The parts that all trainings share: TRL's arguments, LoRA, logged metrics, and saving whole weights.

They avoid three traps of TRL 1.16, whose defaults raise on a CPU (bf16), checkpoint activations needlessly, and call
the hub at construction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel, PrinterCallback, Trainer, TrainerCallback

from constitutional_ai import machine
from constitutional_ai.models.load import LOCAL_SCHEMES, hub_id, name_of_weights
from constitutional_ai.models.local.tokens import NO_CODE, cannot_load
from constitutional_ai.models.scores_only import refuse_scorer
from constitutional_ai.records import Checkpoint
from constitutional_ai.runs import layout
from constitutional_ai.runs.durable import PART, discard, sync, sync_tree
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.training import processes, rounding, trackers
from constitutional_ai.training.settings import OnStep, Training, TrainingJob

PREFIX = "checkpoint-"
SYNCED = "synced"
"""File that says that all of a checkpoint is on the disk."""


def arguments(job: TrainingJob[Training]) -> dict[str, Any]:
    """Return the keyword arguments that all of TRL's config classes have in common.

    Those about batches are of one process; the settings' are of all together. Raises InputError if they do not divide.
    """
    training = job.settings
    gpu, each = torch.cuda.is_available(), processes.rows_each(training)
    micro = min(training.micro_batch or each, each)
    return {
        "output_dir": str(job.folder / layout.CHECKPOINTS),
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "constant",
        "num_train_epochs": training.epochs,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": each // micro,
        "seed": job.seed % 2**32,
        # Autocast over float32 weights: with AMX 2.6 times as fast as float32.
        "bf16": machine.best_dtype() == torch.bfloat16,
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "remove_unused_columns": False,  # our collators read more columns than the models
        "activation_checkpointing": False,
        "logging_steps": 1,
        "disable_tqdm": True,
        "log_level_replica": "error",
        "save_strategy": "steps",
        "save_steps": training.checkpoint_steps,
        "save_total_limit": None,  # the trainer would keep the newest by the clock; `Metrics` keeps the last
        "report_to": list(job.report_to) or "none",
        "run_name": str(job.folder),
    }


def load(path: str | Path, training: Training, *, auto: Any = AutoModelForCausalLM, **more: Any) -> Any:
    """Load the model to be trained. Raises ModelError when it cannot be loaded.

    If all weights are trained, they are float32. Under LoRA the base is frozen and stays in ``machine.best_dtype()``,
    which makes sampling during RL several times faster on a CPU.
    """
    dtype = torch.float32 if training.lora_rank is None else machine.best_dtype()
    # TRL loads the KL reference from the path that is stored in the model, so ``path`` must stay valid.
    try:
        model = auto.from_pretrained(path, dtype=dtype, use_safetensors=True, **NO_CODE, **more)
    except (OSError, ValueError, SafetensorError) as error:
        raise cannot_load(str(path), error) from error
    if auto is AutoModelForCausalLM:  # transformers would give a preference model a random head
        refuse_scorer(str(path), model.config.architectures)
    return model


def lora(training: Training, task: str, **more: Any) -> LoraConfig | None:
    """Return LoRA's configuration, or None if all weights are trained."""
    if training.lora_rank is None:
        return None
    rank = training.lora_rank
    return LoraConfig(task_type=task, r=rank, lora_alpha=2 * rank, target_modules="all-linear", **more)


class Metrics(TrainerCallback):  # type: ignore[misc]
    """A callback that writes logged rows to ``metrics.jsonl``, reports steps, and keeps only the last checkpoint."""

    def __init__(self, path: Path, on_step: OnStep) -> None:
        self._path, self._on_step = path, on_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A resumed training has the rows up to its checkpoint, and repeats the later steps.
        if processes.is_first():
            write_atomically(self._path, "".join(map(_line, state.log_history)))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._on_step(state.global_step, state.max_steps)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        processes.wait_for_all()  # each writes the state of its random numbers
        if not processes.is_first():
            return
        sync_tree(self._path.parent)  # with the snapshots, which are not made again
        newest = Path(args.output_dir) / f"{PREFIX}{state.global_step}"
        (newest / SYNCED).touch()
        sync(newest)
        for older in newest.parent.glob(f"{PREFIX}*"):
            if older != newest:
                discard(older)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "train_runtime" not in logs and processes.is_first():
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line({**logs, "step": state.global_step}))


def _line(row: dict[str, float]) -> str:
    return json.dumps({"step": row["step"], **row}) + "\n"


def train(trainer: Trainer, job: TrainingJob[Training]) -> None:
    """Run the training, from its last checkpoint if there is one. ``Metrics`` replaces the callback that prints."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Metrics(job.folder / layout.STEPS, job.on_step))
    # Where rank zero goes on, all do: on another machine a disk may show a checkpoint later.
    checkpoint = processes.agreed(str(last_checkpoint(job.folder / layout.CHECKPOINTS) or ""))
    with trackers.tracking(trainer, job.folder):
        trainer.train(resume_from_checkpoint=checkpoint or None)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the last checkpoint that is whole and on the disk."""
    whole = [mark.parent for mark in folder.glob(f"{PREFIX}*/{SYNCED}")]
    steps = {int(path.name.removeprefix(PREFIX)): path for path in whole if path.suffix != PART}
    return steps[max(steps)] if steps else None


def whole(trainer: Any, load: Callable[[], Any], config: LoraConfig | None) -> Any:
    """Return the trained model with all of its weights, in rank zero at least.

    Where each process holds a part of them (FSDP, DeepSpeed), they are gathered into a model that ``load`` makes anew,
    with LoRA's ``config`` if it was trained by that.
    """
    if not processes.shard_weights():
        return trainer.model
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not processes.is_first():
        return trainer.model
    model = get_peft_model(load(), config) if config else load()
    model.load_state_dict(state)
    return model


def save(model: PreTrainedModel, tokenizer: Any, job: TrainingJob[Training]) -> Checkpoint:
    """Save whole weights (adapters merged in) under ``model``, in ``machine.best_dtype()``.

    LoRA's adapter is also saved on its own, in peft's format, under ``adapter``. The checkpoints are left, so that a
    training that is killed before its stage is complete is not repeated. Of several processes, rank zero saves, and the
    others wait.
    """
    path, digest = job.folder / layout.WEIGHTS, ""
    if processes.is_first():
        if hasattr(model, "merge_and_unload"):
            _save_adapter(model, job.folder / layout.ADAPTER)
        rounding.save(model, tokenizer, path)
        digest = digest_of_weights(path)
    return Checkpoint(str(path), job.base_name, processes.agreed(digest))


def _save_adapter(model: Any, folder: Path) -> None:
    """Save LoRA's adapter, which has the name of its base, not its place on this machine."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = base = name_of_weights(str(config.base_model_name_or_path))
    # LoRA does not train embeddings; to decide whether to save them, peft would call the hub.
    model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
    on_hub = hub_id(base if base.startswith(LOCAL_SCHEMES) else f"hf:{base}")
    known = {"library_name": "peft", "tags": ["constitutional-ai", "lora"]}
    head = yaml.safe_dump(known | ({"base_model": on_hub} if on_hub else {}), sort_keys=False)
    # In place of peft's, which names the folder of the base.
    text = f"---\n{head}---\n\nA LoRA adapter of `{base}`. The whole model is beside it, in `../{layout.WEIGHTS}`.\n"
    (folder / "README.md").write_text(text, encoding="utf-8")
    machine.follow_umask(folder)


def digest_of_weights(folder: Path) -> str:
    """Return 16 hex digits of the sha256 over all safetensors files in a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
