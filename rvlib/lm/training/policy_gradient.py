"""Policy gradient on a language model: RLOO, GRPO and REINFORCE, in one loop.

    y_1 … y_k ~ π_θ(·|x)           r_i = r(x, y_i) - λ ln(π_θ(y_i|x) / π_ref(y_i|x))
    L(θ) = -mean_i min( ρ_i A_i, clip(ρ_i, 1 - ε, 1 + ε) A_i ),     ρ_i = π_θ(y_i|x) / π_old(y_i|x)

A_i are the advantages of `rvlib.tabular.estimators`, the same functions that the exact world uses. At the first
mini-batch ρ = 1, and -∇L is their unbiased estimate of ∇φ.

As in the paper's code (section 4, arXiv 2503.15477, and princeton-pli/what-makes-good-rm): probabilities of whole
replies, the KL term inside the reward, an epoch of as many replies as there are prompts, a constant learning rate.
It differs from the paper's code in five ways. No prompt is dropped at the end of an epoch. A group's replies stay in
one mini-batch. A reply's random numbers depend on seed and step alone. The KL term is inside the reward for GRPO too,
so that its gradient is that of λ KL(π‖π_ref); the official GRPO trainer subtracts it from the loss as a number without
a gradient. And GRPO divides by s + 1e-4, s the sample's deviation of the regularised rewards; there it is √(s² + 1e-8),
of the rewards alone.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from rvlib.lm import processes
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.models import RewardFunction
from rvlib.lm.models.adapters import without_adapter
from rvlib.lm.models.policies import Policy
from rvlib.lm.sampling import engines
from rvlib.lm.sampling.encoding import decode_replies, encode_prompt
from rvlib.lm.sampling.generation import Completions, complete
from rvlib.lm.sampling.log_probs import log_probs, reply_log_probs, use_flash_attention
from rvlib.lm.seeding import torch_seed
from rvlib.lm.settings import Evaluation, PolicyGradient, RuntimeSettings
from rvlib.lm.training.trainer import Trainer
from rvlib.tabular.estimators import advantages as estimate_advantages

T = TypeVar("T")


class PolicyGradientRecipe(Protocol):
    """What policy gradient reads of a recipe (`rvlib.lm.experiments.recipe`)."""

    policy_gradient: PolicyGradient
    evaluation: Evaluation
    runtime: RuntimeSettings


@dataclass(frozen=True)
class Rollout:
    """Replies drawn to a batch of prompts, `num_generations` to each in a row, and what they are worth.

    Each field has one entry a reply, but the rewards are {name: (prompts, num_generations)}, of the reward functions
    that were asked.
    """

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    completions: list[str]  # their texts
    logprobs: NDArray[np.float64]  # ln π_θ(y|x), nats
    ref_logprobs: NDArray[np.float64]  # ln π_ref(y|x), nats
    rewards: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    while_drawing: bool = False  # whether `logprobs` are the engine's own, not those of a forward pass of whole replies

    @classmethod
    def concatenate(cls, chunks: Sequence[Rollout]) -> Rollout:
        """The rollout that was drawn in chunks, without rewards."""
        return cls(
            prompt_ids=[ids for chunk in chunks for ids in chunk.prompt_ids],
            completion_ids=[ids for chunk in chunks for ids in chunk.completion_ids],
            completions=[text for chunk in chunks for text in chunk.completions],
            logprobs=np.concatenate([chunk.logprobs for chunk in chunks]),
            ref_logprobs=np.concatenate([chunk.ref_logprobs for chunk in chunks]),
            while_drawing=any(chunk.while_drawing for chunk in chunks),
        )


def train_policy(
    policy: Policy,
    ref_policy: Policy | None,
    reward_function: RewardFunction,
    ground_truth: RewardFunction,
    prompts: Sequence[Prompt],
    recipe: PolicyGradientRecipe,
    folder: str | pathlib.Path,
    *,
    seed: int,
    label: str | None,
    on_step: Callable[[int, dict[str, float]], Any] | None = None,
) -> Trainer:
    """Train `policy` on `reward_function`, with evaluations on the way; returns the `Trainer`, which logs all numbers.

    policy, ref_policy: of equal weights; None is the policy with its adapter off. reward_function, ground_truth:
    functions of a list of prompts and a list of lists of replies, giving rewards (prompts, replies).
    label: of the progress bar; without one there is no bar.
    on_step: called with the step's number and a dictionary of its numbers, those of an evaluation by themselves; what
    it returns, if true, ends the training. To save the policy, take `dataclasses.replace(policy,
    sharing=trainer.adam)`.
    """
    settings, evaluation, runtime = recipe.policy_gradient, recipe.evaluation, recipe.runtime
    trainer = Trainer(policy.model, folder, settings.learning_rate, runtime, seed)
    policy = replace(policy, sharing=trainer.adam)
    use_flash_attention(policy.model)
    if ref_policy:
        frozen: torch.nn.Module = ref_policy.model
        frozen.to(policy.model.device)
        use_flash_attention(ref_policy.model)
    prompts_per_step = settings.batch_size // settings.num_generations
    total_steps = settings.steps(len(prompts))
    evaluations = round(settings.epochs * evaluation.per_epoch) + 1
    evaluation_steps = set(np.linspace(0, total_steps, evaluations).round().astype(int).tolist())

    def evaluated(step: int) -> bool:
        """Evaluate before a step, and say whether that ends the training."""
        means = evaluate(
            policy,
            ref_policy,
            {"proxy": reward_function, "ground_truth": ground_truth},
            prompts[: evaluation.prompts],
            recipe,
            (seed, step, 1),
        )
        numbers = {f"eval_{name}": value for name, value in means.items()}
        trainer.log(step, **numbers)
        return on_step is not None and bool(on_step(step, numbers))

    for step in trainer.steps(total_steps, label):
        if step in evaluation_steps and evaluated(step):
            return trainer
        batch = [prompts[i] for i in batch_indices(len(prompts), prompts_per_step, step, seed)]
        numbers = policy_gradient_step(trainer, policy, ref_policy, reward_function, batch, recipe, (seed, step, 0))
        trainer.log(step, **numbers)
        if on_step is not None and on_step(step, numbers):
            return trainer
    if not any(line["step"] == total_steps for line in trainer.lines()):
        evaluated(total_steps)
    return trainer


def policy_gradient_step(
    trainer: Trainer,
    policy: Policy,
    ref_policy: Policy | None,
    reward_function: RewardFunction,
    prompts: Sequence[Prompt],
    recipe: PolicyGradientRecipe,
    seed_path: Sequence[int],
) -> dict[str, float]:
    """One batch of prompts: replies, rewards, advantages, a step of Adam a mini-batch. Returns the numbers."""
    settings = recipe.policy_gradient
    drawn = rollout(
        policy, ref_policy, {"proxy": reward_function}, prompts, settings.num_generations, recipe, seed_path
    )
    prompt_ids, completion_ids, rewards = drawn.prompt_ids, drawn.completion_ids, drawn.rewards["proxy"]
    kl = (drawn.logprobs - drawn.ref_logprobs).reshape(rewards.shape)  # (prompts, num_generations), as are the rewards
    advantages = estimate_advantages(rewards - settings.kl_coef * kl, settings.algorithm).ravel()

    mini_batches = np.arange(len(completion_ids)).reshape(settings.num_mini_batches, -1)
    old_logprobs = _old_log_probs(policy, drawn, mini_batches[1:].ravel(), recipe)

    def loss_of(indices: list[int]) -> torch.Tensor:
        logprobs = reply_log_probs(
            policy,
            [prompt_ids[i] for i in indices],
            [completion_ids[i] for i in indices],
            temperature=settings.temperature,
        )
        weights_drew_them = drawn.while_drawing and max(indices) < len(mini_batches[0])
        earlier = torch.as_tensor(old_logprobs[indices], device=logprobs.device)
        return clipped_loss(
            logprobs,
            logprobs.detach() if weights_drew_them else earlier,
            torch.as_tensor(advantages[indices], device=logprobs.device),
            settings.clip_range,
        )

    def length(i: int) -> int:
        return len(prompt_ids[i]) + len(completion_ids[i])

    losses = [trainer.update(indices.tolist(), loss_of, length) for indices in mini_batches]
    return {
        "loss": float(np.mean(losses)),
        "reward": float(rewards.mean()),
        "kl": float(kl.mean()),
        "reward_std_within": float(rewards.std(-1, ddof=1).mean()) if settings.num_generations > 1 else 0.0,
        "reply_tokens": sum(map(len, completion_ids)),
    }


def _old_log_probs(
    policy: Policy, drawn: Rollout, later: NDArray[np.intp], recipe: PolicyGradientRecipe
) -> NDArray[np.float64]:
    """The ln π_old of each reply, (replies,) in nats; later: indices of those that are not in the first mini-batch.

    If the engine gives ln π of what it draws, the KL term uses that, without another forward pass. The ratio of
    probabilities does not use it: it differs from training's ln π by rounding, which in bfloat16 and over a long reply
    is not small. In the first mini-batch the ratio is 1 by definition, so log-probabilities are divided by themselves;
    for later mini-batches ln π_old comes from a forward pass of their replies alone.
    """
    old_logprobs = np.array(drawn.logprobs)
    if drawn.while_drawing and len(later):
        with policy.sharing.whole():
            old_logprobs[later] = log_probs(
                policy,
                [drawn.prompt_ids[i] for i in later],
                [drawn.completion_ids[i] for i in later],
                temperature=recipe.policy_gradient.temperature,
                batch_size=recipe.runtime.batch_size,
            )
    return old_logprobs


def clipped_loss(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, advantages: torch.Tensor, clip_range: float
) -> torch.Tensor:
    """-min(ρ A, clip(ρ) A) of each reply, (replies,): log-probabilities under π_θ and π_old, and its advantage.

    The book's `prop-ppo` has its gradient and, for RLOO where π_θ = π_old, `prop-loop-unbiased` the gradient's mean.
    """
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def evaluate(
    policy: Policy,
    ref_policy: Policy | None,
    reward_functions: Mapping[str, RewardFunction],
    prompts: Sequence[Prompt],
    recipe: PolicyGradientRecipe,
    seed_path: Sequence[int],
) -> dict[str, float]:
    """Mean rewards of new replies by each of `reward_functions`, and "kl", the divergence from `ref_policy` (nats)."""
    drawn = rollout(policy, ref_policy, reward_functions, prompts, recipe.evaluation.num_generations, recipe, seed_path)
    means = {name: float(rewards.mean()) for name, rewards in drawn.rewards.items()}
    return means | {"kl": float((drawn.logprobs - drawn.ref_logprobs).mean())}


def ref_log_probs(
    policy: Policy,
    ref_policy: Policy | None,
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    *,
    temperature: float,
    batch_size: int,
) -> list[float]:
    """`log_probs` under `ref_policy`, which is the policy without its adapter where there is no other."""
    if ref_policy:
        return log_probs(ref_policy, prompt_ids, completion_ids, temperature=temperature, batch_size=batch_size)
    with without_adapter(policy.model):
        return log_probs(policy, prompt_ids, completion_ids, temperature=temperature, batch_size=batch_size)


def rollout(
    policy: Policy,
    ref_policy: Policy | None,
    reward_functions: Mapping[str, RewardFunction],
    prompts: Sequence[Prompt],
    num_generations: int,
    recipe: PolicyGradientRecipe,
    seed_path: Sequence[int],
) -> Rollout:
    """`num_generations` replies to each of `prompts`, with their log-probabilities and their rewards by each function.

    They are drawn in chunks of `runtime.batch_size`, each from a seed of its own, so that several processes, which
    share the chunks, draw what one process draws. Engines that batch by themselves draw all replies in the first
    process. For every process to have work, set `runtime.batch_size` to the batch divided by the number of processes.
    """
    settings, runtime = recipe.policy_gradient, recipe.runtime
    prompts_per_chunk = max(runtime.batch_size // num_generations, 1)
    encoded = [encode_prompt(policy.tokenizer, prompt) for prompt in prompts]

    def draw(prompt_ids: list[list[int]], start: int) -> Completions:
        with torch_seed(*seed_path, start):
            return complete(
                policy,
                prompt_ids,
                num_generations,
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                engine=runtime.engine,
                batch_size=runtime.batch_size,
                server=runtime.server,
            )

    chunks = []
    with policy.sharing.whole(), ref_policy.sharing.whole() if ref_policy else contextlib.nullcontext():
        all_replies = None if runtime.engine in engines.PADDED else processes.only_first(lambda: draw(encoded, 0))
        for start in processes.share(range(0, len(encoded), prompts_per_chunk)):
            stop = start + prompts_per_chunk
            if all_replies is None:
                drawn = draw(encoded[start:stop], start)
            else:
                drawn = Completions(all_replies.completion_ids[start * num_generations : stop * num_generations])
            prompt_ids = [ids for ids in encoded[start:stop] for _ in range(num_generations)]
            chunks.append(_chunk(policy, ref_policy, prompts[start:stop], prompt_ids, drawn, recipe))
    whole = Rollout.concatenate(processes.gather(chunks))
    groups = group_by_prompt(whole.completions, num_generations)
    rewards = {name: processes.score(function, prompts, groups) for name, function in reward_functions.items()}
    return replace(whole, rewards=rewards)


def _chunk(
    policy: Policy,
    ref_policy: Policy | None,
    prompts: Sequence[Prompt],
    prompt_ids: list[list[int]],
    drawn: Completions,
    recipe: PolicyGradientRecipe,
) -> Rollout:
    """The rollout of a chunk of replies that were drawn, without rewards; prompt_ids: an entry for each reply."""
    groups = group_by_prompt(drawn.completion_ids, len(drawn.completion_ids) // len(prompts))
    temperature, batch_size = recipe.policy_gradient.temperature, recipe.runtime.batch_size
    completion_ids, logprobs = drawn.completion_ids, drawn.logprobs
    if logprobs is None:
        logprobs = log_probs(policy, prompt_ids, completion_ids, temperature=temperature, batch_size=batch_size)
    ref_logprobs = ref_log_probs(
        policy, ref_policy, prompt_ids, completion_ids, temperature=temperature, batch_size=batch_size
    )
    return Rollout(
        prompt_ids=prompt_ids,
        completion_ids=completion_ids,
        completions=[text for prompt, group in zip(prompts, groups) for text in decode_replies(policy, group, prompt)],
        logprobs=np.array(logprobs),
        ref_logprobs=np.array(ref_logprobs),
        while_drawing=drawn.logprobs is not None,
    )


def batch_indices(num_prompts: int, prompts_per_step: int, step: int, seed: int) -> list[int]:
    """The indices of the prompts of a step's batch: each epoch is a new permutation by `seed`."""
    positions = range(step * prompts_per_step, (step + 1) * prompts_per_step)
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(num_prompts)
        for epoch in sorted({position // num_prompts for position in positions})
    }
    return [int(orders[position // num_prompts][position % num_prompts]) for position in positions]


def group_by_prompt(flat: Sequence[T], num_generations: int) -> list[list[T]]:
    """A flat list as a list of lists of `num_generations`."""
    return [list(flat[i : i + num_generations]) for i in range(0, len(flat), num_generations)]
