"""Policy gradient on a language model: RLOO, GRPO and REINFORCE, in one loop.

    y_1 … y_k ~ π_θ(·|x)           r_i = r(x, y_i) - λ ln(π_θ(y_i|x) / π_ref(y_i|x))
    L(θ) = -mean_i min( ρ_i A_i, clip(ρ_i, 1 - ε, 1 + ε) A_i ),     ρ_i = π_θ(y_i|x) / π_old(y_i|x)

A_i are the advantages of `rvlib.tabular.estimators`, the same functions that the exact world uses. At the first mini-batch
ρ = 1, and -∇L is their unbiased estimate of ∇φ.

As in the paper's code (section 4, arXiv 2503.15477, and princeton-pli/what-makes-good-rm): probabilities of whole replies, the
KL term inside the reward, an epoch of as many replies as there are prompts, a constant learning rate. Otherwise than there:
prompts run through a new permutation each epoch and none is dropped; a reply's random numbers depend on seed and step alone;
the KL term is inside the reward for GRPO too, so that its gradient is that of λ KL(π‖π_ref); and the group's standard deviation
is the sample's, of the regularised rewards.
"""

import numpy as np
import torch

from rvlib.lm import processes
from rvlib.lm.models.adapters import without_adapter
from rvlib.lm.sampling import engines
from rvlib.lm.sampling.encoding import decode_replies, encode_prompt
from rvlib.lm.sampling.generation import generate
from rvlib.lm.sampling.log_probs import log_probs, reply_log_probs
from rvlib.lm.seeding import torch_seed
from rvlib.lm.training.trainer import Trainer
from rvlib.tabular.estimators import advantages


def train_policy(policy, reference, teacher, ground_truth, prompts, recipe, folder, *, seed, label, on_step=None):
    """Train `policy` on `teacher`, with evaluations on the way, and return the `Trainer`, whose log has every step's numbers.

    policy, reference: `models.Policy` of equal weights; without a reference it is the policy with its adapter off. teacher, ground_truth: functions of a list of prompts and a list of
    lists of replies, giving rewards (prompts, replies). prompts: a list of `Prompt`. on_step: called with the step's number and
    a dictionary of its numbers, those of an evaluation by themselves; what it returns, if true, ends the training.
    """
    settings, evaluation, runtime = recipe.policy_gradient, recipe.evaluation, recipe.runtime
    trainer = Trainer(policy.model, folder, settings.learning_rate, runtime)
    if reference:
        reference.model.to(policy.model.device)
    per_step = settings.batch_size // settings.num_generations
    total = max(round(settings.epochs * len(prompts) / settings.batch_size), 1)
    times = set(np.linspace(0, total, round(settings.epochs * evaluation.per_epoch) + 1).round().astype(int).tolist())

    def evaluated(step):
        numbers = evaluate(
            policy,
            reference,
            {"proxy": teacher, "ground_truth": ground_truth},
            prompts[: evaluation.prompts],
            recipe,
            (seed, step, 1),
        )
        numbers = {f"eval_{name}": value for name, value in numbers.items()}
        trainer.log(step, **numbers)
        return on_step is not None and on_step(step, numbers)

    for step in trainer.steps(total, label):
        if step in times and evaluated(step):
            return trainer
        batch = [prompts[i] for i in batch_indices(len(prompts), per_step, step, seed)]
        numbers = policy_gradient_step(trainer, policy, reference, teacher, batch, recipe, (seed, step, 0))
        trainer.log(step, **numbers)
        if on_step is not None and on_step(step, numbers):
            return trainer
    if not any(line["step"] == total for line in trainer.lines()):
        evaluated(total)
    return trainer


def policy_gradient_step(trainer, policy, reference, teacher, batch, recipe, seed):
    """One batch of prompts: replies, rewards, advantages, a step of Adam a mini-batch. Returns the numbers."""
    settings = recipe.policy_gradient
    prompts, replies, old, before = rollout(policy, reference, batch, settings.num_generations, recipe, seed)
    rewards = processes.score(
        teacher, batch, group_by_prompt(decode_replies(policy, replies), settings.num_generations)
    )  # (prompts, k)
    kl = (old - before).reshape(rewards.shape)
    a = advantages(rewards - settings.kl_coef * kl, settings.algorithm).ravel()

    def loss_of(rows):
        new = reply_log_probs(
            policy.model, [prompts[i] for i in rows], [replies[i] for i in rows], temperature=settings.temperature
        )
        fixed = (torch.as_tensor(values[rows], device=new.device) for values in (old, a))
        return clipped_loss(new, *fixed, settings.clip_range)

    mini_batches = np.arange(len(replies)).reshape(settings.num_mini_batches, -1)
    losses = [
        trainer.update(rows.tolist(), loss_of, lambda i: len(prompts[i]) + len(replies[i])) for rows in mini_batches
    ]
    within = rewards.std(-1, ddof=1).mean() if settings.num_generations > 1 else 0.0
    numbers = {"loss": np.mean(losses), "reward": rewards.mean(), "kl": kl.mean(), "reward_std_within": within}
    return {name: float(value) for name, value in numbers.items()} | {"reply_tokens": sum(map(len, replies))}


def clipped_loss(new, old, advantages, clip):
    """-min(ρ A, clip(ρ) A) of each reply, (replies,): log-probabilities under π_θ and π_old, and its advantage."""
    ratio = (new - old).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def evaluate(policy, reference, judges, prompts, recipe, seed):
    """Mean rewards by each of `judges` and the KL divergence (nats a reply) from `reference`, over replies drawn for the purpose."""
    outputs = recipe.evaluation.outputs
    _, replies, ours, theirs = rollout(policy, reference, prompts, outputs, recipe, seed)
    written = group_by_prompt(decode_replies(policy, replies), outputs)
    return {name: float(processes.score(judge, prompts, written).mean()) for name, judge in judges.items()} | {
        "kl": float((ours - theirs).mean())
    }


def reference_log_probs(policy, reference, prompts, replies, **how):
    """`log_probs` under the reference, which is the policy without its adapter where there is no other."""
    if reference:
        return log_probs(reference, prompts, replies, **how)
    with without_adapter(policy.model):
        return log_probs(policy, prompts, replies, **how)


def rollout(policy, reference, batch, group, recipe, seed):
    """`group` replies to each prompt of a batch: (their prompts' ids, their ids, two flat lists of lists; ln π_θ and ln π_ref of them, arrays).

    At most `runtime.batch_size` are drawn at once, from a seed of their own, so that several processes, which share these chunks, draw
    what one does; engines that see to that themselves draw all before, for all. For each to have its part of a batch, set `runtime.batch_size` to the batch divided by their number.
    """
    settings, prompts = recipe.policy_gradient, [encode_prompt(policy.tokenizer, prompt.text) for prompt in batch]
    runtime, found = recipe.runtime, []
    at_once = max(runtime.batch_size // group, 1)
    how = {"temperature": settings.temperature, "rows": runtime.batch_size}

    def draw(some, start):
        with torch_seed(*seed, start):
            return generate(
                policy,
                some,
                group,
                max_new_tokens=settings.max_new_tokens,
                engine=runtime.engine,
                server=runtime.server,
                **how,
            )

    with processes.whole(policy.model):
        drawn = None if runtime.engine in engines.PADDED else processes.only_first(lambda: draw(prompts, 0))
        for start in processes.share(range(0, len(prompts), at_once)):
            some = prompts[start : start + at_once]
            replies = drawn[start * group : (start + at_once) * group] if drawn else draw(some, start)
            some = [prompt for prompt in some for _ in range(group)]
            found.append(
                (
                    some,
                    replies,
                    log_probs(policy, some, replies, **how),
                    reference_log_probs(policy, reference, some, replies, **how),
                )
            )
    prompts, replies, ours, theirs = (
        [row for chunk in kind for row in chunk] for kind in zip(*processes.gather(found))
    )
    return prompts, replies, np.array(ours), np.array(theirs)


def batch_indices(count, per_step, step, seed):
    """Which of `count` prompts the batch of a step has: a new permutation by `seed` each time all have been seen."""
    places = range(step * per_step, (step + 1) * per_step)
    orders = {place // count: None for place in places}
    orders = {number: np.random.default_rng([seed, number]).permutation(count) for number in orders}
    return [int(orders[place // count][place % count]) for place in places]


def group_by_prompt(flat, size):
    """A flat list as a list of lists of `size`."""
    return [flat[i : i + size] for i in range(0, len(flat), size)]
