"""Training in little memory: steps of 1e-7 move bfloat16 weights, recomputing changes nothing, new adapters add 0."""

import json
import re
import sys
from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from rvlib.lm import missing
from rvlib.lm.data import tiny
from rvlib.lm.experiments import recipe
from rvlib.lm.models import policies
from rvlib.lm.models.adapters import add_adapter, without_adapter
from rvlib.lm.optim import adam
from rvlib.lm.sampling.encoding import encode_prompt
from rvlib.lm.sampling.generation import generate
from rvlib.lm.sampling.log_probs import log_probs, reply_log_probs
from rvlib.lm.seeding import torch_seed
from rvlib.lm.training.policy_gradient import evaluate, train_policy
from rvlib.lm.training.trainer import Trainer

WITHOUT = "is not installed: pip install -r requirements-lm.txt"
FULL = recipe.load("tiny-4.1").runtime.model_copy(update={"micro_batch": 4, "save_every": 1})
EIGHT = FULL.model_copy(update={"weights_dtype": "bfloat16", "compute_dtype": "bfloat16", "optimizer": "adam8bit"})
UNSAVED = {"micro_batch": 8, "save_every": 1000}  # for runs that are not gone on with
SETTINGS = {"paper": recipe.load("paper").policy_gradient.learning_rate}


@dataclass(frozen=True)
class Learnt:
    """The weights at the start and at the end of a training, by name, in float64, and its trainer."""

    start: dict[str, torch.Tensor]
    end: dict[str, torch.Tensor]
    trainer: Trainer


def learn(folder, runtime, steps, rate=SETTINGS["paper"], policy=None):
    """A tiny policy trained on losses of replies that differ from step to step.

    Returns a `Learnt`.
    """
    policy = policy or policies.load_policy(tiny.TINY, dtype="bfloat16")
    if runtime.weights_dtype == "float32":
        policy.model.float()
    trainer = Trainer(policy.model, folder, rate, runtime)
    prompts = [encode_prompt(policy.tokenizer, p.text) for p in tiny.prompts(8, 0)]
    with torch_seed(1):
        replies = [[int(t) for t in torch.randint(4, 60, (6,))] for _ in prompts]

    def weights():
        return {name: value.detach().double().clone() for name, value in trainer.adam.parameters.items()}

    start = weights()
    for step in trainer.steps(steps, "test"):
        advantages = torch.tensor(1 + np.random.default_rng(step).normal(size=8))

        def loss_of(rows, advantages=advantages):
            return -advantages[rows] * reply_log_probs(policy, [prompts[i] for i in rows], [replies[i] for i in rows])

        trainer.update(list(range(8)), loss_of)
    return Learnt(start, weights(), trainer)


# Steps of 1e-7 in bfloat16


def spacing(values):
    """The distance from each value (float64) to the next bfloat16 number further from zero: 8 bits of significand."""
    return 2.0 ** (torch.frexp(values)[1] - 8)


def test_stochastic_rounding_is_right_on_average_and_never_farther_than_a_neighbour():
    """`prop-stochastic-rounding`: the mean of one rounding."""
    rounded = pytest.importorskip("torchao.optim.quant_utils", reason=f"torchao {WITHOUT}")._fp32_to_bf16_sr
    value = torch.full((400_000,), 0.7 + 1e-4)
    with torch_seed(0):
        drawn = rounded(value).double()
    gap, low = 2.0**-8, np.floor((0.7 + 1e-4) * 2**8) / 2**8
    assert set(drawn.unique().tolist()) == {low, low + gap}
    share = float(value[0].double() - low) / gap
    assert abs((drawn == low + gap).double().mean() - share) < 5 * np.sqrt(share * (1 - share) / len(value))


def test_a_weight_whose_step_is_below_half_the_spacing_stays_and_at_random_it_moves(tmp_path):
    """`prop-lost-steps`, on both sides of the unit roundoff: w + η is w where η is below half the distance to its
    neighbour, not above it.
    """
    for weight in (0.02, 0.5, 1.0, 3.0):
        w = torch.tensor(weight, dtype=torch.bfloat16)
        half = float(spacing(w.double())) / 2
        assert w + 0.9 * half == w and w + 1.1 * half != w


@pytest.fixture(scope="module")
def a_hundred_steps(tmp_path_factory):
    """What a hundred steps of the paper's rate in 32 bits have made."""
    return learn(tmp_path_factory.mktemp("exact"), FULL.model_copy(update=UNSAVED), 100)


@pytest.mark.parametrize("kind", ["adam8bit", "stochastic rounding alone"])
def test_bfloat16_rounded_at_random_follows_32_bits_and_rounded_to_nearest_does_not_move(
    tmp_path, kind, monkeypatch, a_hundred_steps
):
    """`prop-stochastic-rounding` and `prop-lost-steps`: 100 steps of 1e-7, from the same weights.

    The projection of one displacement on the other, over its own length squared, is 1 for equal ones; the standard
    deviation that rounding gives it is known: each step of η moves a weight by its spacing u with probability η/u.
    """
    optim = pytest.importorskip("torchao.optim", reason=f"torchao {WITHOUT}")
    if kind != "adam8bit":  # torchao's Adam with moments that are not quantised
        monkeypatch.setattr(optim, "AdamW8bit", optim._AdamW)
    eight = EIGHT.model_copy(update=UNSAVED)
    learnt = learn(tmp_path / "ours", eight, 100)
    assert {value.dtype for value in learnt.trainer.adam.parameters.values()} == {torch.bfloat16}
    names = list(learnt.start)
    start, exact, stochastic = (
        torch.cat([weights[name].ravel() for name in names])
        for weights in (a_hundred_steps.start, a_hundred_steps.end, learnt.end)
    )
    moved, followed = exact - start, stochastic - start
    projection = float(followed @ moved / (moved @ moved))
    # No weight's steps are together longer, so none of its displacement's variance is above path × spacing.
    path = 100 * SETTINGS["paper"]
    deviation = float((moved**2 * spacing(start.abs().clamp(min=2.0**-30)) * path).sum().sqrt() / (moved @ moved))
    assert deviation < 0.05  # else the test could not tell moving from standing still
    assert projection == pytest.approx(1, abs=4 * deviation + 0.05)

    class Nearest(optim._AdamW):
        def __init__(self, *a, bf16_stochastic_round, **k):
            super().__init__(*a, **k)

    monkeypatch.setattr(optim, "AdamW8bit", Nearest)
    stuck = learn(tmp_path / "nearest", eight, 100).end
    stuck = torch.cat([stuck[name].ravel() for name in names]) - start
    # But for weights near zero.
    assert abs(float(stuck @ moved / (moved @ moved))) < 0.01 and (stuck != 0).double().mean() < 0.001


def test_8_bit_moments_go_on_bit_for_bit(tmp_path):
    pytest.importorskip("torchao", reason=f"torchao {WITHOUT}")
    whole = learn(tmp_path / "a", EIGHT, 6, 1e-3)
    # Tensors of 4096 values and more.
    assert any(hasattr(state["exp_avg"], "codes") for state in whole.trainer.adam.optimizer.state.values())
    learn(tmp_path / "b", EIGHT, 3, 1e-3)
    resumed = learn(tmp_path / "b", EIGHT, 6, 1e-3)
    assert all(torch.equal(resumed.end[name], value) for name, value in whole.end.items())
    for name in whole.trainer.adam.parameters:
        expected, restored = (
            adam.flat_state(learnt.trainer.adam.optimizer.state[learnt.trainer.adam.parameters[name]])
            for learnt in (whole, resumed)
        )
        assert expected.keys() == restored.keys() and all(torch.equal(expected[key], restored[key]) for key in expected)


def trainer_of_one_weight(folder, runtime=FULL, seed=0):
    """A trainer of a tiny policy, and a loss of it by one of its weights, with a function of that weight inside."""
    model = policies.load_policy(tiny.TINY, dtype=runtime.weights_dtype).model
    weight = next(model.parameters())

    def loss_of(function):
        return lambda rows: function(weight.flatten()[0]).float() * torch.ones(len(rows))

    return Trainer(model, folder, 1e-3, runtime, seed), loss_of


def test_rounding_differs_between_seeds_steps_and_mini_batches_and_is_the_same_again(tmp_path, monkeypatch):
    pytest.importorskip("torchao", reason=f"torchao {WITHOUT}")

    def streams(seed, first=0):
        trainer, loss_of = trainer_of_one_weight(tmp_path / str(seed), EIGHT, seed)
        drawn = []
        monkeypatch.setattr(trainer.adam.optimizer, "step", lambda: drawn.append(float(torch.rand(()))))
        for trainer.step in range(first, 3):
            trainer.updates = 0
            for _mini_batch in range(2):
                trainer.update([0, 1], loss_of(torch.square))
        return drawn

    drawn = [streams(seed) for seed in range(3)]
    assert len({number for numbers in drawn for number in numbers}) == 3 * 3 * 2
    assert streams(1) == drawn[1] and streams(1, first=1) == drawn[1][2:]  # as when it goes on after a step


@pytest.mark.parametrize("mini_batch", [0, 1])
def test_a_gradient_that_is_not_finite_moves_nothing_and_the_newest_checkpoint_is_good(tmp_path, mini_batch):
    trainer, loss_of = trainer_of_one_weight(tmp_path)
    with pytest.raises(FloatingPointError) as error:
        for step in trainer.steps(3, None):
            for i in range(2):
                # Of √(0·w) the value is 0, and the derivative is not a number.
                bad = step == 1 and i == mini_batch
                trainer.update([0, 1], loss_of((lambda w: torch.sqrt(w * 0)) if bad else torch.square))
    newest = max(tmp_path.glob("checkpoint-*"))
    assert str(error.value) == (
        f"The norm of the gradient must be finite, got nan at step 1; the state is saved in {newest}; "
        "lower the learning rate, or look at the rewards."
    )
    assert all(value.isfinite().all() for value in trainer.adam.parameters.values())
    again, _ = trainer_of_one_weight(tmp_path)
    assert again.resume() == 1
    assert all(value.isfinite().all() for value in again.adam.parameters.values())


def test_memory_that_runs_out_in_adams_step_ends_the_training(tmp_path, monkeypatch):
    """Some weights may have moved by then, and would move twice."""
    trainer, loss_of = trainer_of_one_weight(tmp_path)
    tried = []

    def step():
        tried.append(trainer.step)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(MemoryError, match="^Adam's step must fit in memory, but did not at step 1; the state is saved"):
        for trainer_step in trainer.steps(3, None):
            if trainer_step == 1:
                monkeypatch.setattr(trainer.adam.optimizer, "step", step)
            trainer.update([0, 1], loss_of(torch.square))
    assert tried == [1] and trainer.micro_batch == 4
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-0000001.safetensors"]


def test_a_fused_step_counts_where_the_weights_are():
    """As on a GPU, where one kernel takes the step: without it the first step after a resume would be refused."""
    value = torch.nn.Parameter(torch.ones(8, device="meta"))
    kept = {"step": torch.tensor(3.0), "exp_avg": torch.zeros(8), "exp_avg_sq": torch.zeros(8)}

    def devices(fused=False):
        return {key: tensor.device.type for key, tensor in adam.unflat_state(dict(kept), value, fused).items()}

    assert set(devices(fused=True).values()) == {"meta"} and devices()["step"] == "cpu"


def test_a_checkpoint_of_8_bits_is_not_taken_for_one_of_32(tmp_path):
    pytest.importorskip("torchao", reason=f"torchao {WITHOUT}")
    learn(tmp_path, EIGHT, 1)
    with pytest.raises(
        ValueError, match="must hold the state of 32-bit Adam, got 8-bit moments; set runtime.optimizer to adam8bit"
    ):
        learn(tmp_path, FULL, 2)


@pytest.mark.parametrize("change", ["runtime.weights_dtype=bfloat16", "runtime.optimizer=adam8bit"])
def test_bfloat16_weights_without_stochastic_rounding_are_refused(change):
    with pytest.raises(
        ValueError,
        match="weights_dtype and compute_dtype must be bfloat16 with the optimizer adam8bit, "
        "and weights_dtype float32 with adam",
    ) as error:
        recipe.load("tiny-4.1", [change])
    assert "\n" not in str(error.value)


def test_a_package_that_is_missing_is_one_sentence(tmp_path, monkeypatch):
    policy = policies.load_policy(tiny.TINY, dtype="bfloat16")
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModuleNotFoundError) as error:
        learn(tmp_path, EIGHT, 1, policy=policy)
    assert re.search("need the package torchao.*pip install -r requirements-lm.txt", str(missing(error.value.name)))
    with pytest.raises(ModuleNotFoundError) as error:
        add_adapter(policy, recipe.LoRA(rank=2, alpha=4))
    assert "need the package peft" in str(missing(error.value.name))


# Gradient checkpointing


def test_activations_computed_twice_are_fewer_and_give_the_same_gradient_and_replies(tmp_path):
    after, kept = [], []
    for on in (False, True):
        policy = policies.load_policy(tiny.TINY)
        count = 0

        def pack(tensor):
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            weights = learn(
                tmp_path / str(on), FULL.model_copy(update={"gradient_checkpointing": on}), 2, 1e-3, policy
            ).end
        with torch_seed(3):
            replies = generate(
                policy, [encode_prompt(policy.tokenizer, p.text) for p in tiny.prompts(3, 0)], 2, max_new_tokens=8
            )
        after.append((weights, replies)), kept.append(count)
        assert not policy.model.training and policy.model.config.use_cache
    assert all(torch.allclose(after[0][0][name], value, atol=1e-6) for name, value in after[1][0].items())
    assert after[0][1] == after[1][1] and kept[1] < kept[0]


# LoRA


def test_an_adapter_starts_as_the_reference_learns_alone_and_is_saved_alone(tmp_path):
    pytest.importorskip("peft", reason=f"peft {WITHOUT}")
    settings = recipe.load(
        "tiny-4.1",
        [
            "policy_gradient.epochs=2",
            "policy_gradient.learning_rate=1e-2",
            "evaluation.prompts=4",
            "policy_gradient.max_new_tokens=6",
        ],
    )
    folder = tmp_path / "start"
    policies.save(policies.load_policy(tiny.TINY), folder)
    policy, start = policies.load_policy(folder), policies.load_policy(folder)
    weights = {name: value.clone() for name, value in policy.model.named_parameters()}
    add_adapter(policy, recipe.LoRA(rank=4, alpha=8))
    prompts, long = (
        tiny.prompts(16, 0),
        lambda prompts, replies: np.array([[len(text.split()) / 6 for text in group] for group in replies]),
    )
    assert evaluate(policy, None, {"proxy": long}, prompts[:4], settings, (0,))["kl"] == 0
    trainer = train_policy(policy, None, long, long, prompts, settings, tmp_path / "run", seed=0, label="adapter")
    assert trainer.lines()[-1]["eval_kl"] > 0
    assert trainer.adam.parameters and all("lora" in name for name in trainer.adam.parameters)
    assert all(
        torch.equal(value, weights[name.replace(".base_layer", "")])
        for name, value in policy.model.named_parameters()
        if "lora" not in name
    )
    trainer.whole_model()
    policies.save(policy, tmp_path / "model")
    assert (
        json.loads((tmp_path / "model/adapter_config.json").read_text())["r"] == 4
        and not (tmp_path / "model/model.safetensors").exists()
    )
    again, ids = (
        policies.load_policy(tmp_path / "model"),
        [encode_prompt(policy.tokenizer, p.text) for p in prompts[:3]],
    )
    trained, loaded, first = (log_probs(each, ids, [[9, 8, 1]] * 3) for each in (policy, again, start))
    assert np.allclose(trained, loaded, atol=1e-5) and not np.allclose(trained, first, atol=1e-3)
    with without_adapter(policy.model):
        assert np.allclose(log_probs(policy, ids, [[9, 8, 1]] * 3), first, atol=1e-5)
