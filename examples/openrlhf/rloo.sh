#!/usr/bin/env bash
# RLOO by OpenRLHF, against a preference model that cai serve holds. OpenRLHF's parser reads it in our tests; never run on
# a GPU here.
#   cai export RUN --to openrlhf --out data
#   CAI_REWARD_URL=http://127.0.0.1:8300/TOKEN MODEL=runs/mine/03-sl-cai-model/model bash examples/openrlhf/rloo.sh
set -euo pipefail

python -m openrlhf.cli.train_ppo_ray \
  --actor.model_name_or_path "$MODEL" \
  --reward.remote_url "$CAI_REWARD_URL/get_reward" \
  --reward.clip_range -1000 1000 \
  --data.prompt_dataset "${DATA:-data}/prompts.jsonl" \
  --data.input_key prompt \
  --data.label_key label \
  --data.apply_chat_template \
  --algo.advantage.estimator rloo \
  --algo.kl.init_coef 0.001 \
  --rollout.n_samples_per_prompt 4 \
  --rollout.batch_size 256 \
  --train.batch_size 1024 \
  --rollout.max_new_tokens 256 \
  --actor.num_gpus_per_node "${GPUS:-8}" \
  --ref.num_gpus_per_node "${GPUS:-8}" \
  --vllm.num_engines "${GPUS:-8}" \
  --train.colocate_all \
  --vllm.enable_sleep \
  --ds.enable_sleep \
  --ckpt.output_dir "${OUT:-rl-cai}"
