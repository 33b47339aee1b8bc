"""The exact world: a finite set of outputs, closed forms, NumPy and SciPy only."""

from rvlib.tabular.crossing import time_to_gain
from rvlib.tabular.flow import States, Trajectory, gradient_flow
from rvlib.tabular.policy import expectation, kl_divergence, kl_reward, rlhf_gradient, rlhf_objective, softmax
