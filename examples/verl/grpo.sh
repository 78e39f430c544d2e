#!/usr/bin/env bash
# GRPO by verl, against a preference model that cai serve holds. Hydra composes verl's configuration with it in our tests;
# never run on a GPU here.
#   cai export RUN --to verl --out data
#   CAI_REWARD_URL=http://127.0.0.1:8300/TOKEN MODEL=runs/mine/03-sl-cai-model/model bash examples/verl/grpo.sh
set -euo pipefail

python -m verl.trainer.main_ppo \
  algorithm.adv_estimator=grpo \
  data.train_files="${DATA:-data}/prompts.parquet" \
  data.val_files="${DATA:-data}/prompts-test.parquet" \
  data.train_batch_size=256 \
  data.max_prompt_length=1024 \
  data.max_response_length=256 \
  data.filter_overlong_prompts=True \
  actor_rollout_ref.model.path="$MODEL" \
  actor_rollout_ref.actor.use_kl_loss=True \
  actor_rollout_ref.actor.kl_loss_coef=0.001 \
  actor_rollout_ref.actor.ppo_mini_batch_size=256 \
  actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8 \
  actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=8 \
  actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8 \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=4 \
  actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  reward.custom_reward_function.path=pkg://constitutional_ai.serve.remote_reward \
  reward.custom_reward_function.name=compute_score \
  +reward.custom_reward_function.reward_kwargs.url="$CAI_REWARD_URL" \
  trainer.logger='["console"]' \
  trainer.total_epochs=1 \
  trainer.n_gpus_per_node="${GPUS:-8}" \
  trainer.default_local_dir="${OUT:-rl-cai}"
