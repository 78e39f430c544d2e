"""Direct preference optimisation on the AI's labels: no preference model and no sampling (not in the paper).

Users expect it beside RL. The labels stay soft, pair by pair; the reference is the SL-CAI model. People's helpfulness
comparisons can be mixed in, as in the preference model's data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.records import Checkpoint
from constitutional_ai.training.settings import Training


def optimise(
    rows: list[dict[str, Any]],
    *,
    base: str | Path,
    base_name: str,
    beta: float,
    folder: Path,
    training: Training,
    seed: int,
    on_step: Any,
    report_to: Sequence[str] = (),
) -> Checkpoint:
    """Trains ``base``, which is also the reference, on the preference model's rows; saves it to ``folder/model``.

    ``beta`` (above 0) is how strongly the policy is held to the reference.
    """
    from datasets import Dataset
    from trl import DPOConfig

    from constitutional_ai.training import launch
    from constitutional_ai.training.datasets import load_tokenizer
    from constitutional_ai.training.soft_dpo import SoftDPOCollator, SoftDPOTrainer

    tokenizer = load_tokenizer(base)
    columns = ("prompt", "chosen", "rejected", "p_chosen")
    trainer = SoftDPOTrainer(
        model=launch.load(base, training),
        args=DPOConfig(
            **launch.arguments(training, folder, seed=seed, report_to=report_to),
            max_length=training.max_length,
            beta=beta,
            precompute_ref_log_probs=True,  # one model in memory
        ),
        train_dataset=Dataset.from_list(
            [{key: row[key] for key in columns} for row in map(_better_first, rows)]
        ),
        data_collator=SoftDPOCollator(pad_token_id=tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=launch.lora(training, "CAUSAL_LM"),
    )
    launch.train(trainer, folder, on_step)
    return launch.save(trainer.model, tokenizer, folder, base_model=base_name)


def _better_first(row: dict[str, Any]) -> dict[str, Any]:
    """The same pair, its label at least one half: TRL's margins and accuracies take the first for the better."""
    if row["p_chosen"] >= 0.5:
        return row
    return row | {"chosen": row["rejected"], "rejected": row["chosen"], "p_chosen": 1 - row["p_chosen"]}
