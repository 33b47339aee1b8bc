"""Engines that sample: the same distribution from each, the same replies from a seed, a sentence when one stops."""

import collections
import http.server
import json
import os
import threading
from unittest import mock

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
transformers = pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager

from rvlib.lm import processes
from rvlib.lm.data import tiny
from rvlib.lm.experiments import recipe
from rvlib.lm.experiments.bench import bench
from rvlib.lm.models import policies
from rvlib.lm.models.adapters import add_adapter
from rvlib.lm.optim import adam
from rvlib.lm.sampling import engines
from rvlib.lm.sampling.encoding import end_token_ids
from rvlib.lm.sampling.generation import generate
from rvlib.lm.sampling.log_probs import log_probs
from rvlib.lm.seeding import torch_seed
from rvlib.lm.training import policy_gradient

PROMPTS = [[5, 6, 7], [8, 9], [3, 4, 5, 6, 7, 8]]


@pytest.fixture(scope="module")
def policy():
    return policies.load_policy(tiny.TINY)


def drawn(policy, engine, num_generations, tokens=20, seed=0, **settings):
    with torch_seed(seed, 1):
        return generate(policy, PROMPTS, num_generations, max_new_tokens=tokens, engine=engine, **settings)


@pytest.mark.parametrize("engine", ["generate", "graph", "continuous"])
def test_replies_are_from_the_policy_itself(policy, engine):
    """First tokens of 1,500 replies to each prompt against the model's probabilities, at a temperature of 0.7."""
    replies = drawn(policy, engine, 1500, tokens=1, temperature=0.7, batch_size=500)
    for i, prompt in enumerate(PROMPTS):
        with torch.inference_mode():
            probs = (policy.model(torch.tensor([prompt])).logits[0, -1] / 0.7).softmax(-1).double().numpy()
        seen = np.bincount([reply[0] for reply in replies[1500 * i : 1500 * (i + 1)]], minlength=len(probs))
        rare = 1500 * probs < 5
        expected, observed = (np.append(values[~rare], values[rare].sum()) for values in (1500 * probs, seen))
        assert (
            stats.chisquare(observed[expected > 0], expected[expected > 0] * observed.sum() / expected.sum()).pvalue
            > 1e-3
        )


@pytest.mark.parametrize("engine", ["generate", "graph", "continuous"])
def test_later_tokens_follow_from_earlier_ones(policy, engine):
    """The mean of -ln π over replies is the entropy, as is the mean of the sum of ln π's own conditional entropies."""
    replies = drawn(policy, engine, 200, tokens=12, batch_size=64)
    prompts = [prompt for prompt in PROMPTS for _ in range(200)]
    totals, entropies = np.array(log_probs(policy, prompts, replies)), []
    with torch.inference_mode():
        for prompt, reply in zip(prompts, replies):
            logs = policy.model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1].log_softmax(-1).double()
            entropies.append(-(logs.exp() * logs).sum().item())
    difference = totals + np.array(
        entropies
    )  # a martingale: mean zero if every token is from the model's distribution given those before
    assert abs(difference.mean()) < 4 * difference.std(ddof=1) / np.sqrt(len(difference))


@pytest.mark.parametrize("engine", ["generate", "graph", "continuous"])
def test_each_reply_ends_once(policy, engine):
    ends = end_token_ids(policy)
    replies = drawn(policy, engine, 40, tokens=30, batch_size=16)
    assert len(replies) == 120 and all(len(reply) == 30 or reply[-1] in ends for reply in replies)
    assert not any(token in ends for reply in replies for token in reply[:-1])


@pytest.mark.parametrize("engine", ["graph", "continuous"])
def test_the_same_seed_gives_the_same_replies_and_leaves_everything_as_it_was(policy, engine):
    state, attention = torch.random.get_rng_state(), policy.model.config._attn_implementation
    first, again, other = (drawn(policy, engine, 10, seed=seed, batch_size=8) for seed in (3, 3, 4))
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), state) and policy.model.config._attn_implementation == attention
    assert not hasattr(policy.model, "_cached_continuous_batching_manager") and all(
        value.requires_grad for value in policy.model.parameters()
    )


def test_an_engine_that_stops_is_a_sentence(policy, monkeypatch):
    def fail(error):
        def step(self):
            raise error

        monkeypatch.setattr(ContinuousBatchingManager, "_generation_step", step)

    fail(ValueError("a page is missing"))
    with pytest.raises(
        RuntimeError,
        match="All 30 replies must be drawn, but continuous batching stopped .*a page is missing.*; "
        r"draw by the engine generate \(runtime.engine of a recipe, --engine of an audit\)\.$",
    ):
        drawn(policy, "continuous", 10)
    fail(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(torch.OutOfMemoryError):
        drawn(policy, "continuous", 10)


@pytest.mark.parametrize(
    "architecture",
    [
        {},
        {
            "model_type": "gpt_neox",
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 512,
        },
    ],
)
@pytest.mark.parametrize("engine", ["graph", "continuous"])
def test_the_papers_families_are_sampled(monkeypatch, architecture, engine):
    monkeypatch.setitem(bench.ARCHITECTURES, "small", architecture or bench.ARCHITECTURES["tiny"])
    changes = [
        "policy_gradient.max_new_tokens=24",
        "policy_gradient.batch_size=8",
        f"runtime.engine={engine}",
        "runtime.batch_size=4",
    ]
    result = bench.Bench("small", recipe.load("tiny-4.1", changes), "cpu").sampling(engine, 8, 4)
    assert len(result["lengths"]) == 8 and 0 < result["steps"] <= 48 and result["bytes"] > 0


def test_adapters_are_sampled_with_their_weights(policy):
    pytest.importorskip("peft", reason="peft is not installed: pip install -r requirements-lm.txt")

    adapted = policies.load_policy(tiny.TINY)
    add_adapter(adapted, recipe.LoRA(rank=4, alpha=8))
    same = drawn(adapted, "continuous", 5)
    with torch.no_grad():
        for name, value in adapted.model.named_parameters():
            if "lora_B" in name:
                value.normal_()
    assert same == drawn(policy, "continuous", 5) != drawn(adapted, "continuous", 5)


def test_several_processes_draw_what_one_does(monkeypatch):
    monkeypatch.setattr(processes, "world", lambda: 2)
    runtime = recipe.load("tiny-4.1", ["runtime.engine=continuous"]).runtime
    with pytest.raises(ValueError, match="runtime.engine"):
        processes.check(runtime.engine, runtime.optimizer)


def test_pages_are_transformers_own():
    config = transformers.generation.configuration_utils.ContinuousBatchingConfig()
    assert getattr(config, "page_size", None) in (engines.PAGE, None)


# A vLLM server, of which there is a stand-in here: what vLLM and the transfer between GPUs do, it does by its model


@pytest.fixture
def server(monkeypatch):
    """Its address, its policy, and how often it was sent weights and forgot prefixes."""
    client = pytest.importorskip(
        "trl.generation.vllm_client", reason="TRL is not installed: pip install -r requirements-lm.txt"
    )
    served, seen = policies.load_policy(tiny.TINY), {"weights": 0, "forgotten": 0}

    class Stub(http.server.BaseHTTPRequestHandler):
        def answer(self, content):
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.answer({"data": [{"id": "tiny"}]})

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
            if self.path == "/reset_prefix_cache":
                seen["forgotten"] += 1
                return self.answer({"success": True})
            assert (
                asked["top_p"] == 1.0
                and asked["top_k"] == 0
                and asked["stop_token_ids"] == end_token_ids(served)
                and "seed" not in asked
            )
            with torch_seed(0, len(asked["prompt"])):
                replies = generate(
                    served,
                    asked["prompt"],
                    asked["n"],
                    max_new_tokens=asked["max_tokens"],
                    temperature=asked["temperature"],
                )
            prompts = [prompt for prompt in asked["prompt"] for _ in range(asked["n"])]
            self.answer(
                {
                    "choices": [
                        {"prompt_token_ids": prompt, "token_ids": reply, "logprobs": None}
                        for prompt, reply in zip(prompts, replies)
                    ]
                }
            )

        def log_message(self, *_):
            """Nothing: the test's output is its own."""

    def copy(self, model):
        seen["weights"] += 1
        served.model.load_state_dict(model.state_dict())

    monkeypatch.setattr(client, "is_vllm_available", lambda *_, **__: True)
    monkeypatch.setattr(client.VLLMClient, "init_communicator", lambda self, device: None)
    monkeypatch.setattr(client.VLLMClient, "update_model_params", copy)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stub) as stand_in:
        threading.Thread(target=stand_in.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{stand_in.server_address[1]}", served, seen
        stand_in.shutdown()


def test_a_server_samples_the_policy_as_it_is_now(server):
    address, served, seen = server
    policy = policies.load_policy(tiny.TINY)

    def ask():
        return generate(policy, PROMPTS, 4, max_new_tokens=6, engine="vllm", server=address)

    with torch_seed(0, 3):
        expected = generate(policy, PROMPTS, 4, max_new_tokens=6)
    assert ask() == ask() == expected and seen == {"weights": 1, "forgotten": 1}
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.mul_(1.5)
    with torch_seed(0, 3):
        moved = generate(policy, PROMPTS, 4, max_new_tokens=6)
    assert ask() == moved != expected and seen == {"weights": 2, "forgotten": 2}


@pytest.mark.parametrize("fused", [False, True])  # one kernel for all of Adam, as on a GPU, counts no change by itself
def test_a_step_of_policy_gradient_with_a_server_sends_the_weights_once(server, tmp_path, monkeypatch, fused):
    monkeypatch.setattr(
        adam, "make_adam", lambda parameters, rate, runtime: torch.optim.AdamW(parameters, lr=rate, fused=fused)
    )
    address, served, seen = server
    changes = [
        "runtime.engine=vllm",
        f"runtime.server={address}",
        "policy_gradient.batch_size=8",
        "policy_gradient.max_new_tokens=8",
    ]
    benchmark = bench.Bench("tiny", recipe.load("tiny-4.1", changes), "cpu")
    policy = policies.load_policy(tiny.TINY)
    benchmark.policy, benchmark.reference = policy, policies.load_policy(tiny.TINY)
    trainer = bench.Trainer(policy.model, tmp_path, 1e-3, benchmark.recipe.runtime)
    prompts = tiny.prompts(4, 0)

    def teacher(prompts, replies):
        return np.random.default_rng(0).normal(size=(len(prompts), len(replies[0])))

    for step in range(3):
        policy_gradient.policy_gradient_step(
            trainer, policy, benchmark.reference, teacher, prompts, benchmark.recipe, (0, step, 0)
        )
    assert seen["weights"] == 3
    assert not torch.equal(
        served.model.get_input_embeddings().weight, policy.model.get_input_embeddings().weight
    )  # the last update is sent when it is needed


@pytest.fixture
def colocated(monkeypatch):
    """A stand-in for vLLM in this process: the weights it was given, and what it was asked."""
    generation = pytest.importorskip(
        "trl.generation.vllm_generation", reason="TRL is not installed: pip install -r requirements-lm.txt"
    )
    served, seen = policies.load_policy(tiny.TINY), {"loads": 0, "calls": [], "asleep": []}
    output = collections.namedtuple("output", "prompt_token_ids outputs")
    completion = collections.namedtuple("completion", "token_ids logprobs")

    class Llm:
        def __init__(self, **settings):
            seen["settings"] = settings
            for part in ("llm_engine", "model_executor", "driver_worker", "model_runner", "model"):
                setattr(self, part, self)  # where TRL looks for the model

        def load_weights(self, named):
            for name, value in named:
                served.model.get_parameter(name).data.copy_(value)
                seen["loads"] += 1

        def sleep(self, level):
            seen["asleep"].append(True)

        def wake_up(self, tags):
            seen["asleep"].append(False)

        def reset_prefix_cache(self):
            """Nothing is kept here."""

        def generate(self, prompts, sampling_params, use_tqdm):
            asked = sampling_params
            assert asked["top_p"] == 1.0 and asked["top_k"] == 0 and asked["n"] == 1 and "seed" not in asked
            assert asked["stop_token_ids"] == end_token_ids(served) and not seen["asleep"][-1]
            seen["calls"].append(len(prompts))
            ids = [prompt["prompt_token_ids"] for prompt in prompts]
            with torch_seed(0, len(ids)):
                replies = generate(served, ids, 1, max_new_tokens=asked["max_tokens"], temperature=asked["temperature"])
            return [output(prompt, [completion(reply, None)]) for prompt, reply in zip(ids, replies)]

    monkeypatch.setattr(generation, "is_vllm_available", lambda *_, **__: True)
    monkeypatch.setattr(generation, "LLM", Llm, raising=False)
    monkeypatch.setattr(generation, "SamplingParams", dict, raising=False)
    monkeypatch.setattr(engines, "_in_this_process", {})
    with mock.patch.dict(os.environ):  # TRL writes the addresses of processes there
        yield served, seen


def test_vllm_in_this_process_samples_the_policy_as_it_is_now(colocated):
    served, seen = colocated
    policy = policies.load_policy(tiny.TINY)

    def ask():
        return generate(policy, PROMPTS, 4, max_new_tokens=6, temperature=0.8, engine="vllm-colocate", batch_size=8)

    def expect():
        repeated = [prompt for prompt in PROMPTS for _ in range(4)]
        with torch_seed(0, 12):
            return generate(policy, repeated, 1, max_new_tokens=6, temperature=0.8)

    before = expect()
    assert ask() == before and seen["calls"] == [12] and seen["asleep"][-1]
    assert seen["settings"]["max_num_seqs"] == 8 and seen["settings"]["model"] == policy.model.name_or_path
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.mul_(1.5)
    assert ask() == expect() != before
    assert seen["loads"] == 2 * len(list(policy.model.parameters()))


def test_no_vllm_in_this_process_is_a_sentence(policy, monkeypatch):
    generation = pytest.importorskip(
        "trl.generation.vllm_generation", reason="TRL is not installed: pip install -r requirements-lm.txt"
    )
    monkeypatch.setattr(generation, "is_vllm_available", lambda *_, **__: False)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package vllm here too.*set runtime.engine to auto\.$"):
        drawn(policy, "vllm-colocate", 2)
    with pytest.raises(ValueError, match="where an adapter is trained, since vllm is sent whole weights"):
        recipe.load("scale-8b-lora", ["runtime.engine=vllm-colocate"])


def test_no_server_and_no_vllm_are_a_sentence(policy, monkeypatch):
    client = pytest.importorskip(
        "trl.generation.vllm_client", reason="TRL is not installed: pip install -r requirements-lm.txt"
    )
    monkeypatch.setattr(client, "is_vllm_available", lambda *_, **__: False)
    with pytest.raises(ModuleNotFoundError, match="needs the package vllm here too"):
        drawn(policy, "vllm", 2, server="http://127.0.0.1:9")
    monkeypatch.setattr(client, "is_vllm_available", lambda *_, **__: True)
    with pytest.raises(
        ConnectionError, match="A vLLM server must answer at http://127.0.0.1:9, but none does; start one"
    ):
        drawn(policy, "vllm", 2, server="http://127.0.0.1:9")
    with pytest.raises(ValueError, match="where an adapter is trained"):
        recipe.load("scale-8b-lora", ["runtime.engine=vllm"])
