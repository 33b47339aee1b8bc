"""The planned cost of a run against what can be counted: parameters, moments, activations; advice on what would fit."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
transformers = pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

import huggingface_hub.errors as hub

from rvlib import cli
from rvlib.files import RESULTS
from rvlib.lm.data import tiny
from rvlib.lm.experiments import cost, recipe, run
from rvlib.lm.experiments.bench import rates
from rvlib.lm.experiments.planning import dry_run, plan, planned_stages
from rvlib.lm.models import policies, reward_models
from rvlib.lm.models.adapters import add_adapter
from rvlib.lm.optim import adam

# The published configurations, as far as sizes depend on them.
LLAMA = dict(vocab_size=128256, num_key_value_heads=8)
CONFIGS = {
    "tiny": None,
    "SmolLM2-135M-Instruct": transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
        tie_word_embeddings=True,
    ),
    "EleutherAI/pythia-1b": transformers.GPTNeoXConfig(
        vocab_size=50304, hidden_size=2048, num_hidden_layers=16, num_attention_heads=8, intermediate_size=8192
    ),
    "EleutherAI/pythia-2.8b": transformers.GPTNeoXConfig(
        vocab_size=50304, hidden_size=2560, num_hidden_layers=32, num_attention_heads=32, intermediate_size=10240
    ),
    "meta-llama/Llama-3.2-1B": transformers.LlamaConfig(
        **LLAMA,
        hidden_size=2048,
        num_hidden_layers=16,
        num_attention_heads=32,
        intermediate_size=8192,
        tie_word_embeddings=True,
    ),
    "meta-llama/Llama-3.2-3B": transformers.LlamaConfig(
        **LLAMA,
        hidden_size=3072,
        num_hidden_layers=28,
        num_attention_heads=24,
        intermediate_size=8192,
        tie_word_embeddings=True,
    ),
    "meta-llama/Llama-3.1-8B": transformers.LlamaConfig(
        **LLAMA, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=14336
    ),
}
HEADS = {
    "Ray2333/GRM-gemma2-2B-rewardmodel-ft": transformers.Gemma2Config(
        vocab_size=256000,
        hidden_size=2304,
        num_hidden_layers=26,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        intermediate_size=9216,
        num_labels=1,
    ),
    "weqweasdas/RM-Gemma-2B": transformers.GemmaConfig(
        vocab_size=256000,
        hidden_size=2048,
        num_hidden_layers=18,
        num_attention_heads=8,
        num_key_value_heads=1,
        head_dim=256,
        intermediate_size=16384,
        num_labels=1,
    ),
    "allenai/llama-3-tulu-2-8b-uf-mean-rm": transformers.LlamaConfig(
        **LLAMA, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=14336, num_labels=1
    ),
}


# Counted


@pytest.mark.parametrize("name", [*CONFIGS, *HEADS])
def test_parameters_are_those_of_the_architecture(name):
    head = name in HEADS
    kind = transformers.AutoModelForSequenceClassification if head else transformers.AutoModelForCausalLM
    config = HEADS[name] if head else CONFIGS[name] or policies.load_policy(tiny.TINY).model.config
    with torch.device("meta"):
        assert kind.from_config(config).num_parameters() == cost.MODELS[name].parameters
    size = cost.MODELS[name]
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    keys = (getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * head_dim
    assert (size.layers, size.width, size.keys, size.vocabulary, size.inner) == (
        config.num_hidden_layers,
        config.hidden_size,
        keys,
        config.vocab_size,
        config.intermediate_size,
    )
    assert size.matrices == (2 if isinstance(config, transformers.GPTNeoXConfig) else 3)


def small(width=256, keys=64, inner=512, layers=4, dtype=torch.float32, vocabulary=512):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=keys // 32,
    )
    model = transformers.LlamaForCausalLM(config).to(dtype).eval()
    return model, cost.Size(model.num_parameters(), layers, width, keys, vocabulary, inner)


def test_adapters_have_as_many_parameters_as_is_said():
    pytest.importorskip("peft", reason="peft is not installed: pip install -r requirements-lm.txt")
    model, size = small()
    add_adapter(policies.Policy(model, None, {}), recipe.LoRA(rank=8, alpha=16))
    assert sum(value.numel() for value in model.parameters() if value.requires_grad) == size.adapter(8)


@pytest.mark.parametrize("kind", ["adam", "adam8bit"])
def test_moments_take_the_bytes_that_are_said(kind):
    if kind == "adam8bit":
        pytest.importorskip("torchao", reason="torchao is not installed: pip install -r requirements-lm.txt")
    dtype = torch.bfloat16 if kind == "adam8bit" else torch.float32
    model, size = small(width=512, keys=512, inner=1024, layers=2, dtype=dtype)
    runtime = recipe.load("tiny-4.1").runtime.model_copy(update={"optimizer": kind})
    optimizer = adam.make_adam(model.parameters(), 1e-3, runtime)
    for value in model.parameters():
        value.grad = torch.ones_like(value)
    with adam.stochastic_rounding(torch.device("cpu"), 0):
        optimizer.step()
    nbytes = sum(
        tensor.nbytes
        for state in optimizer.state.values()
        for key, tensor in adam.flat_state(state).items()
        if key != "step" and not key.endswith("qmap")
    )
    # Tables and the smallest tensors aside.
    assert nbytes == pytest.approx(size.parameters * cost.MOMENTS[kind], rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [{}, {"width": 128, "inner": 512, "layers": 6}, {"keys": 256, "inner": 256}])
def test_activations_are_what_autograd_keeps(shape, compute, checkpointing):
    """Within 10 %, by bytes of the storages that autograd saves; with checkpointing, at the end of the forward pass."""
    model, size = small(**shape, dtype=getattr(torch, compute))
    weights, saved = {value.untyped_storage().data_ptr() for value in model.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)  # kept, so that its place is not given to another
        return tensor

    rows, longest = 3, 96
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        adam.gradient_checkpointing(model, checkpointing),
    ):
        attended = torch.ones(rows, longest, dtype=torch.long)
        attended[0, -5:] = 0
        model.base_model(torch.randint(0, 512, (rows, longest)), attention_mask=attended)
    counted = sum(nbytes for nbytes, _ in saved.values())
    planned = cost.activations(
        size, rows * longest, longest, compute_dtype=compute, gradient_checkpointing=checkpointing
    )
    assert counted == pytest.approx(planned, rel=0.1)


@pytest.mark.parametrize(
    "name, changes",
    [
        ("scale-8b", []),
        ("scale-8b", ["runtime.micro_batch=2"]),
        ("scale-8b", ["runtime.micro_batch=4", "runtime.gradient_checkpointing=false"]),
        ("scale-8b-lora", []),
        ("paper-4.2-llama-3b", []),
        ("paper-4.2-llama-1b", ["runtime.batch_size=4"]),
        ("paper-4.1-pythia-1b", []),
    ],
)
def test_peaks_are_what_pytorch_allocates(name, changes):
    """Within 10 %, on layers of the real size, weights that hold no numbers going through the real code."""
    pytest.importorskip("torchao", reason="torchao is not installed: pip install -r requirements-lm.txt")
    pytest.importorskip("peft", reason="peft is not installed: pip install -r requirements-lm.txt")
    spec = importlib.util.spec_from_file_location("memory", pathlib.Path(__file__).parents[1] / "benchmarks/memory.py")
    assert spec and spec.loader
    spec.loader.exec_module(memory := importlib.util.module_from_spec(spec))
    for kind, nbytes in memory.count(name, memory.RECIPES[name], layers=4, changes=changes).items():
        # Adapters compute in 32 bits, a quarter more there; it is never the largest.
        if (name, kind) != ("scale-8b-lora", "scoring"):
            assert nbytes["counted"] == pytest.approx(nbytes["planned"], rel=0.1), kind


def test_32_bit_weights_take_16_bytes_and_8_bit_adam_6():
    size = cost.Size(1e9)
    assert sum(cost.training_state(size).values()) == 20e9
    assert sum(cost.training_state(size, compute_dtype="float32").values()) == 16e9
    assert sum(cost.training_state(size, optimizer="adam8bit", weights_dtype="bfloat16").values()) == pytest.approx(
        6.03e9, rel=1e-3
    )
    assert sum(cost.training_state(size, compute_dtype="float32", gpus=4).values()) == 4e9


# Fits


LESS = ["runtime.gradient_checkpointing=true", "runtime.micro_batch=8", "runtime.batch_size=32"]
FULL = ["runtime.optimizer=adam", "runtime.weights_dtype=float32"]


@pytest.mark.parametrize(
    "name, gpu",
    [
        ("scale-8b", "H200"),
        ("scale-8b-lora", "H100"),
        ("paper-4.2-llama-3b", "H100"),
        ("paper-4.2-llama-3b-grpo", "A100"),
    ],
)
def test_the_large_recipes_fit_the_gpu_they_are_for(name, gpu):
    machine = cost.MACHINES[gpu]
    stage = plan.largest(plan.plan(recipe.load(name), machine=machine))
    assert stage.peak < 0.95 * machine.memory / 1e9 and stage.name.startswith("policy-gradient")
    turns = [stage.memory[part] for part in ("KV cache", "scoring", "activations")]
    assert stage.peak == pytest.approx(sum(stage.memory.values()) - sum(turns) + max(turns))


def test_without_8_bits_and_a_random_round_8b_would_not_fit():
    full = recipe.load("scale-8b", LESS + FULL)
    assert plan.largest(plan.plan(full)).peak > 141
    assert plan.largest(plan.plan(full, gpus=4)).peak < 141


def test_more_gpus_take_less_memory_and_time():
    full = recipe.load("scale-8b", LESS + FULL)
    plans = [plan.plan(full, gpus) for gpus in (2, 4, 8)]
    peaks = [plan.largest(stages).peak for stages in plans]
    hours = [sum(stage.hours for stage in stages) for stages in plans]
    assert peaks == sorted(peaks, reverse=True) and hours == sorted(hours, reverse=True)


@pytest.mark.parametrize(
    "have, advice",
    [
        (100e9, "it would fit with --set runtime.micro_batch=1."),
        (70e9, "adapters in place of the weights"),
        (20e9, "choose a smaller model"),
    ],
)
def test_too_little_memory_says_which_part_and_what_would_fit(monkeypatch, tmp_path, have, advice):
    monkeypatch.setattr(plan, "memory_here", lambda: (have, "The GPU"))
    large = recipe.load("scale-8b", LESS)
    sentence = dry_run.missing(large, tmp_path, plan.plan(large))[-1]
    assert sentence.startswith(
        "The GPU must have 101.1 GB for policy-gradient/llama-8b-instruct/tulu-2-8b, of which optimiser takes 16.3, got"
    )
    assert advice in sentence


def test_what_is_advised_fits():
    large = recipe.load("scale-8b", LESS)
    changes = dry_run.lighter(large, 100e9).split("--set ")[1:]
    assert plan.largest(plan.plan(recipe.load("scale-8b", LESS + changes))).peak <= 100


TWO_JUDGES = ["ground_truth.model=RLHFlow/ArmoRM-Llama3-8B-v0.1", "ground_truth.trust_remote_code=true"]


def test_an_8b_policy_with_two_8b_judges_fits_four_gpus_of_24_gb():
    peaks = {}
    for placement in ("whole", "shared", "host"):
        asked = recipe.load("scale-8b-lora", [*TWO_JUDGES, f"runtime.frozen_placement={placement}"])
        settled = plan.choose(asked, 24e9, gpus=4)
        peaks[placement] = plan.largest(plan.plan(settled, gpus=4)).peak
    assert settled.runtime.batch_size == 8 and peaks["host"] < 0.95 * 24 < peaks["shared"] < peaks["whole"]


def test_on_one_gpu_it_makes_no_difference_where_frozen_models_are():
    whole, host = (recipe.load("scale-8b", [*LESS, f"runtime.frozen_placement={where}"]) for where in ("whole", "host"))
    assert plan.plan(whole) == plan.plan(host)


# Chosen


@pytest.mark.parametrize("name", ["scale-8b", "scale-8b-lora"])
def test_what_the_planner_chooses_fits_and_more_memory_is_never_slower(name):
    unsettled, hours = recipe.load(name), []
    for gigabytes in range(60, 200, 10):
        settled = plan.choose(unsettled, gigabytes * 1e9)
        assert not settled.runtime.auto()
        stages = plan.plan(settled)
        if plan.largest(stages).peak <= 0.95 * gigabytes:
            hours.append(sum(stage.hours for stage in stages))
        else:
            assert not hours  # where less memory was enough, so is more
            runtime = settled.runtime
            assert runtime.gradient_checkpointing and runtime.micro_batch == 1
    assert len(hours) > 5 and hours == sorted(hours, reverse=True) and hours[0] > 1.1 * hours[-1]


def test_activations_are_computed_twice_only_where_memory_is_short():
    large = recipe.load("scale-8b-lora")
    twice = [plan.choose(large, memory).runtime.gradient_checkpointing for memory in (60e9, 80e9, 141e9)]
    assert twice == [True, False, False]


def test_nothing_that_fits_is_faster_than_what_the_planner_chooses():
    large, memory = recipe.load("scale-8b-lora"), 80e9

    def hours(settled):
        return sum(stage.hours for stage in plan.plan(settled))

    best = hours(plan.choose(large, memory))
    for checkpointing in ("true", "false"):
        for micro_batch in (1, 2, 3, 4, 8, 16):
            for rows in (16, 32, 64, 128, 256, 512):
                settings = dict(gradient_checkpointing=checkpointing, micro_batch=micro_batch, batch_size=rows)
                changes = [f"runtime.{key}={value}" for key, value in settings.items()]
                other = recipe.load("scale-8b-lora", changes)
                if plan.largest(plan.plan(other)).peak * 1e9 <= 0.95 * memory:
                    assert hours(other) >= best


def test_what_the_recipe_says_is_not_chosen():
    said = recipe.load("scale-8b", ["runtime.micro_batch=3", "runtime.gradient_checkpointing=true"])
    settled = plan.choose(said, 141e9).runtime
    assert (settled.micro_batch, settled.gradient_checkpointing) == (3, True) and settled.batch_size > 32
    fixed = recipe.load("tiny-4.1")
    assert plan.choose(fixed, 1e9) is fixed


@pytest.mark.parametrize("value", ["0", "automatic", "1.5"])
def test_what_is_neither_a_number_nor_auto_is_one_sentence(value):
    with pytest.raises(ValueError, match="The recipe's runtime.micro_batch: Input should be") as error:
        recipe.load("scale-8b", [f"runtime.micro_batch={value}"])
    assert "\n" not in str(error.value)


def test_a_dry_run_says_what_it_chose(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(plan, "memory_here", lambda: (141e9, "The GPU"))
    dry_run.show(recipe.load("scale-8b"), tmp_path)
    words = " ".join(capsys.readouterr().out.split())
    assert "Chosen for this memory, as the recipe asks: gradient_checkpointing=false, micro_batch=4" in words
    shares = cost.MACHINES["H100"].shares
    assert (
        f"at the shares of its stated rates that were measured on an H200 on {shares.dates['graph']}: sampling "
        f"{shares.of_engine('graph'):.0%} of the bandwidth (by the engine graph)" in words
    )
    dry_run.show(recipe.load("scale-8b", ["runtime.engine=generate"]), tmp_path)
    assert f"on {shares.dates['generate']} and {shares.dates['scoring']}: sampling" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_plan_of_what_was_measured_takes_the_time_that_it_took():
    """Of each stage the newest measurement counts: `generate` in the first call, the others in one that was cut off."""
    whole, partial = (
        json.loads((rates.MEASURED / name).read_text(encoding="utf-8"))["stages"]
        for name in ("gpu-h200-llama-3.1-8b.json", "partial-gpu-h200-llama-3.1-8b.json")
    )
    model, gpu = cost.MODELS["meta-llama/Llama-3.1-8B"], cost.MACHINES["H200"]
    for engine, stages in (("generate", whole), ("graph", partial)):
        lengths, read = stages["sampling"]["lengths"], stages["scoring"]["tokens"]
        prompt = (read - sum(lengths)) / len(lengths)
        seconds = cost.sampling(model, 32, 32, prompt, max(lengths), gpu, "bfloat16", engine=engine)
        assert stages["sampling"]["engine"] == engine
        assert seconds == pytest.approx(stages["sampling"]["seconds"], rel=1e-3)
    # As many tokens, of replies of equal length; the official reward model has no output head.
    length = read / 32 - prompt
    base = dict(replies=32, batch_size=32, prompt=prompt, reply=length, machine=gpu)
    judge = cost.MODELS["allenai/llama-3-tulu-2-8b-uf-mean-rm"]
    time = cost.step(model, judge, **base)
    assert time["updating"] == pytest.approx(stages["update"]["seconds"], rel=1e-3)
    judged = time["scoring"] - cost.step(model, None, **base)["scoring"]
    assert judged == pytest.approx(stages["scoring"]["seconds"], rel=1e-3)


def test_a_small_model_is_planned_no_faster_than_its_kernels_are_launched():
    smollm2 = cost.MODELS["SmolLM2-135M-Instruct"]
    measured = json.loads((rates.MEASURED / "gpu-h200-llama-3.1-8b.json").read_text(encoding="utf-8"))["profile"]
    assert cost.launching(smollm2, measured["steps"]) == pytest.approx(measured["seconds"])
    assert cost.launching(smollm2, measured["steps"], replayed=True) == pytest.approx(measured["gpu_seconds"])
    settings = recipe.load("small-4.1")
    step = next(stage for stage in plan.plan(settings) if stage.name.startswith("policy-gradient/"))
    launches = settings.policy_gradient.batch_size / settings.runtime.micro_batch * 3 * cost.launching(smollm2, 1)
    steps = len(settings.seeds) * settings.policy_gradient.steps(425)
    assert step.hours > steps * launches / 3600 > step.busy_hours / 3
    # A large model's kernels take longer than launching them.
    stages = plan.plan(recipe.load("scale-8b"), machine=cost.MACHINES["H200"])
    assert all(stage.hours == pytest.approx(stage.busy_hours, rel=0.05) for stage in stages)


def test_trainings_at_once_share_the_launching_of_kernels_but_not_the_gpus_work():
    stages = [
        planned_stages.PlannedStage("samples/a", {}, 2.0, 1.0),
        planned_stages.PlannedStage("policy-gradient/a/b", {}, 6.0, 1.0),
        planned_stages.PlannedStage("policy-gradient/a/c", {}, 6.0, 1.0),
    ]
    assert [plan.hours(stages, jobs) for jobs in (1, 2, 4, 100)] == [14.0, 8.0, 5.0, 4.0]


def test_an_engine_that_was_not_measured_is_planned_as_the_best_that_was():
    shares = cost.MACHINES["H200"].shares
    assert shares.of_engine("generate") < shares.of_engine("graph") == shares.of_engine("continuous")
    assert cost.MACHINES["A100"].shares == shares


def test_auto_is_planned_as_the_engine_that_it_stands_for():
    machine, settings = cost.MACHINES["H200"], recipe.load("paper-4.2-llama-1b")
    engines = [planned_stages.Planner(settings, gpus, machine).engine for gpus in (1, 2)]
    assert settings.runtime.engine == "auto" and engines == ["graph", "generate"]


def test_rates_are_of_the_newest_warm_stages_of_the_largest_model_also_of_a_call_that_was_cut_off(
    monkeypatch, tmp_path
):
    newest = json.loads((rates.MEASURED / "partial-gpu-h200-llama-3.1-8b.json").read_text(encoding="utf-8"))
    now, monday, tuesday = rates.table()["H200"], "2027-01-04", "2027-01-05"

    def write(name, date, stages, **change):
        made = newest["made"] | {"date": f"{date}T00:00:00+00:00"}
        (tmp_path / name).write_text(json.dumps(newest | {"made": made, "stages": stages} | change), encoding="utf-8")

    stages = newest["stages"]
    slower = {name: stages[name] | {"seconds": 2 * stages[name]["seconds"]} for name in ("sampling", "scoring")}
    write("gpu-a.json", monday, stages | {"static": stages["sampling"] | {"engine": "static"}})
    write("partial-gpu-b.json", tuesday, slower | {"update": {"failed": "The minutes were over."}})
    write("gpu-c.json", "2027-01-06", slower, parameters=newest["parameters"] / 2, layers=16)
    monkeypatch.setattr(rates, "MEASURED", tmp_path)
    rated = rates.table()["H200"]
    assert rated.sampling == {"graph": pytest.approx(now.sampling["graph"] / 2, rel=1e-3)}
    assert rated.scoring == pytest.approx(now.scoring / 2, rel=1e-3) and rated.updating == now.updating
    assert rated.dates == {"graph": tuesday, "scoring": tuesday, "updating": monday}
    cold = {name: stage | {"warm": False} for name, stage in slower.items()}
    write("partial-gpu-b.json", tuesday, cold)
    assert rates.table()["H200"].dates == {"graph": monday, "scoring": monday, "updating": monday}
    (tmp_path / "gpu-a.json").unlink()
    assert rates.table() == {}  # nothing of a learning step, and nothing warm


def test_the_wheel_has_the_rates_that_were_measured():
    kept = json.loads((pathlib.Path(__file__).parents[1] / "rvlib/data/results/rates.json").read_text(encoding="utf-8"))
    assert kept == {gpu: vars(shares) for gpu, shares in rates.table().items()}, (
        "run python -m rvlib.lm.experiments.bench.rates"
    )


# Refused, in a sentence


def stopped(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    assert "Traceback" not in str(stop.value) and "\n" not in str(stop.value)
    return str(stop.value)


def test_no_gpu_for_a_recipe_that_needs_one(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "A policy of 8.0 billion parameters must have a GPU, but none is seen here" in stopped(
        "run", "scale-8b", "--folder", str(tmp_path / "run")
    )
    assert not (tmp_path / "run").exists()


def test_a_gpu_without_bfloat16(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    assert "must have bfloat16 arithmetic for this recipe, but the Tesla V100 has not" in stopped(
        "run", "scale-8b", "--folder", str(tmp_path / "run")
    )


def test_8_bit_adam_on_several_gpus(tmp_path):
    assert "runtime.optimizer must be adam with several GPUs" in stopped(
        "run", "scale-8b", "--dry-run", "--gpus", "2", "--folder", str(tmp_path / "run")
    )


def test_memory_that_runs_out_names_the_stage_and_its_largest_part(monkeypatch, tmp_path):
    def out_of_memory(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")

    monkeypatch.setattr(run, "run", out_of_memory)
    assert "Memory ran out (CUDA out of memory. Tried to allocate 2.00 GiB.); the plan's largest stage is" in stopped(
        "run", "tiny-4.1", "--folder", str(tmp_path)
    )


@pytest.mark.parametrize("load", [policies.load_policy, policies.load_tokenizer, reward_models.load_reward_model])
def test_the_hub_refuses_or_is_cut_off(load, monkeypatch):
    monkeypatch.setattr("rvlib.lm.data.hub.repository", lambda *_: ("of the cache", None))  # so that loading is tried

    def fail(error):
        def from_pretrained(*_, **__):
            raise OSError("We couldn't connect.\nMore.") from error

        for kind in ("AutoModelForCausalLM", "AutoTokenizer"):
            monkeypatch.setattr(getattr(transformers, kind), "from_pretrained", from_pretrained)
        monkeypatch.setattr(transformers.PreTrainedConfig, "get_config_dict", from_pretrained)
        monkeypatch.setattr(transformers.utils, "find_adapter_config_file", lambda *_, **__: None)  # asks five times

    gated = hub.GatedRepoError.__new__(hub.GatedRepoError)

    class Cut(Exception):  # what an HTTP library raises, of no kind that Python knows
        __module__ = "httpx2"

    cut = "its download was cut off, or the hub is out of reach; the same command goes on with it"
    for error, reason in (
        (gated, "accept the terms on its page and log in with `hf auth login`"),
        (ConnectionResetError("reset"), cut),
        (Cut("peer closed"), cut),
    ):
        fail(error)
        with pytest.raises(OSError, match="meta-llama/none") as caught:
            load("meta-llama/none")
        assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_a_step_takes_longer_for_more_of_everything():
    base = dict(replies=32, batch_size=16, prompt=200, reply=512, machine=cost.MACHINES["H100"])
    policy = cost.MODELS["meta-llama/Llama-3.1-8B"]

    def time(**change):
        return np.array(list(cost.step(policy, policy, **base | change).values()))

    assert (time(replies=64) > time()).all() and (time(gpus=2) < time()).all()
    assert time(gradient_checkpointing=True)[2] == pytest.approx(time()[2] * 8 / 6)
    assert time(rank=8)[2] == pytest.approx(time()[2] * 4 / 6)


def test_the_book_has_the_plans_as_they_are():
    for name, content in (("plans.json", dry_run.plans()), ("small_plans.json", dry_run.small_plans())):
        kept = json.loads((RESULTS / name).read_text(encoding="utf-8"))
        assert kept == content, "run python -m rvlib.lm.experiments.planning.dry_run"


def test_every_fixed_function_can_be_planned():
    assert set(reward_models.FUNCTIONS) <= set(cost.MODELS)
