"""Reinforcement by each of the three algorithms, on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM, TrainerCallback

from constitutional_ai import machine
from constitutional_ai.engine.sampling import Sampler
from constitutional_ai.errors import InputError
from constitutional_ai.records import Checkpoint, Conversation, Message, Prompt
from constitutional_ai.rl_cai.reinforcement.algorithms import ALGORITHMS, AlgorithmName
from constitutional_ai.rl_cai.reinforcement.reinforce import examples, reinforce
from constitutional_ai.rl_cai.reinforcement.settings import RLTraining
from constitutional_ai.training import launch, packing
from constitutional_ai.training import on_engine as training_on_engine
from constitutional_ai.training.advantages import gae, kl_shaped_rewards, whitened
from constitutional_ai.training.datasets import load_tokenizer
from tests.training.jobs import training_job

each_algorithm = pytest.mark.parametrize("algorithm", ["rloo", "grpo", "ppo"])
HOW = RLTraining(
    kl_weight=0.1,
    answers=2,
    max_tokens=6,
    batch_size=4,
    micro_batch=2,
    learning_rate=1e-2,
    checkpoint_steps=1,
)


def changed(how: RLTraining, **changes: Any) -> RLTraining:
    return RLTraining.model_validate({**how.model_dump(), **changes})


def tenths(talks: list[Conversation]) -> list[float]:
    """A reward that is easy to work out: a tenth for each character of the answer."""
    return [len(talk[-1].content) / 10 for talk in talks]


def run(base: Path, folder: Path, how: RLTraining, prompts: int = 4, **more: Any) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    asked = [Prompt.of((Message("user", f"Tell me {n}."),), "red_team", "test") for n in range(prompts)]
    own = {name: more.pop(name) for name in ("policy", "watch", "callbacks") if name in more}
    reward = more.pop("reward", tenths)
    job = training_job(examples(asked), base, folder, how, base_name="sl-cai", **more)
    return reinforce(job, reward=reward, **own)


def logged(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "step_time"} for row in rows]


def weights(path: str | Path) -> dict[str, Tensor]:
    return {k: v.bfloat16() for k, v in load_file(Path(path) / "model.safetensors").items()}


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 and no cutting of gradients: what is compared with arithmetic by hand."""
    given = launch.arguments
    plain = {"bf16": False, "max_grad_norm": 0.0}
    monkeypatch.setattr(launch, "arguments", lambda *args, **more: given(*args, **more) | plain)
    monkeypatch.setattr(machine, "best_dtype", lambda: torch.float32)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Trainers that have been started."""
    trainers: list[Any] = []
    train = launch.train
    monkeypatch.setattr(
        launch, "train", lambda trainer, *more: (trainers.append(trainer), train(trainer, *more))
    )
    return trainers


class At(TrainerCallback):
    """Looks on before the steps of these numbers begin."""

    def __init__(self, *steps: int, look: Callable[[], None]) -> None:
        self.steps, self.look = steps, look

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 in self.steps:
            self.look()


def logps_of(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Log-probabilities of the answers' tokens, by a plain forward pass; 0 after an answer's end."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    said = model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
    tokens = batch["completion_ids"].shape[1]
    found: Tensor = said.gather(-1, ids[:, 1:, None]).squeeze(-1)[:, -tokens:]
    return found * batch["completion_mask"]


def scores_of(trainer: Any, batch: dict[str, Tensor]) -> Tensor:
    texts = trainer.processing_class.batch_decode(batch["completion_ids"], skip_special_tokens=True)
    return torch.tensor([len(text) / 10 for text in texts])


# -- what is learned from


def test_rloo_measures_each_answer_by_the_others_of_its_prompt(
    exact: None, kept: list[Any], tiny: Path, tmp_path: Path
) -> None:
    """Looked at in the second step: in the first the policy is still the reference."""
    how = changed(HOW, answers=4, kl_weight=0.5, micro_batch=4)
    run(tiny, tmp_path, how, prompts=2)
    (batch,), trainer = kept[0]._buffered_inputs, kept[0]
    sl_cai = AutoModelForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        kl = batch["old_logps"] - logps_of(sl_cai, batch).sum(1)
    assert kl.abs().min() > 0.01
    rewards = scores_of(trainer, batch) - 0.5 * kl  # r = score − λ·KL
    baselines = (rewards.sum() - rewards) / 3
    torch.testing.assert_close(batch["advantages"], rewards - baselines, atol=1e-4, rtol=1e-4)
    logged_by_trl = torch.tensor(list(trainer._logs["advantages"]))  # before it shuffles the answers
    torch.testing.assert_close(
        logged_by_trl.sort().values, (rewards - baselines).sort().values, atol=1e-4, rtol=1e-4
    )


def test_ppo_learns_from_the_advantage_of_each_token(
    monkeypatch: pytest.MonkeyPatch, exact: None, kept: list[Any], tiny: Path, tmp_path: Path
) -> None:
    """Looked at after the first of two passes over the second batch."""
    seen: list[tuple[Any, Tensor]] = []

    def before_the_batch() -> None:
        trainer = kept[0]
        seen.append(
            (AutoModelForCausalLM.from_pretrained(tiny), trainer.value_head.linear.weight.detach().clone())
        )
        seen[0][0].load_state_dict(trainer.model.state_dict())

    ppo = ALGORITHMS["ppo"]
    learns_fast = replace(ppo, arguments={**ppo.arguments, "value_learning_rate": 1e-2})
    monkeypatch.setitem(ALGORITHMS, "ppo", learns_fast)
    how = changed(HOW, algorithm="ppo", answers=1, passes=2, kl_weight=0.5, micro_batch=4)
    run(tiny, tmp_path, how, prompts=8, callbacks=[At(3, look=before_the_batch)])
    (batch,), trainer = kept[0]._buffered_inputs, kept[0]
    (policy, head), sl_cai = seen[0], AutoModelForCausalLM.from_pretrained(tiny)
    mask, tokens = batch["completion_mask"], batch["completion_ids"].shape[1]
    with torch.no_grad():
        old, reference = logps_of(policy, batch), logps_of(sl_cai, batch)
        hidden = policy.model(
            input_ids=torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
            attention_mask=torch.cat([batch["prompt_mask"], mask], 1),
        ).last_hidden_state[:, -tokens - 1 : -1]
    torch.testing.assert_close(batch["old_per_token_logps"] * mask, old, atol=1e-4, rtol=1e-4)
    assert (old - reference).abs().max() > 0.01
    even = (hidden - hidden.mean(-1, keepdim=True)) / (
        hidden.var(-1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    values = (even @ head.T).squeeze(-1)
    assert values.abs().max() > 0.01
    torch.testing.assert_close(
        batch["values"] - batch["values"][0, 0], values - values[0, 0], atol=1e-3, rtol=1e-3
    )
    rewards = kl_shaped_rewards(scores_of(trainer, batch), old, reference, mask, 0.5)
    advantages = gae(rewards, batch["values"], mask, 0.95)
    torch.testing.assert_close(batch["returns"], advantages + batch["values"], atol=1e-3, rtol=1e-3)
    assert batch["advantages"].shape == mask.shape
    torch.testing.assert_close(batch["advantages"], whitened(advantages, mask), atol=1e-3, rtol=1e-3)


class Gradients(TrainerCallback):
    """Compares the first step's gradients with PPO's, worked out by hand from a plain forward pass."""

    def __init__(self, kept: list[Any]) -> None:
        self.kept, self.compared = kept, 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        if state.global_step:
            return
        (batch,) = self.kept[0]._buffered_inputs
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        # At ratio 1 it is −ΣA·∇log π/N; the values' loss adds nothing to it.
        loss = -(batch["advantages"] * logps_of(model, batch)).sum() / batch["completion_mask"].sum()
        by_hand = torch.autograd.grad(loss, list(trained.values()))
        assert max(x.abs().max() for x in by_hand) > 1e-3
        for parameter, expected in zip(trained.values(), by_hand, strict=True):
            torch.testing.assert_close(parameter.grad, expected, atol=1e-5, rtol=1e-3)
            self.compared += 1


@pytest.mark.parametrize("rank", [None, 2], ids=["whole", "adapter"])
def test_ppos_first_step_has_ratio_one_and_the_gradient_of_the_policy(
    exact: None, kept: list[Any], tiny: Path, tmp_path: Path, rank: int | None
) -> None:
    gradients = Gradients(kept)
    how = changed(HOW, algorithm="ppo", answers=1, micro_batch=4, lora_rank=rank)
    run(tiny, tmp_path, how, callbacks=[gradients])
    (batch,) = kept[0]._buffered_inputs
    assert gradients.compared > 0
    advantages, mask = batch["advantages"], batch["completion_mask"]
    assert (advantages[:, 0] - advantages[:, -1]).abs().max() > 0.01  # one for each token indeed
    # At ratio 1 the loss is −ΣA/N; the value head still says 0.
    values_loss = 0.5 * (batch["returns"] ** 2 * mask).sum() / mask.sum()
    (only,) = logged(tmp_path)
    assert only["value_loss"] == pytest.approx(values_loss.item(), rel=1e-5)
    assert only["loss"] == pytest.approx(
        (values_loss - (advantages * mask).sum() / mask.sum()).item(), rel=1e-4
    )


@each_algorithm
def test_the_kl_weight_reaches_the_training_and_the_reference_is_sl_cai(
    exact: None, tiny: Path, tmp_path: Path, algorithm: AlgorithmName
) -> None:
    how = changed(HOW, algorithm=algorithm)
    free = run(tiny, tmp_path / "free", changed(how, kl_weight=0.0))
    held = run(tiny, tmp_path / "held", changed(how, kl_weight=5.0))
    assert free.digest != held.digest
    first, second = (row["kl"] for row in logged(tmp_path / "held"))
    assert first == pytest.approx(0, abs=1e-4)  # sampled and computed again: rounded in two ways
    assert abs(second) > 1e-3


# -- answers that were cut off, or not scored


@each_algorithm
def test_answers_cut_off_are_scored_as_if_they_had_ended(
    exact: None, tiny: Path, tmp_path: Path, algorithm: AlgorithmName
) -> None:
    """All are cut off here: six random tokens do not happen to end a turn."""
    trained = run(tiny, tmp_path, changed(HOW, algorithm=algorithm))
    before = weights(tiny)
    assert any(not torch.equal(w, before[name]) for name, w in weights(trained.path).items())
    assert [row["completions/clipped_ratio"] for row in logged(tmp_path)] == [1.0, 1.0]


@each_algorithm
def test_answers_that_nobody_could_score_teach_nothing_and_are_counted(
    exact: None, tiny: Path, tmp_path: Path, algorithm: AlgorithmName
) -> None:
    how = changed(HOW, algorithm=algorithm, kl_weight=0.0)
    made = run(tiny, tmp_path / "none", how, reward=lambda talks: [None] * len(talks))
    before = weights(tiny)
    assert all(torch.equal(w, before[name]) for name, w in weights(made.path).items())
    made = run(tiny, tmp_path / "some", how, reward=lambda talks: [None, *tenths(talks[1:])])
    assert [row["unscored"] for row in logged(tmp_path / "some")] == [0.25, 0.25]
    assert all(torch.isfinite(w).all() for w in weights(made.path).values())


@pytest.mark.parametrize("on_engine", [True, False])
@each_algorithm
def test_in_the_plain_format_an_answer_ends_where_the_policy_begins_to_speak_for_the_human(
    monkeypatch: pytest.MonkeyPatch,
    kept: list[Any],
    tiny_plain: Path,
    tmp_path: Path,
    algorithm: AlgorithmName,
    on_engine: bool,
) -> None:
    """Both what is rewarded and what is learned from (pitfall 17)."""
    said = load_tokenizer(tiny_plain)(" No.\n\nHuman: More!", return_tensors="pt")["input_ids"]
    monkeypatch.setattr(
        LlamaForCausalLM,
        "generate",
        lambda _, input_ids, **__: torch.cat([input_ids, said.expand(len(input_ids), -1)], 1),
    )
    monkeypatch.setattr(Sampler, "__call__", lambda _, logits, __, step: said[0, step].expand(len(logits)))
    if not on_engine:
        for module in (packing, training_on_engine):
            monkeypatch.setattr(module, "packs", lambda _: False)
    judged: list[Conversation] = []
    run(
        tiny_plain,
        tmp_path,
        changed(HOW, algorithm=algorithm, max_tokens=said.shape[1]),
        reward=lambda talks: (judged.extend(talks), tenths(talks))[1],
    )
    assert {talk[-1] for talk in judged} == {Message("assistant", "No.")}
    (batch, *_), trainer = kept[0]._buffered_inputs, kept[0]
    answers = [
        ids[mask.bool()] for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    ]
    assert set(trainer.processing_class.batch_decode(answers)) == {" No.\n\nHuman:"}
    assert [row["at_stop_string"] for row in logged(tmp_path)] == [1.0, 1.0]


# -- killed and resumed


def kill_at(step: int) -> Callable[[int, int], None]:
    def on_step(done: int, total: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return on_step


@pytest.mark.parametrize(
    ("algorithm", "rank", "passes"),
    [("rloo", None, 1), ("grpo", 2, 1), ("ppo", None, 1), ("ppo", 2, 2)],
    ids=["rloo", "grpo", "ppo", "ppo with two passes"],
)
def test_a_training_killed_twice_and_resumed_ends_at_the_weights_of_the_unbroken_one(
    tiny: Path, tmp_path: Path, algorithm: AlgorithmName, rank: int | None, passes: int
) -> None:
    """Killed in the first and in the second of two epochs of three batches each, at the last step on a batch."""
    how = changed(HOW, algorithm=algorithm, passes=passes, epochs=2, lora_rank=rank)
    whole = run(tiny, tmp_path / "whole", how, prompts=6)
    for batch in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            run(tiny, tmp_path / "killed", how, prompts=6, on_step=kill_at(batch * passes))
    steps: list[int] = []
    resumed = run(tiny, tmp_path / "killed", how, prompts=6, on_step=lambda done, _: steps.append(done))
    assert steps[0] == 5 * passes + 1  # from the end of the last batch but one
    assert resumed.digest == whole.digest
    assert logged(tmp_path / "killed") == logged(tmp_path / "whole")


# -- what others may hang on to it


def test_whoever_watches_sees_every_answer_and_is_written_down(tiny: Path, tmp_path: Path) -> None:
    seen: list[Conversation] = []

    def watch(talks: list[Conversation], rewards: list[float], kinds: list[str]) -> dict[str, float]:
        assert rewards == tenths(talks)
        assert kinds == ["red_team"] * len(talks)
        seen.extend(talks)
        return {"watched": len(talks)}

    begun: list[int] = []
    run(tiny, tmp_path, HOW, watch=watch, callbacks=[At(1, 2, look=lambda: begun.append(1))])
    assert [row["watched"] for row in logged(tmp_path)] == [4, 4]
    assert [len(talk) for talk in seen] == [2] * 8
    assert {talk[0].content for talk in seen} == {f"Tell me {n}." for n in range(4)}
    assert {talk[1].role for talk in seen} == {"assistant"}
    assert begun == [1, 1]


def test_what_is_saved_is_a_language_model_without_the_value_head(tiny: Path, tmp_path: Path) -> None:
    made = run(tiny, tmp_path, changed(HOW, algorithm="ppo"))
    assert weights(made.path).keys() == weights(tiny).keys()


def test_too_few_prompts_for_one_step_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 1 prompts, and one step takes 2\. Lower rl_cai\.batch_size"):
        run(tiny, tmp_path, HOW, prompts=1)
