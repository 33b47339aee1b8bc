"""Learning: a model under Adam with its checkpoints and its log, and policy gradient by RLOO, GRPO and REINFORCE.

This room may import `rvlib.lm.optim`, `rvlib.lm.sampling`, what is below them, and `rvlib.tabular`. Start with
`policy_gradient.train_policy`.
"""

KEPT_CHECKPOINTS = 2  # the last, and the one before it in case the last was cut off by a full disk or a crash
