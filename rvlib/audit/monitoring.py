"""What an audit measures, followed while TRL's RLOO or GRPO trainer runs: does the reward model still teach?

    trainer = GRPOTrainer(model, reward_funcs, …)
    trainer.add_callback(GroupStatistics(trainer))

TRL logs `reward_std` over the whole batch, including the spread between prompts, which teaches nothing. Beside it this
callback logs, at each step, of the groups of replies to one prompt:

    groups/reward_variance         the mean of their sample variances
    groups/reward_variance_share   the same, of the variance of all rewards of the batch
    groups/flat                    the share of groups whose rewards are all equal
    groups/signal_to_noise         mean over standard deviation, from group to group, of what a group teaches
    groups/covariance              with the ground truth, if one of the reward functions is named as that

What a group teaches is its reward's variance, or with a ground truth their covariance: `rvlib.audit.statistics`.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import TrainerCallback

from rvlib.audit import statistics


class GroupStatistics(TrainerCallback):
    """Log statistics of the groups of rewards of a TRL trainer, under the names above, wherever it logs.

    trainer: an `RLOOTrainer` or a `GRPOTrainer` of TRL. ground_truth: the name of a reward function that says what you
    want; with a weight of 0 in `reward_weights` it is watched and not trained on. ValueError, in one sentence, for
    another trainer, or for a name that no reward function has.
    """

    def __init__(self, trainer: Any, ground_truth: str | None = None) -> None:
        missing = [name for name in ("_calculate_rewards", "_metrics", "reward_weights") if not hasattr(trainer, name)]
        if missing:
            raise ValueError(
                f"The trainer must be TRL's RLOOTrainer or GRPOTrainer, got {type(trainer).__name__} without "
                f"{missing[0]}; pass one of these, or pin TRL to a version that rvlib is tested with."
            )
        if ground_truth is not None and ground_truth not in trainer.reward_func_names:
            raise ValueError(
                f"ground_truth must be one of the reward functions {', '.join(trainer.reward_func_names)}, "
                f"got {ground_truth!r}."
            )
        self.trainer, self.ground_truth = trainer, ground_truth
        self._original: Any = None

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Watch the trainer's rewards, which it gathers from all processes."""
        if self._original is not None:
            return
        self._original = self.trainer._calculate_rewards

        def watched(*inputs: Any, **settings: Any) -> torch.Tensor:
            rewards = self._original(*inputs, **settings)
            self._log(rewards)
            return rewards

        self.trainer._calculate_rewards = watched

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Leave the trainer as it was."""
        if self._original is not None:
            del self.trainer._calculate_rewards  # the method of its class is visible again
            self._original = None

    def _log(self, per_function: torch.Tensor) -> None:
        """per_function: (rewards, functions), groups one after another, NaN where a function abstains."""
        trainer = self.trainer
        training = trainer.model.training
        size = trainer.num_generations if training else trainer.num_generations_eval
        if size < 2:
            return
        weights = trainer.reward_weights.to(per_function.device)
        total = torch.where(per_function.isnan().all(1), torch.nan, (per_function * weights).nansum(1))
        truth = None
        if self.ground_truth is not None:
            truth = per_function[:, trainer.reward_func_names.index(self.ground_truth)]
        numbers = group_statistics(*(_groups(values, size) for values in (total, truth) if values is not None))
        for name, value in numbers.items():
            trainer._metrics["train" if training else "eval"][f"groups/{name}"].append(value)


def group_statistics(rewards: NDArray[np.float64], ground_truth: NDArray[np.float64] | None = None) -> dict[str, float]:
    """What is logged of one batch: {name: number}, NaN for what the batch does not tell.

    rewards, ground_truth: (groups, replies), NaN where there is none. The variance's share is that of the book's
    `prop-share`, of unbiased variances.
    """
    variances = statistics.covariances(rewards, rewards)
    known = rewards[np.isfinite(rewards)]
    flat = np.array([np.ptp(row[np.isfinite(row)]) == 0 if np.isfinite(row).any() else np.nan for row in rewards])
    variance = _mean(variances)
    of_all = known.var(ddof=1) if len(known) > 1 else 0.0
    numbers = {
        "reward_variance": variance,
        "reward_variance_share": variance / of_all if of_all > 0 else float("nan"),
        "flat": _mean(flat),
    }
    taught = variances
    if ground_truth is not None:
        taught = statistics.covariances(rewards, ground_truth)
        numbers["covariance"] = _mean(taught)
    taught = taught[np.isfinite(taught)]
    noise = taught.std(ddof=1) if len(taught) > 1 else 0.0
    return numbers | {"signal_to_noise": float(taught.mean() / noise) if noise > 0 else float("nan")}


def _groups(rewards: torch.Tensor, size: int) -> NDArray[np.float64]:
    return rewards.detach().double().cpu().numpy().reshape(-1, size)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
