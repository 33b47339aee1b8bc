"""Policies and rewards: loading and saving a policy, adapters, reward models by name, rewards by fixed functions.

This room may import `rvlib.lm.data` and what is below it. Start with `policies.load_policy` and
`reward_models.load_reward_model`.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rvlib.lm.data.prompts import Prompt

# score(prompts, replies): as many replies to each prompt, rewards (prompts, replies)
RewardFunction = Callable[[Sequence[Prompt], Sequence[Sequence[str]]], NDArray[np.float64]]
SMOLLM2 = "SmolLM2-135M-Instruct"  # the policy of the book, out of a Python package
