"""The stages of an experiment before policy gradient: fine-tune, sample, label, train reward models, measure (section 4.1, arXiv 2503.15477).

Each is a function of a `run.Run` that writes one folder, and skips what is there. One pass of sampling serves every reward
model: two replies to each prompt kept for reward models, if any is trained on them, and the 10 to each of 500 prompts on which
all are measured.
"""

import functools
import json
from dataclasses import dataclass, replace

import numpy as np
import torch
import transformers

from rvlib import estimates as estimates
from rvlib import metrics
from rvlib.files import write_whole
from rvlib.lm import processes
from rvlib.lm.data import sources
from rvlib.lm.models import policies, reward_models
from rvlib.lm.models.loading import quiet
from rvlib.lm.sampling import engines
from rvlib.lm.sampling.encoding import encode_prompt, encode_reply
from rvlib.lm.sampling.log_probs import reply_log_probs
from rvlib.lm.sampling.replies import Sampling, read_replies, sample_replies
from rvlib.lm.seeding import torch_seed
from rvlib.lm.training.trainer import Trainer


@dataclass(frozen=True)
class Split:
    """The prompts of a run: `pairs` for reward models, with their off-policy pairs of replies, and `prompts` for policy gradient."""

    pairs: list
    prompts: list


@functools.lru_cache(maxsize=1)  # every stage asks
def split(run):
    """Prompts and off-policy pairs, in a fixed order; those of more tokens than the recipe allows are dropped."""
    data, policy = run.recipe.data, next(iter(run.recipe.policies.values()))
    tokenizer = policies.load_tokenizer(policy.model)
    examples = processes.only_first(lambda: sources.load_examples(data.preferences, data.prompts))

    if any(example.rejected is None for example in examples):
        raise ValueError(
            f"The data must be preferences, two replies to each prompt, got {data.preferences} with one; name preferences in data.preferences."
        )

    def short(text):
        return len(tokenizer(text)["input_ids"]) <= data.max_tokens

    examples = [e for e in examples if short(e.prompt.text) and short(e.chosen) and short(e.rejected)]
    if len(examples) < 4:
        raise ValueError(
            f"The data must have at least four examples of at most {data.max_tokens} tokens, got {len(examples)} of {data.preferences}; raise data.max_tokens or data.prompts."
        )
    order, cut = np.random.default_rng(0).permutation(len(examples)), round(data.reward_model_share * len(examples))
    shuffled = [examples[i] for i in order]
    return Split(shuffled[:cut], [e.prompt for e in shuffled[cut:]])


def sft(run, name):
    """The folder of an initial policy: fine-tuned on its demonstrations, or as it came, with a chat template either way."""
    spec, settings = run.recipe.policies[name], run.recipe.sft
    with run.stage(f"sft/{name}") as stage:
        if stage.todo:
            policy = policies.load_policy(spec.model, dtype=run.recipe.runtime.weights_dtype)
            policies.add_template(policy)
            tokens = 0
            if spec.demonstrations:
                demonstrations = processes.only_first(
                    lambda: sources.load_examples(spec.demonstrations, spec.count, seed=1)
                )
                rows = [
                    (encode_prompt(policy.tokenizer, e.prompt.text), encode_reply(policy, e.prompt.text, e.chosen))
                    for e in demonstrations
                ]
                rows = [row for row in rows if max(map(len, row)) <= run.recipe.data.max_tokens]
                trainer = Trainer(
                    policy.model, stage.folder, spec.learning_rate or settings.learning_rate, run.recipe.runtime
                )
                policy = replace(policy, sharing=trainer.adam)
                for step, batch in batches(trainer, rows, settings, f"Fine-tuning {name}"):
                    written = sum(len(reply) for _, reply in batch)

                    def loss_of(some, written=written, count=len(batch)):  # the mean over the tokens of the batch
                        return -reply_log_probs(policy, *map(list, zip(*some))) * count / written

                    trainer.log(
                        step, loss=trainer.update(batch, loss_of, lambda row: sum(map(len, row))), tokens=written
                    )
                    tokens += written
                trainer.whole_model()
            policies.save(policy, stage.folder / "model")
            stage.done(tokens=tokens)
            if spec.demonstrations:
                trainer.finish()
    return stage.folder / "model"


def samples(run, name):
    """Replies of an initial policy, (for pairs, for measuring): the records of `sample`, two for each prompt and `measure.outputs`.

    There are none for pairs where no reward model is trained on them.
    """
    recipe, parts = run.recipe, split(run)
    wanted = {
        "pairs": ([e.prompt for e in parts.pairs] if recipe.draws_pairs(name) else [], 2),
        "measure": (parts.prompts[: recipe.measure.prompts], recipe.measure.outputs),
    }
    with run.stage(f"samples/{name}") as stage:
        if stage.todo:
            policy, gradient = (
                policies.load_policy(run.folder / f"sft/{name}/model", dtype=recipe.dtype(name)),
                recipe.policy_gradient,
            )
            runtime = recipe.runtime
            for seed, (kind, (prompts, count)) in enumerate(wanted.items()):
                if not prompts:
                    continue
                at_once = runtime.batch_size * (
                    1 if runtime.engine in engines.PADDED else 8
                )  # in a file: enough for another reply to take the place of one that ends
                how = Sampling(count, gradient.max_new_tokens, gradient.temperature, max(at_once // count, 1), seed)
                sample_replies(
                    policy,
                    prompts,
                    stage.folder / kind,
                    how,
                    engine=runtime.engine,
                    batch_size=runtime.batch_size,
                    server=runtime.server,
                )
            stage.done()
    return [read_replies(stage.folder / kind, prompts) for kind, (prompts, _) in wanted.items()]


def labels(run, name):
    """Ground truth rewards: {"pairs": (prompts, 2), "measure": (prompts, outputs), "off_policy": (prompts, 2)}, lists, for a policy's replies; no "pairs" where `samples` draws none."""
    with run.stage(f"labels/{name}") as stage:
        path = stage.folder / "labels.json"
        if stage.todo:
            parts, (pairs, measured) = split(run), samples(run, name)
            judge = run.ground_truth()
            prompts = [e.prompt for e in parts.pairs]
            found = {
                "pairs": processes.score(
                    judge, prompts[: len(pairs)], [record["replies"] for record in pairs]
                ).tolist(),
                "off_policy": processes.score(judge, prompts, [[e.chosen, e.rejected] for e in parts.pairs]).tolist(),
                "measure": processes.score(
                    judge, parts.prompts[: len(measured)], [record["replies"] for record in measured]
                ).tolist(),
            }
            processes.only_first(lambda: write_whole(path, lambda partial: partial.write_text(json.dumps(found))))
            stage.done()
    return json.loads(path.read_text())


def preferences(run, name, share):
    """Pairs (prompt, preferred reply, other reply) labelled by the ground truth: on-policy ones for `share` of the prompts.

    The prompts that are on-policy at a lower share are so at a higher one too. A pair that the ground truth ties is left out.
    """
    parts, (pairs, _), found = split(run), samples(run, name), labels(run, name)
    parts = parts.pairs[: run.recipe.reward_training.pairs]
    rank = np.random.default_rng(1).permutation(len(parts))
    rows = []
    for i, example in enumerate(parts):
        on_policy = rank[i] < round(share * len(parts))
        replies = pairs[i]["replies"] if on_policy else [example.chosen, example.rejected]
        first, second = found["pairs" if on_policy else "off_policy"][i]
        if first != second:
            rows.append((example.prompt.text, *(replies if first > second else replies[::-1])))
    return rows


def reward_model(run, key, name):
    """The folder of a reward model trained for policy `name` by Bradley and Terry's loss: -ln σ(r(y) - r(y')) + c (r(y) + r(y'))²."""
    spec, settings = run.recipe.reward_models[key], run.recipe.reward_training
    name = spec.policy or name
    with run.stage(f"reward-models/{name}/{key}") as stage:
        if stage.todo:
            start = run.folder / f"sft/{name}/model"
            tokenizer = policies.load_tokenizer(start)
            with torch_seed(0), quiet():  # the head is new, and the same for all
                model = transformers.AutoModelForSequenceClassification.from_pretrained(
                    start, num_labels=1, dtype=getattr(torch, run.recipe.runtime.weights_dtype), use_safetensors=True
                )
            model.config.pad_token_id = tokenizer.pad_token_id
            model.config.use_cache = False
            model.to("cuda" if torch.cuda.is_available() else "cpu")
            rows = [
                [reward_models.encode(tokenizer, prompt, reply) for reply in replies]
                for prompt, *replies in preferences(run, name, spec.on_policy)
            ]
            trainer = Trainer(model, stage.folder, settings.learning_rate, run.recipe.runtime)
            for step, batch in batches(trainer, rows, settings, f"Reward model {key}"):
                loss = trainer.update(
                    batch,
                    lambda some: bradley_terry(model, tokenizer, some, settings.center_rewards_coef),
                    lambda pair: max(map(len, pair)),
                )
                trainer.log(step, loss=loss)
            trainer.whole_model()
            policies.save(policies.Policy(model, tokenizer, {}, trainer.adam), stage.folder / "model")
            stage.done(pairs=len(rows))
            trainer.finish()
    return stage.folder / "model"


def bradley_terry(model, tokenizer, pairs, center_rewards_coef):
    """Loss of each pair, a tensor (pairs,). pairs: [[ids of the preferred text, ids of the other], …]."""
    preferred, other = (
        reward_models.forward(model, tokenizer, [ids for pair in pairs for ids in pair]).view(-1, 2).unbind(1)
    )
    return -torch.nn.functional.logsigmoid(preferred - other) + center_rewards_coef * (preferred + other) ** 2


def measure(run, name):
    """What is known of each teacher of a policy before policy gradient, {teacher: {"normalizer", "rewards", properties with intervals}}.

    Rewards are normalised (`measure.scheme`) on the very replies they are measured on, as in the paper.
    """
    recipe = run.recipe
    with run.stage(f"measure/{name}") as stage:
        path = stage.folder / "measure.json"
        if stage.todo:
            parts, (_, measured), found = split(run), samples(run, name), labels(run, name)
            prompts, replies = parts.prompts[: len(measured)], [record["replies"] for record in measured]
            truth = np.array(found["measure"])
            off_policy_truth = np.array(found["off_policy"])
            teachers = {}
            for key in recipe.reward_models:
                score = run.reward(key, name)
                rewards = processes.score(score, prompts, replies)
                normalizers = {scheme: metrics.Normalizer.fit(rewards, scheme) for scheme in ("joint", "variance")}
                r = normalizers[recipe.measure.scheme].transform(rewards)
                off_policy = processes.score(
                    score, [e.prompt for e in parts.pairs], [[e.chosen, e.rejected] for e in parts.pairs]
                )
                values = {
                    "reward_variance": metrics.reward_variance(r),
                    "on_policy_accuracy": metrics.ranking_accuracy(r, truth),
                    "off_policy_accuracy": metrics.ranking_accuracy(off_policy, off_policy_truth),
                    "covariance": metrics.reward_covariance(r, truth),
                    "reward_variance_table_9": metrics.reward_variance(normalizers["variance"].transform(rewards)),
                }
                intervals = {what: estimates.over_prompts(value) for what, value in values.items()}
                n = normalizers[recipe.measure.scheme]
                teachers[key] = {"normalizer": {"mean": n.mean, "scale": n.scale}}
                teachers[key] |= {
                    f"per_prompt_{what}": np.round(values[what], 6).tolist()
                    for what in ("reward_variance", "covariance")
                }
                teachers[key] |= {what: [float(e.value), float(e.low), float(e.high)] for what, e in intervals.items()}
            processes.only_first(lambda: write_whole(path, lambda partial: partial.write_text(json.dumps(teachers))))
            stage.done(replies=int(truth.size))
    return json.loads(path.read_text())


def batches(trainer, rows, settings, label):
    """(step, batch of rows) over `settings.epochs`, in a permutation a pass; a last batch that is not full is left out."""
    check_batch(len(rows), settings, label)
    per_pass = len(rows) // settings.batch_size
    for step in trainer.steps(max(round(settings.epochs * per_pass), 1), label):
        number, place = divmod(step, per_pass)
        order = np.random.default_rng([7, number]).permutation(len(rows))
        yield step, [rows[i] for i in order[place * settings.batch_size : (place + 1) * settings.batch_size]]


def check_batch(rows, settings, label):
    """ValueError, one sentence, if there are fewer rows than one batch of `settings` has."""
    if rows < settings.batch_size:
        raise ValueError(
            f"There must be at least {settings.batch_size} rows for one batch ({label}), got {rows}; use more data, longer texts (data.max_tokens) or a smaller batch."
        )
