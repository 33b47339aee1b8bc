"""The benchmark of a machine, run on a small model: its numbers are consistent, and both kinds of step agree."""

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

torch = pytest.importorskip("torch", reason="needs the language models' packages")
transformers = pytest.importorskip("transformers", reason="needs the language models' packages")

from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from rvlib import cli
from rvlib.lm.experiments import cost
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.experiments.bench import architectures, bench, command, device_timing, official
from rvlib.lm.experiments.bench.architectures import ARCHITECTURES
from rvlib.lm.experiments.planning import plan
from rvlib.lm.models.policies import Policy
from rvlib.lm.models.reward_functions import forward
from rvlib.lm.optim import adam
from rvlib.lm.sampling.encoding import encode_prompt
from rvlib.lm.sampling.log_probs import log_probs, reply_log_probs

CHANGES = ["policy_gradient.max_new_tokens=24", "policy_gradient.batch_size=8", "runtime.micro_batch=4"]
ARGUMENTS = [
    "bench",
    "cpu",
    "--model",
    "tiny",
    "--recipe",
    "tiny-4.1",
    *(part for change in CHANGES for part in ("--set", change)),
]
EXACT = {
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.2-1b": 1_235_814_400,
    "smollm2-135m": 134_515_008,
    "pythia-2.8b": 2_775_208_960,
    "pythia-1b": 1_011_781_632,
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "result.json"
    cli.main([*ARGUMENTS, "--out", str(out)])
    return json.loads(out.read_text())


def test_rates_are_those_of_what_was_done(result):
    used = result["stages"]["sampling"]["engine"]
    engines = [f"{engine}-8" for engine in bench.ENGINES if engine != used]
    assert list(result["stages"]) == ["sampling", "scoring", "update", "step", "official", *engines]
    assert result["parameters"] > 1e5
    rate, bandwidth = result["machine_rates"]["matrix_rate"], result["machine_rates"]["bandwidth"]
    for name, stage in result["stages"].items():
        assert stage["tokens_per_second"] == pytest.approx(stage["tokens"] / stage["seconds"]), name
    layers = (
        2 * (64 * (64 + 64 + 32 + 32) + 3 * 64 * 192 + 2 * 64) + 64
    )  # attention, feed-forward and norms of two layers, and the last norm
    replies = result["stages"]["sampling"]["tokens"]
    for name, operations in (
        ("scoring", lambda t: 2 * layers * t),
        ("update", lambda t: 6 * (layers * t + 512 * 64 * replies)),
    ):
        stage = result["stages"][name]
        assert stage["share_of_matrix_rate"] == pytest.approx(operations(stage["tokens"]) / stage["seconds"] / rate)
    sampling = result["stages"]["sampling"]
    assert sampling["bytes"] > 4 * (layers + 512 * 64) * sampling["steps"] and sum(sampling["lengths"]) == replies
    assert sampling["share_of_bandwidth"] == pytest.approx(sampling["bytes"] / sampling["seconds"] / bandwidth)
    assert result["official_over_ours"] == pytest.approx(
        result["stages"]["step"]["tokens_per_second"] / result["stages"]["official"]["tokens_per_second"]
    )
    assert result["made"]["versions"]["torch"] and result["made"]["device"]


@pytest.mark.parametrize("name", EXACT)
def test_architectures_are_the_real_ones(name):
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**ARCHITECTURES[name]))
    assert model.num_parameters() == EXACT[name]
    planned = [size for key, size in cost.MODELS.items() if key.rpartition("/")[2].lower() == name]
    assert all(size.parameters == pytest.approx(EXACT[name], rel=1e-3) for size in planned)


@pytest.mark.parametrize("recomputed", [False, True])
def test_operations_are_those_that_pytorch_counts(recomputed):
    """Of matrices with weights; attention between tokens, which is left out, is a few per cent at these lengths."""
    config = transformers.AutoConfig.for_model(**ARCHITECTURES["llama-3.1-8b"] | {"num_hidden_layers": 2})
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counted:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval().requires_grad_(True)
        with adam.gradient_checkpointing(model, recomputed):
            reply_log_probs(Policy(model, None, {}), [[1] * 200] * 4, [[2] * 200] * 4).sum().backward()
        head = model.get_output_embeddings().weight.numel()
        layers = model.base_model.num_parameters() - head
    by_kind = counted.get_flop_counts()["Global"]
    attention = sum(count for kind, count in by_kind.items() if "attention" in str(kind))
    each = (
        6 * layers + 2 * (layers - 2 * 4096 * 14336) * recomputed
    )  # recomputing stops before a layer's last matrix, whose result nobody asks for
    assert sum(by_kind.values()) - attention == pytest.approx(each * 4 * 399 + 6 * head * 4 * 200, rel=0.001)
    assert attention < 0.02 * sum(by_kind.values())


@pytest.mark.parametrize("batch_size, micro_batch, max_new_tokens", [(16, 4, 24), (64, 16, 64)])
def test_the_memory_of_a_step_at_its_longest_is_what_is_planned(batch_size, micro_batch, max_new_tokens):
    """Every allocation counted, on the CPU, where torch does not count them itself."""
    counter = runpy.run_path(str(ROOT / "benchmarks/memory.py"))["Counter"]()
    with counter:
        changes = [
            f"runtime.batch_size={batch_size}",
            f"runtime.micro_batch={micro_batch}",
            f"policy_gradient.max_new_tokens={max_new_tokens}",
        ]
        models = bench.Bench("tiny", recipes.load("tiny-4.1", changes), "cpu")
        models.memory()  # now there are moments
        numbers = models.memory()
    assert counter.peak == pytest.approx(numbers["planned_memory"], rel=0.1)


def test_both_ways_of_a_step_compute_the_same():
    models = bench.Bench("tiny", recipes.load("tiny-4.1", CHANGES), "cpu")
    models.sampling("generate", 8, 8)
    prompt_ids, completion_ids = models.generated.prompt_ids, models.generated.completion_ids
    together = log_probs(models.policy, prompt_ids, completion_ids)
    alone = [
        official.official_log_probs(
            models.policy.model,
            torch.tensor([prompt + completion]),
            torch.ones(1, len(prompt + completion), dtype=torch.long),
            len(prompt),
        ).item()
        for prompt, completion in zip(prompt_ids, completion_ids)
    ]
    assert np.allclose(together, alone, atol=1e-3)
    models.scoring()
    texts = models._texts(completion_ids)
    alone = [
        [models.reward_model([prompt], [[reply]]).item() for reply in replies]
        for prompt, replies in zip(models.prompts, texts)
    ]
    assert np.allclose(models.rewards, alone, atol=1e-4)
    ends = models.policy.model.generation_config.eos_token_id
    drawn = official.official_rollout(
        official.OfficialModels(models.policy.model, models.ref_policy.model, models.reward_model),
        prompt_ids,
        max_new_tokens=24,
        eos_token_ids=ends,
    )
    mask = drawn.attention_mask == 1
    replies = [row[drawn.start :][kept[drawn.start :]].tolist() for row, kept in zip(drawn.token_ids, mask)]
    assert drawn.reply_tokens == sum(map(len, replies)) and all(len(r) == 24 or r[-1] in ends for r in replies)
    for policy, logprobs in ((models.policy, drawn.logprobs), (models.ref_policy, drawn.ref_logprobs)):
        assert np.allclose(log_probs(policy, prompt_ids, replies), logprobs, atol=2e-2)  # in bfloat16
    judge, tokenizer = models.reward_model.model, models.reward_model.tokenizer
    alone = [forward(judge, tokenizer, [prompt + reply]).item() for prompt, reply in zip(prompt_ids, replies)]
    assert np.allclose(alone, drawn.rewards, atol=1e-4)
    assert all(len(completion) == 24 or completion[-1] in ends for completion in completion_ids)


@pytest.mark.parametrize("name", ["tiny", "llama-3.1-8b"])
def test_prompts_have_the_tokens_that_are_counted(name):
    vocab_size = ARCHITECTURES[name]["vocab_size"]
    tokenizer = architectures.make_tokenizer(vocab_size)
    for prompt in architectures.random_prompts(16, vocab_size):
        prompt_ids = encode_prompt(tokenizer, prompt.text)
        assert len(prompt_ids) == architectures.PROMPT_TOKENS and min(prompt_ids) >= vocab_size // 2


def test_the_tokenizer_reads_what_it_wrote():
    vocab_size = ARCHITECTURES["llama-3.1-8b"]["vocab_size"]
    tokenizer = architectures.make_tokenizer(vocab_size)
    assert len(tokenizer) == vocab_size and (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    ids = [0, 1, *range(2, 200), 1, 123456, 0, *range(vocab_size - 100, vocab_size)]
    assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids
    text = " ".join(f"w{token}" for token in (10, 19, 100, 1000, 123456))
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_stage_that_fails_does_not_lose_the_others(monkeypatch, tmp_path):
    def fail(self):
        raise MemoryError("no room")

    monkeypatch.setattr(bench.Bench, "scoring", fail)
    written = []
    result = command.measure(
        "tiny", recipes.load("tiny-4.1", CHANGES), "cpu", 5, lambda so_far: written.append(json.dumps(so_far))
    )
    assert (
        result["stages"]["scoring"] == {"failed": "MemoryError: no room"} and "seconds" in result["stages"]["official"]
    )
    assert "sampling" in json.loads(written[0])["stages"] and "scoring" not in json.loads(written[0])["stages"]
    assert "no room" in command.format_result(result)


def test_fewer_layers_are_a_smaller_model():
    result = command.measure("tiny", recipes.load("tiny-4.1", CHANGES), "cpu", 5, lambda so_far: None, layers=1)
    layer = 64 * (64 + 64 + 32 + 32) + 3 * 64 * 192 + 2 * 64
    assert result["layers"] == 1 and result["parameters"] == layer + 64 + 2 * 512 * 64


def test_a_repetition_that_would_not_end_in_time_is_left_out(monkeypatch):
    runs = []
    monkeypatch.setattr(bench.Bench, "scoring", lambda self: runs.append(1) or {"seconds": 1e6, "tokens": 1})
    result = command.measure("tiny", recipes.load("tiny-4.1", CHANGES), "cpu", 5, lambda so_far: None)
    assert (
        len(runs) == 1 and result["stages"]["scoring"]["warm"] is False and result["stages"]["update"]["warm"] is True
    )


def test_what_hangs_on_a_stage_that_failed_says_so(monkeypatch):
    monkeypatch.setattr(bench.Bench, "_generate", lambda *_: 1 / 0)
    result = command.measure("tiny", recipes.load("tiny-4.1", CHANGES), "cpu", 5, lambda so_far: None)
    assert (
        "sampling failed" in result["stages"]["scoring"]["failed"]
        and "sampling failed" in result["stages"]["update"]["failed"]
    )


def test_models_that_do_not_fit_leave_a_result(monkeypatch):
    def full(self, *_):
        raise MemoryError("no room for the weights\nand more")

    monkeypatch.setattr(bench.Bench, "_random_model", full)
    written = []
    result = command.measure("tiny", recipes.load("tiny-4.1", CHANGES), "cpu", 5, written.append)
    assert (
        written == [result]
        and result["failed"] == "MemoryError: no room for the weights"
        and "no room" in command.format_result(result)
    )


def test_time_that_is_over_is_said():
    result = command.measure("tiny", recipes.load("tiny-4.1", CHANGES), "cpu", 0, lambda so_far: None)
    assert (
        all("--minutes" in stage["failed"] for stage in result["stages"].values())
        and "official_over_ours" not in result
    )


def test_a_stage_that_goes_on_too_long_is_cut_off_and_the_others_are_kept(monkeypatch):
    def endless(self):
        signal.setitimer(signal.ITIMER_REAL, 0.01)  # the call's time is over now, however fast the machine is
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(bench.Bench, "step", endless)
    result = command.measure("tiny", recipes.load("tiny-4.1", CHANGES), "cpu", 5, lambda so_far: None)
    assert "The 5 minutes of this call were over" in result["stages"].pop("step")["failed"]
    assert result["stages"] and all("seconds" in stage for stage in result["stages"].values())


def test_the_union_of_intervals_is_as_long_as_what_it_covers():
    assert device_timing.covered([]) == 0
    assert device_timing.covered([(4, 5), (0, 2), (1, 3), (1.5, 1.7), (3, 3.5)]) == pytest.approx(4.5)


def test_on_a_gpu_every_engine_is_measured_at_both_batch_sizes_and_a_large_step():
    models = bench.Bench("tiny", recipes.load("tiny-4.1", CHANGES), "cpu")
    models.device = torch.device("cuda")  # only the names of the stages are asked for
    names = list(models.stages())
    assert names[:6] == ["sampling", "scoring", "update", "step", "large", "official"]
    assert {"large", "memory"} | {f"{engine}-{size}" for engine in bench.ENGINES for size in (32, 256)} < set(names)


@pytest.mark.parametrize("batch_size, again", [(4, True), (8, False), (16, False)])
def test_the_engine_that_samples_is_measured_again_at_another_batch_size(batch_size, again):
    models = bench.Bench("tiny", recipes.load("tiny-4.1", [*CHANGES, f"runtime.batch_size={batch_size}"]), "cpu")
    used = bench.engines.resolved(models.recipe.runtime.engine, models.policy.model)
    assert (f"{used}-8" in models.stages()) == again


def test_what_a_recipe_leaves_to_the_planner_is_set_for_the_model_that_is_measured(monkeypatch):
    monkeypatch.setattr(plan, "memory_here", lambda: (141e9, "The GPU"))
    recipe = recipes.load("scale-8b")
    large, small = (command.settled(name, recipe).runtime for name in ("llama-3.1-8b", "pythia-1b"))
    assert not large.gradient_checkpointing and large.micro_batch < small.micro_batch
    monkeypatch.setattr(plan, "memory_here", lambda: (80e9, "The GPU"))
    whole, half = (command.settled("llama-3.1-8b", recipe, layers).runtime for layers in (None, 16))
    assert whole.gradient_checkpointing and whole.micro_batch == 1 and whole.batch_size < 32
    assert half.micro_batch > 1 and half.batch_size >= 32
    fixed = recipes.load("tiny-4.1")
    assert command.settled("tiny", fixed) is fixed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cpu", "--model", "lama-3.1-8b"], "did you mean 'llama-3.1-8b'?"),
        (["gpu", "--recipe", "tiny-4.1"], "torch sees none"),
        (["cpu", "--layers", "0"], "at least one"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments, sentence, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=sentence.replace("?", r"\?")):
        command.main(arguments)


def test_without_a_checkout_the_result_lies_in_the_working_directory(tmp_path, monkeypatch):
    assert command._results_folder() == ROOT / "benchmarks/results"
    monkeypatch.setattr(command, "ROOT", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    assert command._results_folder() == tmp_path


YAML = """
base: tiny-4.1
title: as small as can be
seeds: [0]
data: {prompts: 40}
policies: {tiny: {demonstrations: null, count: null}}
reward_models: {on-policy-100: null, on-policy-75: null, on-policy-50: null, on-policy-25: null, on-policy-0: null}
measure: {prompts: 4, num_generations: 4}
policy_gradient: {epochs: 1, max_new_tokens: 4, batch_size: 8}
evaluation: {prompts: 2, num_generations: 2, per_epoch: 1}
"""


def test_the_script_for_a_lent_gpu_leaves_its_results_and_nothing_large(tmp_path):
    (tmp_path / "lent/wheels").mkdir(parents=True)
    record = "Metadata-Version: 2.1\nName: lent\nVersion: 1.0\n"
    with zipfile.ZipFile(tmp_path / "lent/wheels/lent-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("lent.py", "")
        wheel.writestr("lent-1.0.dist-info/METADATA", record)
        wheel.writestr("lent-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("lent-1.0.dist-info/RECORD", "")
    (tmp_path / "small.yaml").write_text(YAML)
    settings = {"TINY": "1", "RECIPES": str(tmp_path / "small.yaml"), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", ROOT / "benchmarks/gpu.sh", tmp_path / "lent", tmp_path / "out"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Successfully installed lent-1.0" in done.stdout
    left = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"cpu-tiny.json", "small/report.json", "log.txt"} <= left, done.stdout
    assert "small/policy-gradient/tiny/low-variance/seed-0/log.jsonl" in left
    assert not any(path.endswith((".safetensors", ".partial")) for path in left)
    assert "seconds" in json.loads((tmp_path / "out/cpu-tiny.json").read_text())["stages"]["step"]
    assert json.loads((tmp_path / "out/small/report.json").read_text())["policies"]["tiny"].keys() == {
        "low-variance",
        "ground-truth",
    }


def test_the_idle_share_is_the_time_in_which_no_kernel_runs(monkeypatch):
    def kernel(start, end, device):
        return SimpleNamespace(device_type=device, time_range=SimpleNamespace(start=start, end=end))

    cuda, cpu = torch.autograd.DeviceType.CUDA, torch.autograd.DeviceType.CPU
    events = [kernel(0, 1e5, cuda), kernel(0.5e5, 2e5, cuda), kernel(0, 9e5, cpu)]
    profile = contextlib.nullcontext(SimpleNamespace(events=lambda: events))
    monkeypatch.setattr(torch.profiler, "profile", lambda activities: profile)
    monkeypatch.setattr(device_timing, "timed", lambda device, work: (1.0, work()))
    assert device_timing.idle_share(torch.device("cpu"), lambda: None) == pytest.approx(0.8)
