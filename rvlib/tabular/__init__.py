"""The exact world: a finite set of outputs, closed forms, gradient flow and the paper's bounds.

This room may import `rvlib.metrics` and `rvlib._checks`, and of other packages NumPy and SciPy only. Start with
`flow.gradient_flow`.
"""

from rvlib.tabular import autoregressive, bounds, estimators, predictors
from rvlib.tabular.best_of_n import best_of_n, best_of_n_kl_bound, best_of_n_loss_bound, best_of_n_probs
from rvlib.tabular.crossing import time_to_gain
from rvlib.tabular.flow import States, Trajectory, gradient_flow
from rvlib.tabular.policy import expectation, kl_divergence, kl_reward, rlhf_gradient, rlhf_objective, softmax
from rvlib.tabular.rewards import (
    accurate_but_slow,
    attainable_accuracies,
    attainable_accuracy,
    attainable_variance,
    inaccurate_but_fast,
    make_reward_model,
    policy_specific_teachers,
)
