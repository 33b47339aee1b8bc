"""Engines that sample: the same distribution from each, the same replies from the same seed, and a sentence when one stops."""

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt")
transformers = pytest.importorskip("transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt")

from rvlib.lm import bench, engines, models, processes, recipe, sample, tiny  # noqa: E402
from rvlib.lm.train import draw_from  # noqa: E402

PROMPTS = [[5, 6, 7], [8, 9], [3, 4, 5, 6, 7, 8]]


@pytest.fixture(scope="module")
def policy():
    return models.load_policy(tiny.TINY)


def drawn(policy, engine, count, tokens=20, seed=0, **how):
    with draw_from(seed, 1):
        return sample.generate(policy, PROMPTS, count, max_new_tokens=tokens, engine=engine, **how)


@pytest.mark.parametrize("engine", ["generate", "static", "continuous"])
def test_replies_are_from_the_policy_itself(policy, engine):
    """First tokens of 1,500 replies to each prompt against the model's probabilities, at a temperature that is not one."""
    replies = drawn(policy, engine, 1500, tokens=1, temperature=0.7, rows=500)
    for i, prompt in enumerate(PROMPTS):
        with torch.inference_mode():
            probs = (policy.model(torch.tensor([prompt])).logits[0, -1] / 0.7).softmax(-1).double().numpy()
        seen = np.bincount([reply[0] for reply in replies[1500 * i : 1500 * (i + 1)]], minlength=len(probs))
        rare = 1500 * probs < 5
        expected, found = (np.append(values[~rare], values[rare].sum()) for values in (1500 * probs, seen))
        assert stats.chisquare(found[expected > 0], expected[expected > 0] * found.sum() / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize("engine", ["generate", "static", "continuous"])
def test_later_tokens_follow_from_earlier_ones(policy, engine):
    """The mean of ln π over replies is the entropy, whose estimate from ln π's own conditional entropies has the same mean."""
    replies = drawn(policy, engine, 200, tokens=12, rows=64)
    prompts = [prompt for prompt in PROMPTS for _ in range(200)]
    totals, entropies = np.array(sample.log_probs(policy, prompts, replies)), []
    with torch.inference_mode():
        for prompt, reply in zip(prompts, replies):
            logs = policy.model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1].log_softmax(-1).double()
            entropies.append(-(logs.exp() * logs).sum().item())
    difference = totals + np.array(entropies)  # a martingale: mean zero if every token is from the model's distribution given those before
    assert abs(difference.mean()) < 4 * difference.std(ddof=1) / np.sqrt(len(difference))


@pytest.mark.parametrize("engine", ["generate", "static", "continuous"])
def test_each_reply_ends_once(policy, engine):
    ends = sample.endings(policy)
    replies = drawn(policy, engine, 40, tokens=30, rows=16)
    assert len(replies) == 120 and all(len(reply) == 30 or reply[-1] in ends for reply in replies)
    assert not any(token in ends for reply in replies for token in reply[:-1])


@pytest.mark.parametrize("engine", ["static", "continuous"])
def test_the_same_seed_gives_the_same_replies_and_leaves_everything_as_it_was(policy, engine):
    state, attention = torch.random.get_rng_state(), policy.model.config._attn_implementation
    one, two, other = (drawn(policy, engine, 10, seed=seed, rows=8) for seed in (3, 3, 4))
    assert one == two != other
    assert torch.equal(torch.random.get_rng_state(), state) and policy.model.config._attn_implementation == attention
    assert not hasattr(policy.model, "_cached_continuous_batching_manager") and all(value.requires_grad for value in policy.model.parameters())


def test_an_engine_that_stops_is_a_sentence(policy, monkeypatch):
    from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager

    def fail(error):
        def step(self):
            raise error

        monkeypatch.setattr(ContinuousBatchingManager, "_generation_step", step)

    fail(ValueError("a page is missing"))
    with pytest.raises(RuntimeError, match=r"All 30 replies must be drawn, but continuous batching stopped .*a page is missing.*; set limits.engine to generate\.$"):
        drawn(policy, "continuous", 10)
    fail(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(torch.OutOfMemoryError):
        drawn(policy, "continuous", 10)


@pytest.mark.parametrize("architecture", [{}, {"model_type": "gpt_neox", "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 512}])
@pytest.mark.parametrize("engine", ["static", "continuous"])
def test_the_papers_families_are_sampled(monkeypatch, architecture, engine):
    monkeypatch.setitem(bench.ARCHITECTURES, "small", architecture or bench.ARCHITECTURES["tiny"])
    changes = ["policy_gradient.max_new_tokens=24", "policy_gradient.batch=8", f"limits.engine={engine}", "limits.rows=4"]
    found = bench.Bench("small", recipe.load("tiny-4.1", changes), "cpu").sampling()
    assert len(found["lengths"]) == 8 and 0 < found["steps"] <= 48 and found["bytes"] > 0


def test_adapters_are_sampled_with_their_weights(policy):
    pytest.importorskip("peft", reason="peft is not installed: pip install -r requirements-lm.txt")
    from rvlib.lm import optimizer

    adapted = models.load_policy(tiny.TINY)
    optimizer.add_adapter(adapted, recipe.LoRA(rank=4, alpha=8))
    same = drawn(adapted, "continuous", 5)
    with torch.no_grad():
        for name, value in adapted.model.named_parameters():
            if "lora_B" in name:
                value.normal_()
    assert same == drawn(policy, "continuous", 5) != drawn(adapted, "continuous", 5)


def test_several_processes_draw_what_one_does(monkeypatch):
    monkeypatch.setattr(processes, "world", lambda: 2)
    with pytest.raises(ValueError, match="limits.engine"):
        processes.check(recipe.load("tiny-4.1", ["limits.engine=continuous"]).limits)


def test_pages_are_transformers_own():
    config = transformers.generation.configuration_utils.ContinuousBatchingConfig()
    assert getattr(config, "page_size", None) in (engines.PAGE, None)
