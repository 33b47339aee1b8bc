"""Replies of a policy: prompts to token ids, engines that draw, log-probabilities, and files that a run goes on from.

This room may import `rvlib.lm.models` and what is below it. Start with `generation.generate`.
"""

LOGITS_AT_ONCE = 1024  # tokens whose logits are in memory at the same time
