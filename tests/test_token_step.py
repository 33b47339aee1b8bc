"""The token step that is replayed: its numbers in each family, and that a CUDA graph could hold it.

No GPU is needed: `record` stands for the capture. It keeps the list of PyTorch's operations of one step and runs it
again on the same tensors, which is what a graph does: what Python decides, it decides once.
"""

import contextlib
import gc
import json
import pathlib
import runpy
import warnings
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
transformers = pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from rvlib.lm.data import tiny
from rvlib.lm.experiments import recipe
from rvlib.lm.experiments.bench import bench
from rvlib.lm.models import policies
from rvlib.lm.models.adapters import add_adapter, without_adapter
from rvlib.lm.sampling import cuda_graph, engines, token_step
from rvlib.lm.sampling.encoding import end_token_ids
from rvlib.lm.sampling.generation import complete, generate
from rvlib.lm.sampling.log_probs import log_probs
from rvlib.lm.sampling.replies import Sampling, sample_replies
from rvlib.lm.seeding import torch_seed

PROMPTS = [[5, 6, 7], [8, 9], [3, 4, 5, 6, 7, 8]]
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "initializer_range": 0.4}
GROUPED = SMALL | {"num_hidden_layers": 4, "num_key_value_heads": 2}
FAMILIES = {
    "llama": GROUPED,
    "gpt_neox": SMALL | {"num_hidden_layers": 2},
    "qwen2": GROUPED | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    "qwen3": GROUPED | {"head_dim": 8},
    "mistral": GROUPED | {"sliding_window": 5},
    "cohere": GROUPED,
    "granite": GROUPED | {"logits_scaling": 3.0},
    "gemma2": GROUPED
    | {
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 5,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "phimoe": GROUPED | {"sliding_window": 5, "num_local_experts": 4},  # whose layers are not told of their window
}


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """Blocks and batches so small that a few replies go through several."""
    monkeypatch.setattr(token_step, "BLOCK", 8)
    monkeypatch.setattr(token_step, "FEWEST_ROWS", 2)
    monkeypatch.setattr(cuda_graph, "STEPS_BETWEEN_LOOKS", 4)


@pytest.fixture
def recorded(monkeypatch):
    """Steps are captured as by `record`; a list of the captured."""
    captured = []

    def run_and_capture(step, pool):
        step()
        captured.append(record(step))
        return captured[-1]

    monkeypatch.setattr(token_step, "run_and_capture", run_and_capture)
    return captured


def record(step):
    """A function that runs the operations of step() again, which itself leaves everything as it was."""
    operations, changed = [], []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function.__name__.split(".")[0]
            assert name not in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal"), f"{name} asks the host"
            if function._schema.is_mutable:
                target = kwargs["out"] if kwargs and "out" in kwargs else args[0]
                changed.append((target, target.clone()))
            out = function(*args, **(kwargs or {}))
            operations.append((function, args, kwargs or {}, out))
            return out

    state = torch.get_rng_state()
    with Recorder():
        step()
    for target, before in reversed(changed):
        target.copy_(before)
    torch.set_rng_state(state)

    def replay():
        new = {}

        def current(value):
            return new.get(id(value), value) if isinstance(value, torch.Tensor) else value

        for function, args, kwargs, out in operations:
            again = function(*tree_map(current, args), **tree_map(current, kwargs))
            new |= {id(old): value for old, value in zip(tree_flatten(out)[0], tree_flatten(again)[0])}

    return replay


def make_policy(family="llama", seed=0):
    tokenizer = policies.load_tokenizer(tiny.TINY)
    config = transformers.AutoConfig.for_model(family, vocab_size=len(tokenizer), pad_token_id=0, **FAMILIES[family])
    with torch_seed(seed, 5):
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *range(11, len(tokenizer), 16)]
    return policies.Policy(model, tokenizer, {})


def drawn(policy, num_generations=8, max_new_tokens=30, seed=0, temperature=0.9, prompts=PROMPTS):
    with torch_seed(seed, 1), warnings.catch_warnings():
        warnings.simplefilter("error")
        return complete(
            policy,
            prompts,
            num_generations,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            engine="graph",
        )


def check(policy, completions, num_generations=8, temperature=0.9, prompts=PROMPTS):
    """The log-probabilities said with the replies are those of a forward pass of each, in its own order."""
    repeated = [prompt for prompt in prompts for _ in range(num_generations)]
    expected = log_probs(policy, repeated, completions.completion_ids, temperature=temperature, batch_size=1)
    assert np.allclose(completions.logprobs, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_taken_while_drawing_are_those_of_a_forward_pass(family, recorded):
    policy = make_policy(family)
    attention = policy.model.config._attn_implementation
    completions = drawn(policy)
    lengths = {len(reply) for reply in completions.completion_ids}
    assert max(lengths) == 30 and min(lengths) < 10 and len(recorded) > 4  # blocks, and halves of the batch
    check(policy, completions)
    assert policy.model.config._attn_implementation == attention


def test_in_bfloat16_they_differ_from_those_of_training_by_rounding_alone():
    """By hundredths of a nat times the root of the tokens, and on the mean by nothing: enough for the KL term."""
    policy = make_policy()
    policy.model.to(torch.bfloat16)
    completions = drawn(policy, 32)
    repeated = [prompt for prompt in PROMPTS for _ in range(32)]
    trained = np.array(log_probs(policy, repeated, completions.completion_ids, temperature=0.9))
    difference = (np.array(completions.logprobs) - trained) / np.sqrt([len(ids) for ids in completions.completion_ids])
    assert 0 < difference.std() < 0.05 and abs(difference.mean()) < 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_sampled_from_its_own_distribution(family):
    """The second token of 2,000 replies, at a place that left padding, a cache and a window all bear on."""
    policy = make_policy(family)
    replies = drawn(policy, 2000, max_new_tokens=2, prompts=[PROMPTS[0], PROMPTS[2]], temperature=0.5).completion_ids
    with torch.inference_mode():
        for prompt, group in zip((PROMPTS[0], PROMPTS[2]), (replies[:2000], replies[2000:])):
            first = (policy.model(torch.tensor([prompt])).logits[0, -1] / 0.5).softmax(-1).double()
            going_on = [token for token in range(len(first)) if token not in end_token_ids(policy)]
            after = torch.tensor([[*prompt, token] for token in going_on])
            second = (policy.model(after).logits[:, -1] / 0.5).softmax(-1).double()
            expected = 2000 * (first[going_on] @ second).numpy()
            seen = np.bincount([reply[1] for reply in group if len(reply) > 1], minlength=len(expected))
            ended = 2000 * first[end_token_ids(policy)].sum().item()
            expected, seen = np.append(expected, ended), np.append(seen, 2000 - seen.sum())
            rare = expected < 5
            table = [np.append(values[~rare], values[rare].sum()) for values in (seen, expected)]
            assert stats.chisquare(table[0] + 1e-9, table[1] + 1e-9, sum_check=False).pvalue > 1e-3


def test_a_replayed_step_draws_what_the_step_itself_draws(recorded, monkeypatch):
    policy = make_policy()
    first, again = drawn(policy), drawn(policy)
    captured = len(recorded)
    assert first == again and captured > 4  # replayed from the first step of a size on, and captured once
    monkeypatch.setattr(token_step, "run_and_capture", lambda step, pool: step())
    assert drawn(make_policy()) == first != drawn(make_policy(), seed=1)
    assert len(recorded) == captured


def test_weights_moved_in_place_are_sampled_by_the_same_graph_and_new_ones_by_a_new(recorded):
    policy = make_policy()
    drawn(policy, max_new_tokens=6)
    captured = len(recorded)
    with torch.no_grad():
        for value in policy.model.parameters():
            value.mul_(1.2)
    moved = drawn(policy, max_new_tokens=6)
    check(policy, moved)
    assert len(recorded) == captured
    for value in policy.model.parameters():
        value.data = value.data * 0.9
    check(policy, drawn(policy, max_new_tokens=6))
    assert len(recorded) > captured


def test_adapters_are_sampled_and_so_is_the_model_without_them(recorded):
    pytest.importorskip("peft", reason="peft is not installed: pip install -r requirements-lm.txt")
    policy = make_policy()
    add_adapter(policy, recipe.LoRA(rank=4, alpha=8))
    with torch.no_grad():
        for name, value in policy.model.named_parameters():
            if "lora_B" in name:
                value.normal_()
    check(policy, drawn(policy, max_new_tokens=6))
    with without_adapter(policy.model):
        check(policy, drawn(policy, max_new_tokens=6))
    check(policy, drawn(policy, max_new_tokens=6))


def test_several_sizes_are_kept_until_they_are_too_large(recorded, monkeypatch):
    policy = make_policy()
    sizes = [(2, 3), (4, 3), (2, 12)]
    for num_generations, max_new_tokens in sizes:
        check(policy, drawn(policy, num_generations, max_new_tokens), num_generations)
    captured = len(recorded)
    for num_generations, max_new_tokens in sizes:
        check(policy, drawn(policy, num_generations, max_new_tokens), num_generations)
    kept = cuda_graph._captured[policy.model][1]
    assert len(recorded) == captured and len(kept) == 3
    largest = max(step.nbytes for step in kept.values())
    monkeypatch.setattr(cuda_graph, "KEPT_BYTES", largest)
    drawn(policy, 2, 12)
    assert 0 < sum(step.nbytes for step in kept.values()) <= largest
    del kept


def test_what_is_kept_does_not_keep_the_model(recorded):
    policy = make_policy()
    model = weakref.ref(policy.model)
    drawn(policy, 2, 6)
    assert model() in cuda_graph._captured
    recorded.clear()
    del policy
    gc.collect()
    assert model() is None


@pytest.mark.parametrize("error", [KeyError("cache_position"), IndexError("index 4 is out of range"), ValueError("no")])
def test_what_a_model_raises_in_a_token_step_is_drawn_by_generate(monkeypatch, error):
    def fail(step, pool):
        raise error

    monkeypatch.setattr(token_step, "run_and_capture", fail)
    with pytest.warns(UserWarning, match="by the slower engine generate, since a token step did not run"):
        generate(make_policy(), PROMPTS, 4, max_new_tokens=6, engine="graph")


def test_the_settings_of_replies_name_the_engine_that_drew_and_the_rest_is_drawn_by_it(monkeypatch, tmp_path):
    def fail(step, pool):
        raise RuntimeError("operation not permitted when stream is capturing")

    def sample(folder, engine):
        sampling = Sampling(num_generations=2, max_new_tokens=4, prompts_per_batch=1)
        return sample_replies(make_policy(), prompts, folder, sampling, engine=engine, progress=False)

    def drew(folder):
        return json.loads((folder / "settings.json").read_text()).get("engine", "generate")

    prompts = tiny.prompts(2, 0)
    a, b = tmp_path / "a", tmp_path / "b"
    sample(a, "graph")
    assert drew(a) == "graph"
    with monkeypatch.context() as patch:
        patch.setattr(token_step, "run_and_capture", fail)
        cuda_graph._captured.clear()
        with pytest.warns(UserWarning, match="by the slower engine generate"):
            records = sample(b, "graph")
    assert drew(b) == "generate" and records == sample(tmp_path / "c", "generate")
    (b / "batch-0001.jsonl").unlink()
    assert sample(b, "graph") == records and drew(b) == "generate"  # though here the engine would run
    with pytest.raises(ValueError, match="with another engine"):
        sample(b, "generate")


def test_what_cannot_be_replayed_is_said_and_drawn_by_generate(monkeypatch):
    policy, other = make_policy(), make_policy(seed=1)
    drawn(other, 2, 3)

    def draw(engine):
        with torch_seed(2):
            return generate(policy, PROMPTS, 4, max_new_tokens=6, engine=engine)

    expected = draw("generate")
    calls = []

    def fail(step, pool):
        calls.append(step)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    assert other.model in cuda_graph._captured
    monkeypatch.setattr(token_step, "run_and_capture", fail)
    for _ in range(2):
        with pytest.warns(
            UserWarning,
            match=r"^The model is sampled by the slower engine generate, since a token step "
            r"did not run \(operation not permitted when stream is capturing\)\.$",
        ):
            assert draw("graph") == expected
    assert len(calls) == 1  # it is not tried again
    assert other.model not in cuda_graph._captured  # its graphs would draw other random numbers from then on
    policy = make_policy()
    policy.model.config.layer_types = ["full_attention", "linear_attention"] * 2
    assert cuda_graph.unsupported(policy.model).endswith("has layers of the kinds full_attention, linear_attention")
    del policy.model.config.layer_types
    monkeypatch.setattr(type(policy.model), "_supports_attention_backend", False)
    with pytest.warns(UserWarning, match="LlamaForCausalLM does not let another attention function take the place"):
        assert draw("graph") == expected
    policy.model.model.norm.to("meta")
    assert cuda_graph.unsupported(policy.model) == "its weights are not all on this process's device"


def test_a_model_that_keeps_to_its_own_attention_is_not_sampled_wrongly(monkeypatch):
    policy = make_policy()
    own = policy.model.config._attn_implementation
    monkeypatch.setattr(token_step, "ATTENTION", own)
    with pytest.warns(UserWarning, match="not every layer attends as it is told"):
        assert complete(policy, PROMPTS, 2, max_new_tokens=4, engine="graph").logprobs is None


def test_attention_takes_a_mask_for_all_heads_or_one_for_each():
    with torch_seed(0):
        query, states, masks = torch.randn(3, 4, 1, 8), torch.randn(2, 3, 2, 5, 8), torch.randn(3, 4, 1, 5)
    for mask in (masks, masks[:, :1]):
        key, value = (each.repeat_interleave(2, 1) for each in states)
        expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        seen, _ = token_step.attention(None, query, *states, mask, on_attention=id, capped=True)
        assert torch.allclose(seen, expected.transpose(1, 2), atol=1e-6)


@pytest.mark.parametrize("name", token_step.BEYOND_A_MASK)
def test_attention_with_more_than_scores_and_a_mask_is_refused(name):
    states = torch.ones(1, 2, 1, 4)
    arguments = {"on_attention": id, "capped": True}
    token_step.attention(None, states, states, states, torch.zeros(1, 1, 1, 1), **arguments, **{name: None})
    with pytest.raises(RuntimeError, match="its attention has more than scores and a mask"):
        token_step.attention(None, states, states, states, torch.zeros(1, 1, 1, 1), **arguments, **{name: states})


@pytest.fixture
def cuda(monkeypatch):
    """What `run_and_capture` asks of torch.cuda, without a GPU: what was done, in order."""
    done = []
    generator = SimpleNamespace(clone_state=lambda: "the state of before")
    generator.graphsafe_set_state = lambda state: done.append(f"generator: {state}")

    @contextlib.contextmanager
    def graph(captured, pool):
        done.append("capture")
        yield
        done.append("captured")

    fakes = {
        "graph": graph,
        "CUDAGraph": lambda: SimpleNamespace(replay="replay"),
        "current_stream": lambda: "the stream of before",
        "set_stream": lambda stream: done.append(f"stream: {stream}"),
        "current_device": lambda: 0,
        "default_generators": (generator,),
        "set_sync_debug_mode": lambda mode: done.append(f"waiting: {mode}"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return done


def test_a_step_is_run_where_waiting_is_an_error_and_then_captured(cuda):
    assert token_step.run_and_capture(lambda: cuda.append("step"), (0, 1)) == "replay"
    assert cuda == ["waiting: error", "step", "waiting: default", "capture", "step", "captured"]
    assert token_step.run_and_capture(lambda: cuda.append("step"), None) is None and cuda[6:] == ["step"]


def test_a_step_that_would_wait_is_refused_before_it_is_captured(cuda):
    """Before the capture, whose error would say less and may leave the GPU's generator unusable."""

    def wait():
        raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(RuntimeError, match="called a synchronizing CUDA operation"):
        token_step.run_and_capture(wait, (0, 1))
    assert cuda == ["waiting: error", "waiting: default"]


@pytest.mark.parametrize("kind", [RuntimeError, KeyError])
def test_a_capture_that_fails_gives_back_the_stream_and_the_random_numbers(cuda, kind):
    """As `torch.cuda.graph` does not if its capture ends with an error: then it raises before it has left."""

    def step():
        if cuda[-1] == "capture":
            raise kind("operation not permitted when stream is capturing")

    with pytest.raises(kind, match="not permitted"):
        token_step.run_and_capture(step, (0, 1))
    assert cuda[2:] == ["capture", "stream: the stream of before", "generator: the state of before"]


def test_memory_that_runs_out_is_told_as_torch_tells_it(monkeypatch):
    def fail(step, pool):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(token_step, "run_and_capture", fail)
    with pytest.raises(torch.OutOfMemoryError):
        drawn(make_policy())
    assert not cuda_graph._captured  # what was kept makes room for another try


def test_a_measurement_names_the_engine_that_drew(monkeypatch):
    def fail(step, pool):
        raise RuntimeError("operation not permitted when stream is capturing")

    changes = ["policy_gradient.max_new_tokens=4", "policy_gradient.batch_size=4", "runtime.batch_size=4"]
    measured = bench.Bench("tiny", recipe.load("tiny-4.1", changes), "cpu")
    assert measured.sampling("graph", 4, 4)["engine"] == "graph"
    monkeypatch.setattr(token_step, "run_and_capture", fail)
    cuda_graph._captured.clear()
    with pytest.warns(UserWarning, match="by the slower engine generate"):
        assert measured.sampling("graph", 4, 4)["engine"] == "generate"


def test_the_engine_is_chosen_by_the_device():
    policy = make_policy()
    assert engines.resolved("auto", policy.model) == "generate" and engines.resolved("graph", policy.model) == "graph"
    assert complete(policy, PROMPTS, 1, max_new_tokens=2).logprobs is None


def test_the_benchmark_checks_the_engine_before_anything_is_measured(monkeypatch):
    path = pathlib.Path(__file__).parent.parent / "benchmarks/token_step.py"
    checked = runpy.run_path(str(path), run_name="benchmark")["check"]
    model = make_policy().model
    assert checked(model, rows=16, steps=20) is None
    draw = token_step.TokenStep.draw
    monkeypatch.setattr(token_step.TokenStep, "draw", lambda self, logits: draw(self, 1.1 * logits))
    assert checked(model, rows=16, steps=20).startswith("The engine graph must say the log-probabilities of a forward")
    monkeypatch.setattr(token_step.TokenStep, "draw", lambda self, logits: draw(self, "logits"))
    with pytest.warns(UserWarning, match="by the slower engine generate"):
        assert checked(model, rows=16, steps=20).startswith("The engine graph cannot run here, since a token step did")


def test_the_benchmark_says_that_generate_waits_in_every_step_and_the_token_step_does_not(capsys):
    path = pathlib.Path(__file__).parent.parent / "benchmarks/token_step.py"
    benchmark = runpy.run_path(str(path), run_name="benchmark")
    model = make_policy().model
    model.generation_config.eos_token_id = None
    steps = {engine: benchmark["measure"](engine, model, rows=8, steps=8) for engine in ("generate", "graph")}
    assert steps["generate"]["waits"] > 1 and steps["graph"]["waits"] < 0.5
    assert steps["graph"]["operations"] < steps["generate"]["operations"]
