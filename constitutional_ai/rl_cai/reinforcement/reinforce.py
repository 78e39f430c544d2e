"""RL-CAI: the SL-CAI model reinforced with the preference model's score as reward (section 4.2; RL-1 to RL-4).

r = PM score − λ·KL(policy ‖ SL-CAI), by one of three algorithms:

- rloo: the other answers to the same prompt are each answer's baseline. The KL divergence is in the reward, summed
  over the answer, and raw scores are used. No value head to learn.
- grpo: the same groups, scores centred and divided by the standard deviation of their group, and the loss averaged over
  the tokens of a batch. The KL divergence is in the loss, token by token, by an estimate that is never negative; so λ
  counts in standard deviations of a group's scores, not in scores.
- ppo: the paper's. One answer to a prompt is enough; the KL divergence is in the reward of each token, the score in
  that of the last, and a value head says what was to be expected (``training/ppo.py``).

The reference is always ``base``, the SL-CAI model; under LoRA it is the policy with its adapter switched off, or with
SL-CAI's own in its place (``adapters.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from constitutional_ai.errors import InputError
from constitutional_ai.models.model import STOP_STRINGS, Sampling, cut_at_stop
from constitutional_ai.models.rendering import uses_plain_format
from constitutional_ai.records import Checkpoint, Conversation, Message, Prompt, as_messages
from constitutional_ai.training.settings import Training

Algorithm = Literal["rloo", "grpo", "ppo"]
Truncated = Literal["score", "mask"]
Reward = Callable[[list[Conversation]], Sequence[float | None]]
"""A number for each conversation that ends in the answer to be judged; None, which teaches nothing, where it fails."""
Watch = Callable[[list[Conversation], Sequence[float | None]], dict[str, float]]
"""Sees each batch of answers and their rewards as they are sampled; what it returns goes into ``metrics.jsonl``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforcing:
    """How to reinforce; ``recipe.RLTraining`` explains each."""

    algorithm: Algorithm
    kl_weight: float
    answers: int
    passes: int
    clip: float
    gae_lambda: float
    value_learning_rate: float
    truncated: Truncated
    sampling: Sampling


def examples(prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    return [{"id": p.id, "source": p.kind, "prompt": as_messages(p.conversation)} for p in prompts]


def reinforce(
    rows: list[dict[str, Any]],
    *,
    base: str | Path,
    base_name: str,
    reward: Reward,
    folder: Path,
    training: Training,
    reinforcing: Reinforcing,
    seed: int,
    on_step: Any,
    report_to: Sequence[str] = (),
    policy: Any = None,
    watch: Watch | None = None,
    callbacks: Sequence[Any] = (),
) -> Checkpoint:
    """Trains ``base``, which is also the KL reference, and saves it to ``folder/model``.

    ``training.batch_size`` counts answers. Prompts beyond the last whole batch of an epoch are not used in it; the
    next epoch has another order. ``policy`` is ``base`` as an adapter that is trained on. ``callbacks`` are
    transformers' own. Raises InputError when there is no whole batch.
    """
    from datasets import Dataset

    from constitutional_ai.training import launch
    from constitutional_ai.training.datasets import load_tokenizer
    from constitutional_ai.training.epoch_order import OrderByEpoch
    from constitutional_ai.training.stop_strings import end_at_stop_strings

    needed = training.batch_size // reinforcing.answers
    if len(rows) < needed:
        raise InputError(
            f"{folder.name} has {len(rows)} prompts, and one step takes {needed}. Lower rl_cai.batch_size, raise "
            "rl_cai.answers, or give it more prompts."
        )
    trainer_type, config_type, arguments = _algorithm(reinforcing)
    tokenizer = load_tokenizer(base, padding_side="left")
    plain = uses_plain_format(tokenizer)
    # Checkpoints only where the answers are used up: those still in use are not in a checkpoint.
    arguments["save_steps"] = -(-training.checkpoint_steps // reinforcing.passes) * reinforcing.passes
    trainer = trainer_type(
        model=policy or launch.load(base, training),
        reward_funcs=_judged(reward, watch, plain),
        args=config_type(**launch.arguments(training, folder, seed=seed, report_to=report_to) | arguments),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        processing_class=tokenizer,
        peft_config=None if policy else launch.lora(training, "CAUSAL_LM"),
        callbacks=[OrderByEpoch(), *callbacks],
    )
    if plain:
        end_at_stop_strings(trainer, tokenizer)
    launch.train(trainer, folder, on_step)
    return launch.save(trainer.model, trainer.processing_class, folder, base_model=base_name)


def _algorithm(how: Reinforcing) -> tuple[Any, Any, dict[str, Any]]:
    """The trainer, its configuration, and what that is told. Defaults of TRL that matter are spelled out."""
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    from constitutional_ai.training.ppo import PPOConfig, PPOTrainer

    said: dict[str, Any] = {
        "beta": how.kl_weight,  # GRPO's default is 0: no reference at all
        "num_generations": how.answers,
        "num_iterations": how.passes,
        "epsilon": how.clip,
        "temperature": how.sampling.temperature,
        "max_completion_length": how.sampling.max_tokens,
        "mask_truncated_completions": how.truncated == "mask",
    }
    if how.algorithm == "rloo":
        return RLOOTrainer, RLOOConfig, said | {"normalize_advantages": False}
    said |= {"loss_type": "dapo", "entropy_coef": 0.0}  # the mean over all tokens of a batch; no bonus (RL-2)
    if how.algorithm == "grpo":
        return GRPOTrainer, GRPOConfig, said | {"scale_rewards": "group"}
    own = {"gae_lambda": how.gae_lambda, "value_learning_rate": how.value_learning_rate}
    return PPOTrainer, PPOConfig, said | own


def _judged(reward: Reward, watch: Watch | None, plain: bool) -> Callable[..., Sequence[float | None]]:
    """``reward`` and ``watch`` as TRL calls them. An answer that was cut off comes like one that ended.

    In the plain format both are given answers as every model here gives them: without what it says for the human.
    """

    def score(
        prompts: list[Any], completions: list[Any], log_metric: Callable[[str, float], None], **_: Any
    ) -> Sequence[float | None]:
        talks = [
            tuple(Message(m["role"], m["content"]) for m in prompt + completion)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        if plain:
            cuts = [cut_at_stop(answer.content, STOP_STRINGS) for *_, answer in talks]
            talks = [
                (*talk, replace(answer, content=text.strip()))
                for (*talk, answer), (text, _) in zip(talks, cuts, strict=True)
            ]
            log_metric("at_stop_string", sum(stopped for _, stopped in cuts) / len(cuts))
        rewards = reward(talks)
        log_metric("unscored", rewards.count(None) / len(rewards))
        for name, value in (watch(talks, rewards) if watch else {}).items():
            log_metric(name, value)
        return rewards

    return score
