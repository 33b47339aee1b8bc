"""The loop of policy gradient against the exact gradient, and what each of its parts must not depend on."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
transformers = pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from rvlib.lm import processes
from rvlib.lm.data import tiny
from rvlib.lm.enumerable.enumeration import Enumeration
from rvlib.lm.experiments import recipe
from rvlib.lm.models import policies, reward_functions
from rvlib.lm.models.loading import quiet
from rvlib.lm.models.reading import encode
from rvlib.lm.sampling import log_probs as log_probs_module
from rvlib.lm.sampling.encoding import encode_prompt, encode_reply
from rvlib.lm.sampling.generation import complete, generate
from rvlib.lm.sampling.log_probs import log_probs, reply_log_probs
from rvlib.lm.seeding import torch_seed
from rvlib.lm.training import policy_gradient, supervised
from rvlib.lm.training.trainer import Trainer
from rvlib.tabular import autoregressive
from rvlib.tabular.estimators import advantages

V, L = 3, 2
RUNTIME = recipe.load("tiny-4.1").runtime


@pytest.fixture(scope="module", autouse=True)
def data_folder(one_thread, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVLIB_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def policy():
    return policies.load_policy(tiny.TINY)


@dataclass(frozen=True)
class Enumerable:
    """An enumeration, its parameters, rewards and reference; its transformer, which writes only what it enumerates."""

    enumeration: Enumeration
    vectors: np.ndarray
    model: torch.nn.Module
    reward: np.ndarray
    reference: np.ndarray


def enumerable():
    enumeration = Enumeration(V, L, hidden=4)
    vectors, rng = enumeration.start([[1]]), np.random.default_rng(3)
    torch.nn.utils.vector_to_parameters(torch.tensor(vectors[0]), enumeration.model.parameters())
    model = enumeration.model
    head = torch.nn.Linear(model.config.n_embd, V, bias=False).double()
    head.weight.data.copy_(model.lm_head.weight.data[:V])
    model.lm_head = head
    reference = enumeration.logits(enumeration.start([[2]]))
    return Enumerable(enumeration, vectors, model, rng.uniform(-1, 1, V**L), reference)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("algorithm", ["reinforce", "rloo", "grpo", "dr_grpo"])
def test_the_mean_gradient_over_every_group_is_the_exact_gradient(algorithm, k):
    """`prop-loop-unbiased`, by the first part of `prop-ppo`."""
    kl_coef = 0.3
    world = enumerable()
    vectors, model, reward, reference = world.vectors, world.model, world.reward, world.reference
    replies = [list(y) for y in itertools.product(range(V), repeat=L)]
    new = reply_log_probs(policies.Policy(model, None, {}), [[V]] * len(replies), replies)
    log_probs, log_reference = new.detach().numpy(), autoregressive.log_probs(reference)[0, 0]
    assert np.allclose(log_probs, autoregressive.log_probs(world.enumeration.logits(vectors))[0, 0], atol=1e-6)

    regularised = reward - kl_coef * (log_probs - log_reference)
    groups = np.array(list(itertools.product(range(len(replies)), repeat=k)))
    a, chance = advantages(regularised[groups], algorithm), np.exp(log_probs)[groups].prod(-1)
    losses = policy_gradient.clipped_loss(new[groups], new.detach()[groups], torch.tensor(a), clip_range=0.2).mean(-1)
    (losses * torch.tensor(chance)).sum().backward()
    estimated = -np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])

    if algorithm == "grpo":  # what a reply is worth is its advantage's mean over the rest of its group
        rest_probs = np.array([np.exp(log_probs)[rest].prod() for rest in groups[: len(groups) // len(replies), 1:]])
        worth, coefficient = (a[:, 0].reshape(len(replies), -1) * rest_probs).sum(-1), 0.0
    else:
        factor = (k - 1) / k if algorithm == "dr_grpo" else 1
        worth, coefficient = reward * factor, kl_coef * factor
    exact = Enumeration(V, L, hidden=4).gradient(vectors, worth[None, None], reference, np.array([coefficient]))[0, 0]
    exact = exact[: len(estimated)]  # the rows of the head for tokens that are never written come last and have none
    assert np.abs(estimated).max() > 1e-2
    assert np.allclose(estimated, exact, atol=1e-5)


def test_the_ratio_is_clipped_only_on_the_side_that_would_gain():
    """`prop-ppo`: the objective is constant beyond 1 ± ε on that side alone."""
    new, old = torch.log(torch.tensor([2.0, 2.0, 0.5, 0.5])), torch.zeros(4)
    loss = policy_gradient.clipped_loss(new, old, torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.2)
    assert torch.allclose(loss, torch.tensor([-1.2, 2.0, -0.5, 0.8]))


def test_log_probabilities_do_not_depend_on_the_batch(policy):
    prompts = [encode_prompt(policy.tokenizer, p.text) for p in tiny.prompts(6, 0)]
    with torch_seed(1):
        replies = generate(policy, prompts, 1, max_new_tokens=12)
    together = reply_log_probs(policy, prompts, replies)
    alone = torch.cat([reply_log_probs(policy, [p], [y]) for p, y in zip(prompts, replies)])
    assert len({len(y) for y in replies}) > 1
    assert torch.allclose(together, alone, atol=1e-4)


def test_what_a_policy_would_have_to_write_ends(policy):
    prompt = tiny.prompts(1, 0)[0].text
    ids = encode_reply(policy, prompt, "the food was good .")
    assert policy.tokenizer.decode(ids) == "the food was good . [EOS]" or ids[-1] == policy.tokenizer.eos_token_id
    assert encode_prompt(policy.tokenizer, prompt) + ids == encode(policy.tokenizer, prompt, "the food was good .")


def negative_log_probs(policy, prompt_ids, completion_ids, weights=None):
    """A `loss_of` for `Trainer.update`: -ln π of some of the replies, each times its weight."""

    def loss_of(rows):
        logprobs = reply_log_probs(policy, [prompt_ids[i] for i in rows], [completion_ids[i] for i in rows])
        return -logprobs if weights is None else -weights[rows] * logprobs

    return loss_of


def test_a_micro_batch_of_one_is_a_batch_of_eight(tmp_path):
    rows, after = list(range(8)), []
    for micro_batch in (1, 8):
        policy = policies.load_policy(tiny.TINY)
        prompts = [encode_prompt(policy.tokenizer, p.text) for p in tiny.prompts(8, 0)]
        replies = [encode_reply(policy, "", text) for text in tiny.replies("plain", tiny.prompts(8, 0), 1)]
        trainer = Trainer(
            policy.model, tmp_path / str(micro_batch), 1e-3, RUNTIME.model_copy(update={"micro_batch": micro_batch})
        )
        loss = trainer.update(rows, negative_log_probs(policy, prompts, replies))
        moments = [trainer.adam.optimizer.state[p]["exp_avg"] for p in trainer.adam.parameters.values()]
        after.append((loss, torch.cat([m.ravel() for m in moments])))  # a tenth of the gradient
    assert after[0][0] == pytest.approx(after[1][0], rel=1e-5)
    assert torch.allclose(after[0][1], after[1][1], rtol=1e-3, atol=1e-6)


def test_rows_of_similar_length_go_through_together(tmp_path, policy):
    trainer, seen = Trainer(policy.model, tmp_path, 1e-3, RUNTIME.model_copy(update={"micro_batch": 2})), []

    def loss_of(rows):
        seen.append(rows)
        return -reply_log_probs(policy, [[5]] * len(rows), [[6] * length for length in rows])

    trainer.update([9, 1, 8, 2, 5], loss_of, length=lambda row: row)
    assert seen == [[1, 2], [5, 8], [9]]
    trainer.update([2, 1], loss_of, length=lambda row: row)  # at once: as they are
    assert seen[3:] == [[2, 1]]


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_weights_move_at_the_papers_learning_rate(tmp_path, policy, compute):
    settings = recipe.load("paper")
    trainer = Trainer(
        policy.model,
        tmp_path,
        settings.policy_gradient.learning_rate,
        RUNTIME.model_copy(update={"compute_dtype": compute}),
    )
    assert next(policy.model.parameters()).dtype == getattr(torch, compute)
    assert {value.dtype for value in trainer.adam.parameters.values()} == {torch.float32}
    before = {name: value.detach().clone() for name, value in trainer.adam.parameters.items()}
    prompts = [encode_prompt(policy.tokenizer, p.text) for p in tiny.prompts(8, 0)]
    with torch_seed(1):
        replies = generate(policy, prompts, 1, max_new_tokens=8)
    received = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in before.items()}
    for step in range(50):
        advantages = torch.tensor(np.random.default_rng(step).normal(size=8))
        trainer.update(list(range(8)), negative_log_probs(policy, prompts, replies, advantages))
        for name, value in trainer.adam.parameters.items():
            received[name] |= trainer.adam.optimizer.state[value]["exp_avg_sq"] > 0
    moved = sum(
        int(((value != before[name]) & received[name]).sum()) for name, value in trainer.adam.parameters.items()
    )
    assert moved >= 0.95 * sum(int(r.sum()) for r in received.values())
    whole = dict(trainer.whole_model().named_parameters())  # what is saved is what moved, not its rounded copy
    assert all(torch.equal(whole[name], value) for name, value in trainer.adam.parameters.items())


def test_a_run_in_bfloat16_goes_on_with_its_32_bit_weights(tmp_path):
    runtime = RUNTIME.model_copy(update={"compute_dtype": "bfloat16", "save_every": 1})

    def train(folder, steps):
        policy = policies.load_policy(tiny.TINY)
        trainer = Trainer(policy.model, folder, 1e-4, runtime)
        prompts = [encode_prompt(policy.tokenizer, p.text) for p in tiny.prompts(4, 0)]
        for _ in trainer.steps(steps, "test"):
            trainer.update(
                [0, 1, 2, 3],
                lambda rows: -reply_log_probs(policy, [prompts[i] for i in rows], [[9, 8, 1]] * len(rows)),
            )
        return trainer.adam.parameters, policy.model

    expected, _ = train(tmp_path / "a", 4)
    train(tmp_path / "b", 2)
    resumed, model = train(tmp_path / "b", 4)
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())
    assert all(torch.equal(copy, resumed[name].bfloat16()) for name, copy in model.named_parameters())


def test_a_training_that_goes_on_after_its_last_step_keeps_its_curves(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def train():
        trainer = Trainer(policies.load_policy(tiny.TINY).model, tmp_path, 1e-3, RUNTIME)
        for step in trainer.steps(3, None):
            trainer.log(step, loss=float(step))
        trainer.log(3, eval_kl=0.0)  # what a run logs last, and logs again if it was killed after its last checkpoint
        trainer.writer.close()

    train()
    train()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [0, 1, 2]
    assert [event.step for event in events.Scalars("eval_kl")] == [3]


def test_every_process_takes_part_in_as_many_micro_batches(tmp_path, policy, monkeypatch):
    """Three processes, one after another: what each takes is all rows, and none waits for another at the end."""
    trainer, taken = Trainer(policy.model, tmp_path, 0.0, RUNTIME.model_copy(update={"micro_batch": 2})), []
    rows = [700, 30, 650, 20, 10, 500, 40]
    monkeypatch.setattr(processes, "world", lambda: 3)
    monkeypatch.setattr(processes, "total", lambda number: number)
    monkeypatch.setattr(processes, "any_of", bool)
    monkeypatch.setattr(trainer, "_backward", lambda batch, rows, loss_of: taken[-1].append(batch) or torch.zeros(()))
    for rank in range(3):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        taken.append([])
        trainer.update(rows, lambda batch: None, length=lambda row: row)
    assert sorted(row for batches in taken for batch in batches for row in batch) == sorted(rows)
    assert len({len(batches) for batches in taken}) == 1


def test_texts_packed_in_one_row_have_the_log_probabilities_of_padded_ones(policy, monkeypatch):
    """By sdpa, which masks what flash-attn leaves out; flash-attn itself needs a GPU and is not tried."""
    prompt_ids, completion_ids = [[5, 6, 7], [8], [9, 3]], [[4, 6], [7, 7, 5, 3], [6]]

    def gradient():
        policy.model.zero_grad()
        logprobs = reply_log_probs(policy, prompt_ids, completion_ids)
        (logprobs * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
        return logprobs.detach(), torch.cat([value.grad.flatten() for value in policy.model.parameters()])

    padded, expected = gradient()
    monkeypatch.setattr(log_probs_module, "packs", lambda model: True)
    packed, actual = gradient()
    assert torch.allclose(packed, padded, atol=1e-5) and torch.allclose(actual, expected, atol=1e-5)


@dataclass(frozen=True)
class OneStep:
    """A step's numbers, the weights after it, and how many replies each pass of log-probabilities scored."""

    numbers: dict[str, float]
    weights: torch.Tensor
    scored: list[int]


def one_step(folder, monkeypatch, *, num_mini_batches, said):
    """A step on replies of the engine graph.

    said: whether the engine's own log-probabilities are used.
    """
    scored = []

    def counted(policy, prompt_ids, completion_ids, **settings):
        scored.append(len(completion_ids))
        return log_probs(policy, prompt_ids, completion_ids, **settings)

    def silent(*args, **settings):
        return replace(complete(*args, **settings), logprobs=None)

    monkeypatch.setattr(policy_gradient, "log_probs", counted)
    monkeypatch.setattr(policy_gradient, "complete", complete if said else silent)
    settings = recipe.load(
        "tiny-4.1",
        [
            "runtime.engine=graph",
            "policy_gradient.batch_size=16",
            f"policy_gradient.num_mini_batches={num_mini_batches}",
            "policy_gradient.max_new_tokens=12",
            "policy_gradient.kl_coef=0.5",
        ],
    )
    policy, ref_policy = policies.load_policy(tiny.TINY), policies.load_policy(tiny.TINY)
    with torch.no_grad():
        ref_policy.model.get_output_embeddings().weight.mul_(1.1)
    trainer = Trainer(policy.model, folder, 1e-2, settings.runtime)

    def teacher(prompts, replies):
        return np.array([[len(reply) / 10 for reply in group] for group in replies])

    numbers = policy_gradient.policy_gradient_step(
        trainer, policy, ref_policy, teacher, tiny.prompts(8, 0), settings, (0, 0, 0)
    )
    return OneStep(numbers, torch.nn.utils.parameters_to_vector(policy.model.parameters()), scored)


@pytest.mark.parametrize("num_mini_batches", [1, 2])
def test_no_log_probability_that_is_known_is_taken_again(tmp_path, monkeypatch, num_mini_batches):
    """Those of the engine give the same step, to rounding; only later mini-batches need a forward pass of their own."""
    silent = one_step(tmp_path / "a", monkeypatch, num_mini_batches=num_mini_batches, said=False)
    assert silent.scored == [16, 16]  # under the policy and the reference policy
    said = one_step(tmp_path / "b", monkeypatch, num_mini_batches=num_mini_batches, said=True)
    assert said.scored == ([16] if num_mini_batches == 1 else [16, 8])
    assert said.numbers == pytest.approx(silent.numbers, rel=1e-4, abs=1e-6) and said.numbers["kl"] != 0
    start = torch.nn.utils.parameters_to_vector(policies.load_policy(tiny.TINY).model.parameters())
    assert (said.weights - silent.weights).norm() < 0.01 * (silent.weights - start).norm()


def test_bfloat16_weights_would_not_move():
    """`prop-lost-steps`, at the paper's learning rate."""
    weights = torch.full((1000,), 0.02, dtype=torch.bfloat16)
    assert torch.equal(weights - 1e-7, weights)


def test_bradley_terry_recovers_a_reward_up_to_a_shift(tmp_path):
    policy = policies.load_policy(tiny.TINY)
    folder = tmp_path / "start"
    policies.save(policy, folder)
    with torch_seed(0), quiet():
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    model.config.pad_token_id = policy.tokenizer.pad_token_id
    words = tiny.ADJECTIVES["plain"].split()[:6]
    truth, rng = np.linspace(-1.5, 1.5, 6), np.random.default_rng(0)
    ids = [encode(policy.tokenizer, "how was the food ?", f"the food was {word} .") for word in words]
    trainer = Trainer(model, tmp_path / "rm", 3e-3, RUNTIME.model_copy(update={"micro_batch": 256}))
    for _ in range(150):
        pairs = rng.integers(0, 6, (256, 2))
        first = rng.random(256) < 1 / (1 + np.exp(truth[pairs[:, 1]] - truth[pairs[:, 0]]))
        rows = [[ids[i], ids[j]] if wins else [ids[j], ids[i]] for (i, j), wins in zip(pairs, first)]
        trainer.update(rows, lambda batch: supervised.bradley_terry(model, policy.tokenizer, batch, 0.0))
    learned = reward_functions.forward(model, policy.tokenizer, ids).detach().numpy()
    assert np.allclose(learned - learned.mean(), truth, atol=0.25)


def test_centring_pulls_the_sum_of_a_pair_to_zero():
    class Constant:
        def __call__(self, input_ids, **_):
            return type("Output", (), {"logits": input_ids.float().sum(1, keepdim=True)})()

        device, config = "cpu", policies.load_policy(tiny.TINY).model.config

    tokenizer = policies.load_tokenizer(tiny.TINY)
    plain, centred = (supervised.bradley_terry(Constant(), tokenizer, [[[7], [4]]], c) for c in (0.0, 0.01))
    assert plain.item() == pytest.approx(np.log1p(np.exp(-3)), rel=1e-5)
    assert (centred - plain).item() == pytest.approx(0.01 * 11**2, rel=1e-5)


def test_prompts_come_round_in_a_new_order_and_none_is_left_out():
    seen = [i for step in range(10) for i in policy_gradient.batch_indices(20, 4, step, seed=0)]
    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(20)) and seen[:20] != seen[20:]
    assert (
        policy_gradient.batch_indices(20, 4, 3, seed=0)
        == seen[12:16]
        != policy_gradient.batch_indices(20, 4, 3, seed=1)
    )


def test_policy_gradient_raises_the_reward_it_is_given(tmp_path):
    settings = recipe.load(
        "tiny-4.1",
        [
            "policy_gradient.epochs=12",
            "policy_gradient.learning_rate=0.002",
            "policy_gradient.kl_coef=0",
            "policy_gradient.max_new_tokens=4",
            "evaluation.per_epoch=1",
            "evaluation.prompts=16",
            "evaluation.num_generations=4",
        ],
    )
    policy, ref_policy = policies.load_policy(tiny.TINY), policies.load_policy(tiny.TINY)

    def wants_the(prompts, replies):
        return np.array([[reply.split().count("the") / 4 for reply in group] for group in replies])

    trainer = policy_gradient.train_policy(
        policy, ref_policy, wants_the, wants_the, tiny.prompts(64, 0), settings, tmp_path, seed=0, label="the"
    )
    proxy = [line["eval_proxy"] for line in trainer.lines() if "eval_proxy" in line]
    assert len(proxy) == 13 and proxy[-1] > proxy[0] + 0.3
    stopped = policy_gradient.train_policy(
        policy,
        ref_policy,
        wants_the,
        wants_the,
        tiny.prompts(64, 0),
        settings,
        tmp_path / "stopped",
        seed=0,
        label="the",
        on_step=lambda step, _: step == 2,
    )
    assert max(line["step"] for line in stopped.lines()) == 2
