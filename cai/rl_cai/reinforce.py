"""RL-CAI: the SL-CAI model reinforced with the preference model's score as reward (section 4.2; RL-1 to RL-4).

r = PM score − kl_weight · KL(policy ‖ SL-CAI). The paper uses PPO; TRL has none any more, and RLOO is the closest it
has: one reward per whole answer, the other answers to the same prompt as baseline.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cai.records import Checkpoint, Message, Prompt, as_messages
from cai.rl_cai.preference_model import PreferenceModel
from cai.training.settings import Training


def examples(prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    return [{"id": p.id, "prompt": as_messages(p.conversation)} for p in prompts]


def reinforce(
    rows: list[dict[str, Any]],
    *,
    base: str | Path,
    base_name: str,
    preference_model: PreferenceModel,
    folder: Path,
    training: Training,
    kl_weight: float,
    answers: int,
    temperature: float,
    max_tokens: int,
    seed: int,
    on_step: Any,
) -> Checkpoint:
    """Trains ``base``, which is also the KL reference, and saves it to ``folder/model``.

    ``answers`` are sampled for each prompt; ``training.batch_size`` counts answers and must be a multiple of it.
    """
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    from cai.training import launch
    from cai.training.datasets import load_tokenizer

    def preference(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        talks = [
            tuple(Message(m["role"], m["content"]) for m in prompt + completion)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        return preference_model.scores(talks)

    trainer = RLOOTrainer(
        model=launch.load(base, training),
        reward_funcs=preference,
        args=RLOOConfig(
            **launch.arguments(training, folder, seed=seed),
            beta=kl_weight,
            num_generations=answers,
            temperature=temperature,
            max_completion_length=max_tokens,
        ),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        processing_class=load_tokenizer(base, padding_side="left"),
        peft_config=launch.lora(training, "CAUSAL_LM"),
    )
    launch.train(trainer, folder, on_step)
    return launch.save(trainer.model, trainer.processing_class, folder, base_model=base_name)
