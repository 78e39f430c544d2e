"""TRL's trainers that sample, with our engine for sampling and for the reference, and no padding in their passes.

On a CPU and for tested architectures (``packing.packs``); elsewhere TRL's own code runs. What changes
is how, not what is computed:

- Answers come from the engine, from the policy's weights of that moment, with their log-probabilities. So RLOO needs no
  pass of its own for these, and the reference's are computed by the engine too.
- The pass with gradients computes each prompt once for its answers (``answer_rows.py``). TRL shuffles the answers of a
  batch over its micro-batches; here those of a prompt stay together. One optimiser step takes all of them anyway.
- A token's first ratio is exactly 1: what it is compared with are the log-probabilities of the first pass itself. Those
  of the engine differ by rounding, which in bfloat16 adds up over an answer to as much as a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import trl
from accelerate.utils import broadcast
from trl import GRPOConfig, RLOOConfig
from trl.trainer.utils import split_tensor_dict

from constitutional_ai.engine.open import LiveEngine
from constitutional_ai.engine.sampling import Decoding, Sampled
from constitutional_ai.training.answer_rows import AnswerRows, hidden_before, logps_and_entropies, rescales
from constitutional_ai.training.callbacks import ended
from constitutional_ai.training.packing import packs
from constitutional_ai.training.processes import through

__all__ = ["GRPOConfig", "GRPOTrainer", "OnEngine", "RLOOConfig", "RLOOTrainer"]

Logps = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
"""Log-probabilities (B, T), entropies (B, T), and a loss of routers, as TRL returns them."""


if TYPE_CHECKING:
    Trainer = Any
else:
    Trainer = object


class OnEngine(Trainer):  # type: ignore[misc]
    """The part that all three algorithms share; a class in front of TRL's trainer."""

    compares_on_engine = False
    """Whether the KL divergence is of log-probabilities from sampling, so that the reference's are the engine's too.
    Elsewhere both are of forward passes: two arithmetics would differ even where the weights are the same."""

    def __init__(self, *, engine: LiveEngine | None, stop: Sequence[str] = (), **arguments: Any) -> None:
        """``engine`` has the policy's weights; None samples by TRL. ``stop`` are texts that end an answer."""
        super().__init__(**arguments)
        causal = self._causal(self.model)
        self._packs = packs(causal.config) and not rescales(causal.config)
        self._engine, self._stop = engine if self._packs else None, tuple(stop)
        self._sampled: list[Sampled] = []
        self._weights: tuple[Any, ...] = ()
        """Which weights sampled: see ``_weights_of``."""
        self._rows: AnswerRows | None = None
        """What the forward pass in work computes; None for a padded batch of TRL's."""
        self._inputs: dict[str, Any] = {}
        self._buffered_inputs: Any = self._buffered_inputs

    def _causal(self, model: Any) -> Any:
        plain = self.accelerator.unwrap_model(model)
        return plain.get_base_model() if hasattr(plain, "get_base_model") else plain

    def _weights_of(self, model: Any) -> tuple[Any, ...]:
        """Return what tells one set of weights from another: the model, and its active adapters."""
        plain = self.accelerator.unwrap_model(model)
        layer = self._causal(model).model.layers[0].self_attn.q_proj
        return id(plain), getattr(layer, "disable_adapters", None), tuple(getattr(layer, "active_adapters", ()))

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        """Return the ids of an answer to each prompt, as TRL does: an answer ends with the token that ends it.

        TRL gives ``generate`` no stop strings, and the padding after an early stop would be trained on; so its answers
        are cut after the token that completes a stop string (pitfall 17).
        """
        if self._engine is None:
            answers = super()._generate_single_turn(prompt_ids, *args, **kwargs)
            ids, more = (answers[0], answers[1:]) if isinstance(answers, tuple) else (answers, None)
            ids = [ended(answer, self.processing_class) for answer in ids] if self._stop else ids
            return ids if more is None else (ids, *more)
        decoding = Decoding(
            self._seeds(len(prompt_ids)), self.temperature, self.max_completion_length, self._stop
        )
        self._sampled = self._engine.now(self.processing_class, self.eos_token_ids).sample(prompt_ids, decoding)
        self._weights = self._weights_of(self.model)
        ids = [answer.tokens for answer in self._sampled]
        return (ids, None) if isinstance(self, GRPOTrainer) else ids

    def _seeds(self, answers: int) -> list[int]:
        """Return a seed for each answer of this process: rank zero draws those of all, as it would alone."""
        processes, mine = self.accelerator.num_processes, self.accelerator.process_index
        seeds = torch.randint(2**31, (processes * answers,))  # the generator is part of checkpoints
        own: list[int] = broadcast(seeds)[mine * answers :][:answers].tolist()
        return own

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Return the next micro-batch; answers to one prompt stay together."""
        if not (self._packs and self.model.training):
            return super()._prepare_inputs(generation_batch)
        parts = self.args.steps_per_generation
        if self._step % (parts * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(batch, parts)
        return self._buffered_inputs[self._step % parts]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._inputs = inputs
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        **more: Any,
    ) -> Logps:
        """Return the log-probabilities of the answers' tokens as TRL does; entropies too in a pass with gradients."""
        if self._engine is not None and not torch.is_grad_enabled():
            rows = AnswerRows.of(input_ids, attention_mask, logits_to_keep)
            if (weights := self._weights_of(model)) == self._weights:
                return rows.padded(self._sampled_logps(rows)), None, None
            if self.compares_on_engine and weights[0] == self._weights[0]:  # another adapter of the same model
                return rows.padded(self._engine_logps(rows)), None, None
        return self._logps_by_forward(model, input_ids, attention_mask, logits_to_keep, *args, **more)

    def _sampled_logps(self, rows: AnswerRows) -> torch.Tensor:
        in_order = [row for group in rows.rows for row in group]
        return torch.cat([torch.tensor(self._sampled[row].logps) for row in in_order])

    def _engine_logps(self, rows: AnswerRows) -> torch.Tensor:
        assert self._engine is not None
        logps = self._engine.now().logps(rows.prompts, rows.answers, self.temperature)
        return torch.cat([of_answer for of_prompt in logps for of_answer in of_prompt]).clone()

    def _logps_by_forward(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        **more: Any,
    ) -> Logps:
        """Compute the same by a forward pass of ``model``."""
        rows = AnswerRows.of(input_ids, attention_mask, logits_to_keep) if self._packs else None
        if rows is None or not rows.answers:
            padded: Logps = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **more
            )
            return padded
        causal, self._rows = self._causal(model), rows

        def forward() -> tuple[torch.Tensor, torch.Tensor]:
            return logps_and_entropies(causal, hidden_before(causal, rows), rows.tokens, self.temperature)

        try:
            with self.accelerator.autocast():
                of_tokens = through(model, self.accelerator.unwrap_model(model), forward)
        finally:
            self._rows = None
        logps_BT, entropies_BT = map(rows.padded, of_tokens)
        if torch.is_grad_enabled():
            self._begin_at_ratio_one(logps_BT.detach())
        return logps_BT, entropies_BT, None

    def _begin_at_ratio_one(self, logps_BT: torch.Tensor) -> None:
        """Compare ratios with the log-probabilities of the first pass over a batch, if this is it."""
        if self._step // self.args.steps_per_generation % self.num_iterations:
            return
        if "old_logps" in self._inputs:
            self._inputs["old_logps"] = (logps_BT * self._inputs["completion_mask"]).sum(1)
        if "old_per_token_logps" in self._inputs:
            self._inputs["old_per_token_logps"] = logps_BT


class RLOOTrainer(OnEngine, trl.RLOOTrainer):  # type: ignore[misc]
    """TRL's RLOO on our engine."""

    compares_on_engine = True


class GRPOTrainer(OnEngine, trl.GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO on our engine."""
