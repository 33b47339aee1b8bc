"""Policies and rewards: loading and saving a policy, adapters, reward models by name, rewards that are fixed functions.

This room may import `rvlib.lm.data` and `rvlib.lm.processes`. Start with `policies.load_policy` and `reward_models.load_reward_model`.
"""

SMOLLM2 = "SmolLM2-135M-Instruct"  # the policy of the book, out of a Python package
