"""Remedies for a reward model of low variance, tried on many policies: what each does to speed and truth.

`worlds` has policies on several prompts and reward models with three common faults, `remedy` what can be done about
them, `updates` the step that a group of samples asks for under a remedy, and `training` follows these steps. This
package may import what `rvlib.tabular` may. Start with `training.train`.
"""

from rvlib.tabular.remedies.remedy import REMEDIES, Remedy, discretised, fit_bradley_terry
from rvlib.tabular.remedies.training import Policies, TabularPolicies, TrainingResult, train, train_in_expectation
from rvlib.tabular.remedies.updates import expected_update, expected_variance
from rvlib.tabular.remedies.worlds import Worlds, make_worlds
