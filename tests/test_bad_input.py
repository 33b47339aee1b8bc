"""Whatever is wrong with an argument, the answer is a ValueError of one sentence that names the argument."""

import re

import numpy as np
import pytest

from rvlib.metrics import Normalizer, ranking_accuracy, reward_covariance, reward_variance, within_prompt_correlation
from rvlib.tabular import (
    accurate_but_slow,
    attainable_accuracy,
    attainable_variance,
    best_of_n,
    bounds,
    expectation,
    gradient_flow,
    inaccurate_but_fast,
    kl_divergence,
    make_reward_model,
    policy_specific_teachers,
    rlhf_gradient,
    rlhf_objective,
    softmax,
    time_to_gain,
)
from rvlib.tabular.estimators import advantages, estimate_gradient, gradient_estimate, sample_outputs

LOGITS, REWARD, PROBS = [0.0, 1.0, 2.0], [0.5, -0.5, 0.1], [0.2, 0.3, 0.5]

CASES = {
    "no outputs": (lambda: softmax([]), "logits must have at least one output"),
    "a number for an array": (lambda: softmax(3.0), "logits must have at least one output"),
    "text for rewards": (lambda: reward_variance("high"), "rewards must be an array of real numbers"),
    "NaN logits": (lambda: softmax([0.0, np.nan]), "logits must be finite, got nan at index (1,)"),
    "infinite logits": (lambda: gradient_flow([0.0, np.inf], [0.0, 1.0], 1.0), "logits must be finite, got inf"),
    "NaN reward": (lambda: time_to_gain(LOGITS, [0.5, np.nan, 0], 0.1), "reward must be finite"),
    "probabilities that do not sum to one": (lambda: expectation([0.2, 0.3], [1.0, 2.0]), "probs must sum to 1"),
    "negative probabilities": (lambda: reward_variance([0.1, 0.2], [1.5, -0.5]), "probs must be non-negative"),
    "no prompts": (
        lambda: gradient_flow(np.ones((0, 3)), REWARD, 1.0),
        "logits must have at least one output on its last axis, and no empty axis, got shape (0, 3)",
    ),
    "as many λ as there are no prompts": (
        lambda: rlhf_objective(np.ones((4, 3)), REWARD, LOGITS, [0.1, 0.2]),
        "kl_coef must be a number or fit the prompts' shape (4,), got shape (2,)",
    ),
    "weights of other prompts": (
        lambda: ranking_accuracy(np.ones((2, 3)), REWARD, np.ones((4, 3, 3))),
        "weights must have prompts that broadcast with (2,), got shape (4, 3, 3)",
    ),
    "small weights that are not symmetric": (
        lambda: ranking_accuracy(REWARD, REWARD, 1e-9 * np.triu(np.ones((3, 3)))),
        "weights must be symmetric",
    ),
    "equal rewards that are no binary fractions": (
        lambda: Normalizer.fit(np.full((3, 3), 0.1)),
        "rewards must not all be equal",
    ),
    "equal rewards to each prompt": (
        lambda: Normalizer.fit(np.outer([0.1, 0.2], np.ones(3)), "variance"),
        "rewards must not all be equal",
    ),
    "probabilities of 32 bits": (
        lambda: reward_variance(np.ones(3), np.array([0.3, 0.3, 0.4], np.float32)),
        "divide by the sum first, in 64 bits",
    ),
    "several accuracies": (
        lambda: make_reward_model(REWARD, PROBS, [0.0, 1.0], 0.1, 0),
        "accuracy must be one number, got shape (2,)",
    ),
    "shapes that differ": (
        lambda: ranking_accuracy([0.1, 0.2], [0.1, 0.2, 0.3]),
        "proxy and ground_truth must have the same outputs",
    ),
    "one output against three": (lambda: gradient_flow(LOGITS, [0.5], 1.0), "must have the same outputs"),
    "prompts that do not broadcast": (
        lambda: reward_covariance(np.zeros((2, 3)), np.zeros((4, 3))),
        "prompts that broadcast",
    ),
    "accuracy of one output": (lambda: ranking_accuracy([0.1], [0.2]), "proxy must have at least two outputs"),
    "sample variance of one sample": (
        lambda: reward_variance([[0.1], [0.4]]),
        "rewards must hold at least two samples",
    ),
    "correlation of one sample": (
        lambda: within_prompt_correlation([[0.1], [0.4]], [[0.2], [0.3]]),
        "proxy must hold at least two samples",
    ),
    "weights that are not symmetric": (
        lambda: ranking_accuracy(REWARD, REWARD, np.triu(np.ones((3, 3)))),
        "weights must be symmetric",
    ),
    "weights on the diagonal alone": (
        lambda: ranking_accuracy(REWARD, REWARD, np.eye(3)),
        "weights must be positive on at least one pair",
    ),
    "negative weights": (lambda: ranking_accuracy(REWARD, REWARD, -np.ones((3, 3))), "weights must lie in [0, inf]"),
    "rewards without spread": (lambda: Normalizer.fit(np.ones((4, 5))), "rewards must not all be equal"),
    "an unknown scheme": (lambda: Normalizer.fit(np.eye(3), "max"), 'scheme must be "joint" or "variance"'),
    "negative λ": (lambda: rlhf_objective(LOGITS, REWARD, LOGITS, -0.1), "kl_coef must be in [0, inf], got -0.1"),
    "NaN λ": (lambda: rlhf_gradient(LOGITS, REWARD, LOGITS, np.nan), "kl_coef must be in [0, inf], got nan"),
    "KL of what is no distribution": (lambda: kl_divergence(PROBS, [1.0, 1.0, 1.0]), "q must sum to 1"),
    "a horizon of zero": (lambda: gradient_flow(LOGITS, REWARD, 0.0), "t_max must be greater than 0"),
    "an infinite horizon": (lambda: gradient_flow(LOGITS, REWARD, np.inf), "t_max must be"),
    "a time beyond the horizon": (lambda: gradient_flow(LOGITS, REWARD, 1.0)(2.0), "t must be in [0, 1], got 2"),
    "half a prompt": (
        lambda: gradient_flow(LOGITS, REWARD, 1.0, n_prompts=0.5),
        "n_prompts must be a whole number of at least 1",
    ),
    "a gain of zero": (lambda: time_to_gain(LOGITS, REWARD, 0.0), "gain must be greater than 0, got 0"),
    "as many λ as there are no problems": (
        lambda: time_to_gain(LOGITS, REWARD, 0.1, kl_coef=[0.1, 0.2]),
        "kl_coef must be a number or fit",
    ),
    "accuracy out of reach": (lambda: make_reward_model(REWARD, PROBS, 0.5, 0.1, 0), "the nearest is 0."),
    "accuracy above one": (
        lambda: make_reward_model(REWARD, PROBS, 1.5, 0.1, 0),
        "accuracy must be in [0, 1], got 1.5",
    ),
    "accuracy that ties forbid": (
        lambda: make_reward_model([1, 1, 1], PROBS, 2 / 3, 0.1, 0),
        "but for what ties forbid",
    ),
    "variance out of reach": (
        lambda: make_reward_model(REWARD, PROBS, 1.0, 1.5, 0),
        "variance must be in (0, 0.84] for accuracy 1 with seed 0, got 1.5",
    ),
    "no variance": (lambda: make_reward_model(REWARD, PROBS, 1.0, 0.0, 0), "variance must be in (0, "),
    "ties everywhere, with variance": (
        lambda: make_reward_model([1, 1, 1], PROBS, 1.0, 0.1, 0),
        "variance must be in (0, 0]",
    ),
    "one output to rank": (lambda: attainable_variance([0.3], [1.0], 1.0, 0), "ground_truth must be one prompt's"),
    "slowness below one": (lambda: accurate_but_slow(REWARD, 1.0, 0.5), "slowness must be in [1, inf], got 0.5"),
    "an output that is not there": (
        lambda: inaccurate_but_fast(REWARD, PROBS, 3),
        "best must be the index of one of 3 outputs",
    ),
    "twice the same good output": (lambda: policy_specific_teachers(3, 1, 1), "other_good must be another output"),
    "negative variance": (lambda: bounds.tabular_slow_time_bound(-0.1, 0.1), "variance must be in [0, inf], got -0.1"),
    "a negative reward bound": (
        lambda: bounds.gradient_norm_bound(0.1, 2, 1, -1.0),
        "reward_bound must be in [0, inf], got -1",
    ),
    "rewards beyond [-1, 1]": (
        lambda: bounds.tabular_fast_time_bound(PROBS, [2.0, 0, 0], REWARD, 0.1, [0]),
        "reward must lie in [-1, 1]",
    ),
    "good outputs that are not good": (
        lambda: bounds.tabular_fast_time_bound(PROBS, REWARD, REWARD, 0.1, [1]),
        "good_outputs do not meet the paper's Prop. 4",
    ),
    "no good outputs": (
        lambda: bounds.tabular_fast_time_bound(PROBS, REWARD, REWARD, 0.1, []),
        "good_outputs must name at least one output",
    ),
    "too large a λ for Prop. 4": (
        lambda: bounds.tabular_fast_time_bound([0.5, 0.5], [1, 0], [1, -1], 0.1, [0], kl_coef=1.0),
        "kl_coef must be at most",
    ),
    "a first output that is not there": (
        lambda: make_reward_model(REWARD, PROBS, 1.0, 0.1, 0, first=-1),
        "first must be a whole number of at least 0, got -1",
    ),
    "an output by name": (
        lambda: inaccurate_but_fast(REWARD, PROBS, "best"),
        "best must be a whole number of at least 0, got 'best'",
    ),
    "an accuracy out of reach with an output first": (
        lambda: make_reward_model(REWARD, PROBS, 0.0, 0.1, 0, first=0),
        "accuracy must be attainable, from 0.666667 to 1",
    ),
    "a negative seed": (
        lambda: make_reward_model(REWARD, PROBS, 1.0, 0.1, -1),
        "seed must be a whole number of at least 0, got -1",
    ),
    "a seed that is no number": (
        lambda: attainable_variance(REWARD, PROBS, 1.0, np.nan),
        "seed must be a whole number of at least 0, got nan",
    ),
    "NaN accuracy": (lambda: make_reward_model(REWARD, PROBS, np.nan, 0.1, 0), "accuracy must be in [0, 1], got nan"),
    "a policy for other outputs": (
        lambda: make_reward_model(REWARD, [0.5, 0.5], 1.0, 0.1, 0),
        "ground_truth and probs must have the same outputs",
    ),
    "rewards for several prompts": (
        lambda: make_reward_model(np.eye(3), PROBS, 1.0, 0.1, 0),
        "ground_truth must be one prompt's, of shape (n,)",
    ),
    "a variance that no ranking allows": (
        lambda: attainable_accuracy(REWARD, [0.98, 0.01, 0.01], 0.9, 0),
        "variance must be in (0, 0.0784] for this policy and seed 0",
    ),
    "a time before the start": (lambda: bounds.movement_bound(0.1, -1.0, 1, 1), "time must be in [0, inf], got -1"),
    "a Jacobian of norm 0": (lambda: bounds.horizon(0.1, 1, 0.0), "jacobian_norm must be greater than 0, got 0"),
    "an output that is not good enough": (
        lambda: bounds.inaccurate_but_fast_time_bound(PROBS, REWARD, 0.9, 2),
        "best must have a ground truth above V_G(0) + γ",
    ),
    "zero samples": (lambda: best_of_n(PROBS, REWARD, REWARD, 0), "n must be a whole number of at least 1, got 0"),
    "an unknown algorithm": (
        lambda: advantages(np.ones((2, 3)), "ppo"),
        "algorithm must be one of rloo, grpo, dr_grpo, reinforce, got 'ppo'",
    ),
    "an unknown algorithm of an estimate": (
        lambda: estimate_gradient(LOGITS, REWARD, 2, 0, algorithm="RLOO"),
        "algorithm must be one of rloo, grpo, dr_grpo, reinforce, got 'RLOO'",
    ),
    "an algorithm's old name": (
        lambda: advantages(np.ones((2, 3)), "grpo_unscaled"),
        "algorithm must be dr_grpo for GRPO without the division",
    ),
    "a group of one": (
        lambda: estimate_gradient(LOGITS, REWARD, 1, 0),
        "rewards must hold groups of at least two samples",
    ),
    "samples of outputs that are not there": (
        lambda: gradient_estimate(LOGITS, [3], [1.0]),
        "outputs must be indices below 3",
    ),
    "samples from what is no distribution": (lambda: sample_outputs([0.5, 0.6], 2, 0), "probs must sum to 1"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_in_one_sentence(name):
    call, sentence_part = CASES[name]
    with pytest.raises(ValueError) as error:
        call()
    message = str(error.value)
    assert sentence_part in message and message.endswith(".") and "\n" not in message
    assert not re.search(r"\. [A-Z]", message), "one sentence"


def test_a_tensor_with_gradients_says_how_to_pass_it():
    torch = pytest.importorskip(
        "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
    )
    for tensor in (torch.ones(3, requires_grad=True), torch.ones(3, dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match=r"got Tensor; pass tensor.detach\(\).float\(\).cpu\(\).numpy\(\)\.$"):
            softmax(tensor)
        assert softmax(tensor.detach().float().cpu().numpy()).tolist() == pytest.approx([1 / 3] * 3)


def test_integers_are_the_numbers_they_equal():
    assert np.array_equal(softmax([0, 1, 2]), softmax([0.0, 1.0, 2.0]))
    assert ranking_accuracy([1, 2], [3, 4]) == 1 and reward_variance(np.array([0, 2])) == 2
    assert time_to_gain([0, 0], [0, 1], 0.1) == time_to_gain([0.0, 0.0], [0.0, 1.0], 0.1)


def test_a_policy_of_one_output_has_nothing_to_learn():
    assert softmax([3.0]) == 1 and reward_variance([0.7], [1.0]) == 0
    assert gradient_flow([3.0], [0.7], 10.0).proxy[-1] == pytest.approx(0.7)
    assert time_to_gain([3.0], [0.7], 0.1) == np.inf and best_of_n([1.0], [0.7], [0.2], 5) == pytest.approx(0.2)


def test_ties_everywhere_teach_nothing():
    assert ranking_accuracy(np.zeros(4), np.zeros(4)) == 1 and ranking_accuracy(np.zeros(4), np.arange(4)) == 0
    assert reward_variance(np.full(4, 0.3)) == 0 and bounds.tabular_slow_time_bound(0.0, 0.1) == np.inf
    assert time_to_gain(np.zeros(4), np.full(4, 0.3), 0.1) == np.inf
    assert make_reward_model([1, 1, 1], PROBS, 1.0, 0.0, 0).tolist() == [0, 0, 0]
