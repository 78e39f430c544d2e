"""Share one base model in memory among the models of RL that LoRA trained, each of which is a small adapter.

The policy continues from SL-CAI's adapter, and TRL's copy of that adapter is the reference. The preference model, and
the feedback model if it is the bare base, borrow the policy's base while they score a batch.

This needs one process, or all weights in each process, because sharded weights cannot be called without their wrapper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from constitutional_ai.engine.open import LiveEngine, open_live_engine
from constitutional_ai.errors import ModelError
from constitutional_ai.models.load import model_path
from constitutional_ai.models.model import Model
from constitutional_ai.records import Conversation
from constitutional_ai.rl_cai.preference_model.scorer import Scorer, tokenizer_of
from constitutional_ai.runs import layout
from constitutional_ai.training.settings import Training

WEIGHTS, HEAD = "adapter_model.safetensors", "base_model.model.score.weight"
Answer = TypeVar("Answer")


def adapter_of(stage: Path) -> Path | None:
    """Return the folder of the adapter that a training saved beside its weights; None if all weights were trained."""
    adapter = stage / layout.ADAPTER
    return adapter if (adapter / WEIGHTS).exists() else None


class SharedBase(NamedTuple):
    """A policy that is an adapter on a base, and an engine for the base with whichever adapters are switched on."""

    model: Any
    """A peft model."""
    engine: LiveEngine | None
    """None where batches are padded: on a GPU, in several processes, or for another architecture."""


def policy_on(base: str | Path, sl_cai: Path, training: Training) -> SharedBase | None:
    """Load SL-CAI as a trainable adapter on ``base``, or return None if it has no adapter of the wanted rank."""
    from peft import PeftConfig, PeftModel

    from constitutional_ai.training import launch
    from constitutional_ai.training.packing import packs

    adapter = adapter_of(sl_cai)
    if adapter is None or PeftConfig.from_pretrained(adapter).r != training.lora_rank:
        return None
    policy = PeftModel.from_pretrained(launch.load(base, training), adapter, is_trainable=True)
    _locate_base(policy, "default")
    causal = policy.get_base_model()
    return SharedBase(policy, open_live_engine(causal) if packs(causal.config) else None)


def _locate_base(policy: Any, adapter: str) -> None:
    """Tell peft where an adapter's base is: a saved adapter has only its name, which peft would ask the hub for."""
    policy.peft_config[adapter].base_model_name_or_path = policy.get_base_model().name_or_path


@contextmanager
def lent(policy: Any, adapter: str | None) -> Iterator[None]:
    """Switch the policy to another of its adapters within the block; None switches to the bare base."""
    from trl.trainer.utils import use_adapter

    training = policy.training
    policy.eval()
    try:
        with use_adapter(policy, adapter):  # also restores which adapters can be trained
            yield
    finally:
        policy.train(training)


class AdapterScores(Scorer):
    """A preference model that is an adapter on the policy's base, with its own head."""

    def __init__(self, base: SharedBase, stage: Path, name: str) -> None:
        """Add the adapter of the preference model in ``stage`` to the policy, under ``name``.

        Raises ModelError if the adapter does not fit the base.
        """
        from safetensors.torch import load_file

        policy, engine = base
        adapter = adapter_of(stage)
        assert adapter is not None
        self._name, self._head_1D = name, load_file(adapter / WEIGHTS)[HEAD].float()
        by_engine = (lambda ids: engine.now().outputs(ids, self._head_1D)[:, 0]) if engine else None
        super().__init__(policy, tokenizer_of(stage / layout.WEIGHTS), by_engine)
        keys = policy.load_adapter(adapter, name)
        _locate_base(policy, name)
        if keys.missing_keys or keys.unexpected_keys != [HEAD]:
            raise ModelError(f"{adapter} does not fit the policy. Remove it to use the whole model beside it.")

    def scores(self, conversations: Sequence[Conversation]) -> list[float]:
        with lent(self._model, self._name):
            return super().scores(conversations)

    def _forward(self, batch: Any) -> Any:
        import torch

        causal = self._model.get_base_model()
        # Adapters are float32; without autocast, which training uses too, this takes 1.5 times as long.
        with torch.autocast(causal.device.type, causal.dtype, enabled=causal.dtype != torch.float32):
            hidden_BTD = causal.base_model(**batch, use_cache=False).last_hidden_state
        ends_B = batch["attention_mask"].sum(1) - 1
        hidden_BD = hidden_BTD[torch.arange(len(ends_B)), ends_B].float()
        return (hidden_BD @ self._head_1D.to(hidden_BD.device).T)[:, 0]


def base_of(policy: Any, name: str) -> Model:
    """Return the policy's base as the model ``name``. Use it only within ``lent``, and only to score."""
    from constitutional_ai.models.local.hugging_face import HuggingFaceModel

    return HuggingFaceModel(name, model_path(name), model=policy.get_base_model())


def on_the_base(
    policy: Any, rate: Callable[[list[Conversation]], Answer]
) -> Callable[[list[Conversation]], Answer]:
    """Return a function that calls ``rate`` while the policy's module is the bare base."""

    def rate_on_base(talks: list[Conversation]) -> Answer:
        with lent(policy, None):
            return rate(talks)

    return rate_on_base
