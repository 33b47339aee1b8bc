"""The first stages of an experiment: fine-tune, sample, label, train reward models (section 4.1, arXiv 2503.15477).

Each is a function of a `run_folder.Run` under `@stage` (`run_once`), which skips a stage that is done. `teachers` has
the next, measuring, and `trainings` the last, policy gradient. One pass of sampling serves every reward model: two
replies to each prompt that is kept for reward models, if any of them is trained on such pairs, and 10 replies to each
of the 500 prompts on which all are measured.
"""

import functools
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import transformers

from rvlib.lm import processes
from rvlib.lm.data import sources
from rvlib.lm.data.prompts import Preference, Prompt
from rvlib.lm.experiments.recipe import PolicySettings, TrainedRewardModel
from rvlib.lm.experiments.run_folder import Run
from rvlib.lm.experiments.run_once import Product, stage
from rvlib.lm.models import policies
from rvlib.lm.models.loading import quiet
from rvlib.lm.models.reading import encode
from rvlib.lm.sampling import engines
from rvlib.lm.sampling.encoding import encode_prompt, encode_reply
from rvlib.lm.sampling.log_probs import reply_log_probs
from rvlib.lm.sampling.replies import ReplyRecord, Sampling, read_replies, sample_replies
from rvlib.lm.seeding import torch_seed
from rvlib.lm.training import supervised
from rvlib.lm.training.trainer import Trainer


@dataclass(frozen=True)
class Split:
    """The prompts of a run, each with an off-policy pair: `pairs` for reward models, `held_out` for policy gradient.

    No reward model is trained on a prompt of `held_out`.
    """

    pairs: list[Preference]
    held_out: list[Preference]

    @functools.cached_property
    def prompts(self) -> list[Prompt]:
        """The prompts of policy gradient."""
        return [preference.prompt for preference in self.held_out]


@dataclass(frozen=True)
class InitialReplies:
    """Replies of an initial policy, records of `sample_replies`: two to a prompt for pairs, or none; those measured."""

    pairs: list[ReplyRecord]
    measured: list[ReplyRecord]


@functools.lru_cache(maxsize=1)  # every stage asks
def split(run: Run) -> Split:
    """Prompts and off-policy pairs, in a fixed order; those with more tokens than the recipe allows are dropped.

    A prompt that is kept for reward models is dropped from policy gradient's, so that no reward model is measured on a
    prompt that it was trained on.

    ValueError, one sentence, for data without preferences, for too few, and where too few are left for policy gradient.
    """
    data, policy = run.recipe.data, next(iter(run.recipe.policies.values()))
    tokenizer = policies.load_tokenizer(policy.model)
    examples = processes.only_first(lambda: sources.load_examples(data.preferences, data.prompts))
    preferences = [
        Preference(example.prompt, example.chosen, example.rejected)
        for example in examples
        if example.chosen is not None and (example.rejected is not None or data.others)
    ]
    if len(preferences) < len(examples):
        raise ValueError(
            f"The data must be preferences, two replies to each prompt, got {data.preferences} with one; "
            "name preferences in data.preferences, or in data.others a policy that writes the other reply."
        )

    def short(text: str) -> bool:
        return len(tokenizer(text)["input_ids"]) <= data.max_tokens

    pairs = [
        pair for pair in preferences if short(pair.prompt.text) and short(pair.chosen) and short(pair.rejected or "")
    ]
    if len(pairs) < 4:
        raise ValueError(
            f"The data must have at least four examples of at most {data.max_tokens} tokens, "
            f"got {len(pairs)} of {data.preferences}; raise data.max_tokens or data.prompts."
        )
    shuffled = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]
    cut = round(data.reward_model_share * len(pairs))
    trained_on = {pair.prompt.text for pair in shuffled[:cut]}
    held_out = [pair for pair in shuffled[cut:] if pair.prompt.text not in trained_on]
    if len(held_out) < 2:
        raise ValueError(
            "The data must leave at least two prompts for policy gradient on which no reward model is trained, got "
            f"{len(held_out)} of {len(pairs)}; lower data.reward_model_share, or use more prompts that differ."
        )
    return Split(shuffled[:cut], held_out)


def check_pairs(run: Run, pairs: int) -> None:
    """ValueError, one sentence, if so many pairs for reward models are fewer than one batch of their training has."""
    supervised.check_batch(pairs, run.recipe.reward_training, "pairs for reward models")


@stage("sft/{name}", makes="model")
def sft(run: Run, name: str, folder: pathlib.Path) -> Product:
    """The folder of an initial policy, fine-tuned on its demonstrations if it has any, and with a chat template."""
    return _fine_tune(run, run.recipe.policies[name], name, folder)


def _fine_tune(run: Run, spec: PolicySettings, name: str, folder: pathlib.Path) -> Product:
    """Save a policy in `folder`/model, fine-tuned on its demonstrations if it has any."""
    settings = run.recipe.sft
    policy = policies.load_policy(spec.model, dtype=run.recipe.runtime.weights_dtype)
    policies.add_template(policy)
    tokens = 0
    trainer: Trainer | None = None
    if source := spec.demonstrations:
        demonstrations = processes.only_first(lambda: sources.load_examples(source, spec.count, seed=1))
        rows = [
            (
                encode_prompt(policy.tokenizer, example.prompt),
                encode_reply(policy, example.prompt, example.chosen or ""),
            )
            for example in demonstrations
        ]
        rows = [row for row in rows if max(map(len, row)) <= run.recipe.data.max_tokens]
        trainer = Trainer(policy.model, folder, spec.learning_rate or settings.learning_rate, run.recipe.runtime)
        policy = replace(policy, sharing=trainer.adam)
        for step, batch in supervised.batches(trainer, rows, settings, f"Fine-tuning {name}"):
            reply_tokens = sum(len(reply) for _, reply in batch)
            batch_size = len(batch)

            # The trainer takes the mean over the batch's rows; the factor makes it the mean over the replies' tokens.
            def loss_of(
                examples: list[Any], batch_size: int = batch_size, reply_tokens: int = reply_tokens
            ) -> torch.Tensor:
                prompt_ids, completion_ids = map(list, zip(*examples))
                return -reply_log_probs(policy, prompt_ids, completion_ids) * batch_size / reply_tokens

            loss = trainer.update(batch, loss_of, length=lambda row: sum(map(len, row)))
            trainer.log(step, loss=loss, tokens=reply_tokens)
            tokens += reply_tokens
        trainer.whole_model()
    policies.save(policy, folder / "model")
    return Product(record={"tokens": tokens}, trainer=trainer)


@stage("others/policy", makes="model")
def others(run: Run, folder: pathlib.Path) -> Product:
    """The folder of the policy `data.others`, which writes one reply of an off-policy pair or both."""
    assert run.recipe.data.others
    return _fine_tune(run, run.recipe.data.others, "the other policy", folder)


@stage("others/replies", makes="drawn")
def others_replies(run: Run, folder: pathlib.Path) -> Product:
    """The folder of the replies of `data.others`: two to every prompt, or one to each for which the data have one."""
    recipe, data = run.recipe, split(run)
    assert recipe.data.others
    count = recipe.data.others.replies
    gradient, runtime = recipe.policy_gradient, recipe.runtime
    pairs = [*data.pairs, *data.held_out[: recipe.measure.prompts]]
    prompts = [pair.prompt for pair in pairs if _written(run, pair)]
    prompts_per_file = max(runtime.batch_size // count, 1)
    policy = policies.load_policy(others(run), dtype=runtime.compute_dtype)
    sample_replies(
        policy,
        prompts,
        folder / "drawn",
        Sampling(count, gradient.max_new_tokens, gradient.temperature, prompts_per_file, seed=2),
        engine=runtime.engine,
        batch_size=runtime.batch_size,
        server=runtime.server,
    )
    return Product()


def _written(run: Run, pair: Preference) -> bool:
    """Whether `data.others` writes a reply of this off-policy pair, or both."""
    writer = run.recipe.data.others
    return pair.rejected is None or (writer is not None and writer.replies == 2)


def off_policy_replies(run: Run, pairs: Sequence[Preference]) -> list[list[str]]:
    """Two off-policy replies to each prompt, as a reward function takes them: the data's, or written by `data.others`.

    Where `data.others` writes one reply, it is the second; where it writes two, the data's replies are in no pair.
    """
    prompts = [pair.prompt for pair in pairs if _written(run, pair)]
    records = read_replies(others_replies(run), prompts) if prompts else []
    written = {record["prompt"]: record["replies"] for record in records}
    given = [[pair.chosen] if pair.rejected is None else [pair.chosen, pair.rejected] for pair in pairs]
    return [[*replies, *written.get(pair.prompt.name, [])][-2:] for pair, replies in zip(pairs, given)]


def initial_replies(run: Run, name: str) -> InitialReplies:
    """Replies of an initial policy, read from the folder of their stage.

    There are no pairs if no reward model is trained on them.
    """
    folder = draw(run, name)
    prompts = _sampled_prompts(run, name)
    return InitialReplies(
        pairs=read_replies(folder / "pairs", prompts["pairs"]),
        measured=read_replies(folder / "measure", prompts["measure"]),
    )


@stage("samples/{name}")
def draw(run: Run, name: str, folder: pathlib.Path) -> Product:
    """The folder of an initial policy's replies: two to a prompt for pairs, more to one measured."""
    recipe, runtime, gradient = run.recipe, run.recipe.runtime, run.recipe.policy_gradient
    policy = policies.load_policy(run.folder / f"sft/{name}/model", dtype=recipe.runtime.compute_dtype)
    num_generations = {"pairs": 2, "measure": recipe.measure.num_generations}
    # An engine that does not pad gets more replies than it draws in one batch, so that none of its places stays empty.
    replies_per_file = runtime.batch_size * (1 if runtime.engine in engines.PADDED else 8)
    for seed, (use, prompts) in enumerate(_sampled_prompts(run, name).items()):
        if prompts:
            count = num_generations[use]
            prompts_per_file = max(replies_per_file // count, 1)
            sampling = Sampling(count, gradient.max_new_tokens, gradient.temperature, prompts_per_file, seed)
            sample_replies(
                policy,
                prompts,
                folder / use,
                sampling,
                engine=runtime.engine,
                batch_size=runtime.batch_size,
                server=runtime.server,
            )
    return Product()


def _sampled_prompts(run: Run, name: str) -> dict[str, list[Prompt]]:
    """The prompts to which a policy's replies are drawn for pairs, and for measuring."""
    data = split(run)
    pairs = [pair.prompt for pair in data.pairs] if run.recipe.draws_pairs(name) else []
    return {"pairs": pairs, "measure": data.prompts[: run.recipe.measure.prompts]}


@stage("labels/{name}", makes="labels.json")
def labels(run: Run, name: str, folder: pathlib.Path) -> Product:
    """Ground truth rewards of a policy's replies, lists of lists by what they are for.

    {"pairs": (prompts, 2), "off_policy": (prompts, 2), "measure": (prompts, outputs), "measure_off_policy": (prompts,
    2)}: the first two of the prompts for reward models, the others of those measured. "pairs" is empty where
    `initial_replies` has none.
    """
    data, ground_truth = split(run), run.ground_truth()
    initial = initial_replies(run, name)
    drawn = [record["replies"] for record in initial.pairs]
    measured = [record["replies"] for record in initial.measured]
    prompts = [pair.prompt for pair in data.pairs]
    held_out = data.held_out[: len(measured)]
    held_out_prompts = [pair.prompt for pair in held_out]
    return Product(
        {
            "pairs": processes.score(ground_truth, prompts[: len(drawn)], drawn).tolist(),
            "off_policy": processes.score(ground_truth, prompts, off_policy_replies(run, data.pairs)).tolist(),
            "measure": processes.score(ground_truth, held_out_prompts, measured).tolist(),
            "measure_off_policy": processes.score(
                ground_truth, held_out_prompts, off_policy_replies(run, held_out)
            ).tolist(),
        }
    )


def preferences(
    run: Run, name: str, share: float, *, pairs_share: float = 1.0, label_noise: float = 0.0
) -> list[Preference]:
    """Pairs of replies labelled by the ground truth, on-policy for `share` of the prompts.

    A prompt that is on-policy at a lower share is so at every higher one. Pairs that the ground truth ties are left
    out. pairs_share: of the prompts, the first ones, from which pairs are taken. label_noise: the share of the labels
    that are turned round, the same ones and more at a higher share.
    """
    replies, rewards = initial_replies(run, name).pairs, labels(run, name)
    examples = split(run).pairs[: run.recipe.reward_training.pairs]
    examples = examples[: round(pairs_share * len(examples))]
    rank = np.random.default_rng(1).permutation(len(examples))
    off_policy = off_policy_replies(run, examples)
    pairs = []
    for i, example in enumerate(examples):
        on_policy = rank[i] < round(share * len(examples))
        first, second = replies[i]["replies"] if on_policy else off_policy[i]
        first_reward, second_reward = rewards["pairs" if on_policy else "off_policy"][i]
        if first_reward != second_reward:
            chosen, rejected = (first, second) if first_reward > second_reward else (second, first)
            pairs.append(Preference(example.prompt, chosen, rejected))
    for i in np.random.default_rng(3).permutation(len(pairs))[: round(label_noise * len(pairs))]:
        pairs[i] = Preference(pairs[i].prompt, str(pairs[i].rejected), pairs[i].chosen)
    return pairs


@stage("reward-models/{name}/{key}", makes="model")
def reward_model(run: Run, key: str, name: str, spec: TrainedRewardModel, folder: pathlib.Path) -> Product:
    """The folder of a reward model trained from policy `name` on its `preferences`, as `spec` has them."""
    settings = run.recipe.reward_training
    start = run.folder / f"sft/{name}/model"
    tokenizer = policies.load_tokenizer(start)
    seed = spec.seed or 0
    with torch_seed(seed), quiet():  # the head is new, and begins with the same weights in every reward model of a seed
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            start, num_labels=1, dtype=getattr(torch, run.recipe.runtime.weights_dtype), use_safetensors=True
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = False
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    pairs = preferences(
        run, name, spec.on_policy, pairs_share=spec.pairs_share or 1.0, label_noise=spec.label_noise or 0.0
    )
    rows = [
        [encode(tokenizer, pair.prompt.text, reply) for reply in (pair.chosen, str(pair.rejected))] for pair in pairs
    ]
    trainer = Trainer(model, folder, settings.learning_rate, run.recipe.runtime, seed)
    for step, batch in supervised.batches(trainer, rows, settings, f"Reward model {key}", seed):
        loss = trainer.update(
            batch,
            lambda pairs: supervised.bradley_terry(model, tokenizer, pairs, settings.center_rewards_coef),
            lambda pair: max(map(len, pair)),
        )
        trainer.log(step, loss=loss)
    trainer.whole_model()
    policies.save(policies.Policy(model, tokenizer, {}, trainer.adam), folder / "model")
    return Product(record={"pairs": len(rows)}, trainer=trainer)
