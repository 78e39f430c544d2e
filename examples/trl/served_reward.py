"""The reward of a preference model that ``cai serve`` holds, for TRL: its address is in CAI_REWARD_URL."""

import os

from constitutional_ai.serve.remote_reward import remote_reward

reward = remote_reward(os.environ["CAI_REWARD_URL"])
