"""SL-CAI: the pretrained model finetuned on revisions and on sampled helpful answers (section 3.2; SL-15 to SL-19).

Loss on the answer only; the paper does not say. All rounds' revisions are trained on, not only the last (SL-16).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cai.records import Checkpoint, Completion, Conversation, Message, Response, RevisionChain, as_messages
from cai.training.settings import Training


def examples(chains: Iterable[RevisionChain], helpful: Iterable[Response]) -> list[dict[str, Any]]:
    """Rows in TRL's prompt-completion form: every revision of every chain, then every helpful answer."""
    rows = [
        _row(chain.initial.prompt.conversation, revision.revised, f"{chain.id}/r{number}")
        for chain in chains
        for number, revision in enumerate(chain.revisions, start=1)
    ]
    return rows + [_row(r.prompt.conversation, r.completion, r.id) for r in helpful]


def _row(conversation: Conversation, answer: Completion, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "prompt": as_messages(conversation),
        "completion": as_messages((Message("assistant", answer.text),)),
    }


def finetune(
    rows: list[dict[str, Any]],
    *,
    base: str | Path,
    base_name: str,
    folder: Path,
    training: Training,
    seed: int,
    on_step: Any,
) -> Checkpoint:
    """Trains ``base`` on ``rows`` and saves it to ``folder/model``."""
    from datasets import Dataset
    from trl import SFTConfig

    from cai.training import launch
    from cai.training.completion_loss import CompletionLossTrainer
    from cai.training.datasets import load_tokenizer

    trainer = CompletionLossTrainer(
        model=launch.load(base, training),
        args=SFTConfig(
            **launch.arguments(training, folder, seed=seed),
            max_length=training.max_length,
            train_sampling_strategy="group_by_length",  # least padding; the batches come in random order
        ),
        train_dataset=Dataset.from_list([{k: row[k] for k in ("prompt", "completion")} for row in rows]),
        processing_class=load_tokenizer(base),
        peft_config=launch.lora(training, "CAUSAL_LM"),
    )
    launch.train(trainer, folder, on_step)
    return launch.save(trainer.model, trainer.processing_class, folder, base_model=base_name)
