"""Several processes on one run, here two on the CPU: one process's numbers, resuming with another count, errors."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
pytest.importorskip(
    "accelerate", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
psutil = pytest.importorskip(
    "psutil", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from small_models import make_llama

from rvlib.lm import missing, optim, processes
from rvlib.lm.data import tiny
from rvlib.lm.experiments import recipe as recipes
from rvlib.lm.models import policies
from rvlib.lm.optim import fsdp2
from rvlib.lm.training.trainer import Trainer

ROOT = pathlib.Path(__file__).resolve().parent.parent
FSDP2, ZERO3 = ROOT / "rvlib/accelerate/fsdp2.yaml", ROOT / "rvlib/accelerate/zero3.yaml"
WITHOUT = not importlib.util.find_spec("deepspeed")
DEEPSPEED = pytest.mark.skipif(WITHOUT, reason="DeepSpeed is not installed: pip install -r requirements-deepspeed.txt")
SHARED = [pytest.param(FSDP2, id="fsdp2"), pytest.param(ZERO3, id="zero3", marks=DEEPSPEED)]
YAML = """
base: tiny-4.1
title: smaller still
seeds: [0]
data: {prompts: 80}
policies: {tiny: {count: 320}}
sft: {epochs: 1}
reward_models: {on-policy-75: null, on-policy-50: null, on-policy-25: null, on-policy-0: null, ground-truth: null}
reward_training: {epochs: 1, batch_size: 8}
measure: {prompts: 16, num_generations: 4}
policy_gradient: {epochs: 12, max_new_tokens: 8}
evaluation: {prompts: 7, num_generations: 2, per_epoch: 1}
runtime: {save_every: 2, batch_size: 12, micro_batch: 8}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A folder with the recipe, data of its own, one thread a process."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "small.yaml").write_text(YAML)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVLIB_DATA", str(folder / "data"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("PYTHONPATH", str(ROOT))
        yield folder


def command(count, arguments, config=FSDP2):
    """Python with the arguments `arguments`, by itself or as two processes of accelerate."""
    launcher = [
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(config),
        "--num_processes",
        str(count),
        "--main_process_port",
        "0",
    ]
    return [sys.executable, *(launcher if count > 1 else []), *map(str, arguments)]


def recipe(environment, folder, *more):
    return ["-m", "rvlib", "run", environment / "small.yaml", "--folder", folder, *more]


def call(arguments):
    """(exit status, what was written to stderr): the test fails if it hangs."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def single(environment):
    """The folder of a run by one process."""
    status, errors = call(command(1, recipe(environment, environment / "one")))
    assert status == 0, errors
    return environment / "one"


def logs(folder):
    """Every number of every step of a run: {stage: (steps, numbers)}."""
    return {
        str(path.parent.relative_to(folder)): np.array(
            [value for line in path.read_text().splitlines() for value in json.loads(line).values()]
        )
        for path in sorted(folder.rglob("log.jsonl"))
    }


def assert_same(folder, expected):
    logged, expected = logs(folder), logs(expected)
    assert (
        list(logged) == list(expected) and len(logged) == 1 + 1 + 2
    )  # fine-tuning, a reward model, policy gradient on two teachers
    for stage, numbers in expected.items():
        assert np.allclose(logged[stage], numbers, rtol=0, atol=1e-4), stage


@pytest.mark.parametrize("config", SHARED)
def test_two_processes_have_the_losses_of_one(environment, single, config):
    shared = environment / config.stem
    status, errors = call(command(2, recipe(environment, shared), config))
    assert status == 0, errors
    assert_same(shared, single)
    files, expected = (
        {str(path.relative_to(folder)) for path in folder.rglob("*") if "tensorboard" not in str(path)}
        for folder in (shared, single)
    )
    assert files == expected


def test_a_run_is_killed_and_gone_on_with_by_more_processes_and_by_fewer(environment, single):
    folder = environment / "killed"
    legs = [
        (1, FSDP2, "sft/tiny"),
        (2, ZERO3, "reward-models/tiny/on-policy-100"),
        (2, FSDP2, "policy-gradient/tiny/on-policy-100/seed-0"),
        (1, FSDP2, "policy-gradient/tiny/low-variance/seed-0"),
    ]
    for count, config, at in legs:
        if config == FSDP2 or not WITHOUT:
            kill_at_checkpoint(command(count, recipe(environment, folder), config), folder / at)
    status, errors = call(command(2, recipe(environment, folder)))
    assert status == 0, errors
    assert_same(folder, single)
    assert not list(folder.rglob("checkpoint-*")) and not list(folder.rglob("*.partial"))


def kill_at_checkpoint(arguments, stage):
    """Start a run and, at the first checkpoint in a stage's folder, kill all its processes at once."""
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        family, deadline = psutil.Process(process.pid), time.monotonic() + 120
        while not list(stage.glob("checkpoint-*.safetensors")):
            assert process.poll() is None and time.monotonic() < deadline, f"no checkpoint in {stage}"
            time.sleep(0.01)
        for member in [family, *family.children(recursive=True)]:
            member.kill()
    assert not (stage / "manifest.json").exists(), "killed too late to be gone on with"


def test_a_refusal_is_one_sentence_of_one_process(environment, single):
    status, errors = call(command(2, recipe(environment, single, "--set", "policy_gradient.kl_coef=0.1")))
    assert status != 0 and errors.count("holds a run of another recipe, which differs in policy_gradient.kl_coef") == 1


@pytest.fixture(scope="module")
def audited(environment):
    """The arguments of an audit of small models, and its folder by one process."""
    make_llama(environment / "policy", architecture="LlamaForCausalLM", max_tokens=80)
    make_llama(environment / "judge", seed=1, max_tokens=80)
    make_llama(environment / "short", max_tokens=12)
    prompts = [" ".join("abcdef"[i % 6] for i in range(start, start + 3)) for start in range(21)]
    (environment / "prompts.txt").write_text("\n".join(f"{prompt} {i}" for i, prompt in enumerate(prompts)))
    arguments = ["-m", "rvlib", "audit", "--policy", environment / "policy", "--prompts", environment / "prompts.txt"]
    arguments += ["--num-generations", "3", "--max-new-tokens", "6", "--reward-model", environment / "judge"]
    status, errors = call(command(1, [*arguments, "--folder", environment / "audit-1"]))
    assert status == 0, errors
    return arguments, environment / "audit-1"


def test_two_processes_have_the_audit_of_one(environment, audited):
    arguments, single = audited
    shared = environment / "audit-2"
    started = command(2, [*arguments, "--folder", shared])
    done = subprocess.run(started, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    of_one, of_two = (json.loads((folder / "audit.json").read_text()) for folder in (single, shared))
    for name in sorted(path.name for path in (single / "samples").glob("batch-*")):
        assert (shared / "samples" / name).read_text() == (single / "samples" / name).read_text()
    rewards = [audit["reward_models"]["judge"]["rewards"] for audit in (of_one, of_two)]
    assert np.shape(rewards[0]) == (21, 3) and np.allclose(*rewards, rtol=0, atol=1e-4)
    assert of_one["prompts"] == of_two["prompts"]
    assert done.stdout.count("Report: ") == 1  # told and drawn by one process
    lines = done.stderr.replace("\r", "\n").splitlines()
    assert sum(line.startswith("Scoring by judge: 100%") for line in lines) in (1, 2)  # a bar's last state comes twice
    assert not list(shared.glob("*.partial*"))


SLOW = """
import sys, time
from rvlib.audit import command
from rvlib.lm.models.reward_functions import ClassifierReward

def slow(*arguments):
    time.sleep(2)
    return score(*arguments)

score, ClassifierReward.__call__ = ClassifierReward.__call__, slow
command.main(sys.argv[1:])
"""


def test_ctrl_c_keeps_what_several_processes_of_an_audit_scored(environment, audited, tmp_path):
    arguments, single = audited
    script, folder = tmp_path / "slow.py", tmp_path / "audit"
    script.write_text(SLOW)
    started = command(2, [script, *arguments[3:], "--folder", folder], ZERO3)
    with subprocess.Popen(started, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        deadline = time.monotonic() + 300
        while not list(folder.glob("*.partial.jsonl")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode != 0 and errors.count("Stopped; the same command goes on from what was drawn and") == 1
    (partial,) = folder.glob("*.partial.jsonl")
    kept = json.loads(partial.read_text().splitlines()[0])[2]
    status, errors = call(command(2, [*arguments, "--folder", folder], ZERO3))
    assert status == 0, errors
    of_one, of_two = (
        json.loads((each / "audit.json").read_text())["reward_models"]["judge"]["rewards"] for each in (single, folder)
    )
    assert of_two[: len(kept)] == kept and np.allclose(of_one, of_two, rtol=0, atol=1e-4)


def test_what_an_audit_refuses_is_one_sentence_of_one_process(environment, audited):
    arguments, _ = audited
    status, errors = call(command(2, [*arguments, "--reward-model", environment / "short"]))
    assert status != 0 and errors.count("Every prompt, with a reply of 6 tokens, must be one that all models can") == 1


FAILS = """
import sys
from rvlib.lm import processes
from rvlib.lm.experiments import run
from rvlib.lm.training import supervised

def fails(*arguments):
    if processes.rank() == 1:
        raise ValueError("The second process must not go on.")
    return loss(*arguments)

loss, supervised.bradley_terry = supervised.bradley_terry, fails
run.main(sys.argv[1:])
"""


def test_an_error_of_one_process_ends_both(environment):
    script = environment / "fails.py"
    script.write_text(FAILS)
    status, errors = call(command(2, [script, *recipe(environment, environment / "failed")[3:]]))
    assert status != 0 and errors.count("The second process must not go on.") == 1


@pytest.mark.parametrize("config", SHARED)
def test_the_weights_are_shared_out_and_may_wait_in_the_hosts_memory(environment, tmp_path, config):
    script, named = tmp_path / "shares.py", tmp_path / config.name
    script.write_text(SHARES)
    named.write_text(config.read_text().replace("fsdp_offload_params: false", "fsdp_offload_params: true"))
    if config == ZERO3:  # parameters as small as these would stay whole
        settings = {
            "stage": 3,
            "stage3_param_persistence_threshold": 0,
            "offload_optimizer": {"device": "cpu"},
            "offload_param": {"device": "cpu"},
        }
        (tmp_path / "zero3.json").write_text(json.dumps({"zero_optimization": settings}))
        named.write_text(
            "distributed_type: DEEPSPEED\n"
            f"deepspeed_config: {{zero3_init_flag: false, deepspeed_config_file: {tmp_path / 'zero3.json'}}}\n"
        )
    done = subprocess.run(command(2, [script, tmp_path], named), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.count("Out of memory at step 0: going on with micro-batches of 1.") == 2
    )  # once in each precision
    for compute, error in {"float32": 1e-6 if config == FSDP2 else 1e-5, "bfloat16": 2e-2}.items():
        single, shared = (np.load(tmp_path / f"{count}-{compute}.npy") for count in ("one", "two"))
        assert len(single) == 7 and np.allclose(shared, single, rtol=0, atol=error)


# Five rows in micro-batches of two: the first process has three of them, the second two and then nothing to do.
SHARES = """
import os, pathlib, sys, torch
import numpy as np
from dataclasses import replace
from rvlib.lm import processes
from rvlib.lm.data import tiny
from rvlib.lm.experiments import recipe
from rvlib.lm.models import policies
from rvlib.lm.sampling.log_probs import reply_log_probs
from rvlib.lm.training.trainer import Trainer

folder, precisions = pathlib.Path(sys.argv[1]), ("float32", "bfloat16")

def steps(name, compute):
    changes = ["micro_batch=2", "gradient_checkpointing=true", f"compute_dtype={compute}"]
    runtime = recipe.load("tiny-4.1", [f"runtime.{change}" for change in changes]).runtime
    policy = policies.load_policy(tiny.TINY)
    trainer = Trainer(policy.model, folder / name / compute, 1e-3, runtime)
    policy = replace(policy, sharing=trainer.adam)
    loss = lambda rows: -reply_log_probs(policy, [[5]] * len(rows), [[i + 6, i + 7] for i in rows])
    bad = lambda rows: loss(rows) * (float("nan") if 3 in rows else 1.0)  # a row of the second process
    def steep(rows):  # finite, but not its gradient: the derivative of √(0·x) is not a number
        losses = loss(rows)
        return losses + torch.sqrt(losses * 0) if 3 in rows else losses
    losses = [trainer.update(list(range(5)), loss) for _ in range(3)]
    for name, of_rows in {"loss": bad, "norm of the gradient": steep}.items():
        try:
            trainer.update(list(range(5)), of_rows)
            raise SystemExit(f"a {name} that is not finite went on")
        except FloatingPointError as error:
            assert str(error).startswith(f"The {name} must be finite, got ") and "at step 0" in str(error), error
    losses += [trainer.update(list(range(5)), loss) for _ in range(2)]  # nothing of it is left
    if processes.world() > 1:
        # The second process has no room for two rows at once, and both go on with one.
        trainer._fits = lambda tokens: trainer.micro_batch == 1 or processes.first()
    losses.append(trainer.update(list(range(5)), loss, lambda row: 3))
    assert trainer.micro_batch == (1 if processes.world() > 1 else 2)
    with policy.sharing.whole(), torch.no_grad():
        losses.append(float(loss([0, 1]).sum()))
    return trainer, losses

if os.environ["RANK"] == "0":
    for compute in precisions:
        np.save(folder / f"one-{compute}.npy", steps("one", compute)[1])
processes.start()
for compute in precisions:
    trainer, losses = steps("two", compute)
    parameters = list(trainer.adam.parameters.values())
    shards = [value.to_local() if hasattr(value, "to_local") else value.ds_tensor for value in parameters]
    size = sum(getattr(value, "ds_numel", value.numel()) for value in parameters)
    assert sum(value.numel() for value in shards) < 0.51 * size
    with trainer.adam.whole():
        assert not any(hasattr(value, "full_tensor") or not value.numel() for value in trainer.model.parameters())
    assert all(hasattr(value, "full_tensor") or not value.numel() for value in trainer.model.parameters())
    assert all(buffer.dtype == torch.float32 for buffer in trainer.model.buffers())  # rotary frequencies
    saved = trainer.adam.weights()
    if processes.first():
        np.save(folder / f"two-{compute}.npy", losses)
        assert {value.dtype for value in saved.values()} == {torch.float32}
    trainer.finish()
processes.stop()
"""


def test_a_process_says_no_to_a_micro_batch_that_would_take_more_than_is_free(tmp_path, monkeypatch):
    runtime = recipes.load("tiny-4.1", ["runtime.micro_batch=4"]).runtime
    trainer = Trainer(policies.load_policy(tiny.TINY, device="cpu").model, tmp_path, 1e-3, runtime)
    assert trainer._fits(10**9)  # alone it tries
    monkeypatch.setattr(processes, "world", lambda: 2)
    gpu = {"is_available": True, "reset_peak_memory_stats": None, "memory_reserved": 70, "memory_allocated": 50}
    for name, value in (gpu | {"max_memory_allocated": 90, "mem_get_info": (60, 0)}).items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    assert trainer._fits(10**9)  # of the first nothing is known
    trainer._remember(100)
    assert trainer.largest == (100, 40)
    assert trainer._fits(200) and not trainer._fits(201)  # 60 bytes are free and 20 reserved for nothing
    trainer.micro_batch = 1
    assert trainer._fits(10**9)  # one row is tried


@pytest.mark.parametrize("asked", ["true", "false"])
def test_only_weights_that_are_to_wait_in_the_hosts_memory_do(monkeypatch, asked):
    class Sharded(Exception):
        """With the policy that the first layer was to be shared out by."""

    def fully_shard(module, **sharding):
        raise Sharded(sharding["offload_policy"])

    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", asked)
    monkeypatch.setattr(torch.distributed.fsdp, "fully_shard", fully_shard)
    monkeypatch.setattr("torch.distributed.device_mesh.init_device_mesh", lambda *_: None)
    with pytest.raises(Sharded) as error:
        fsdp2.Fsdp2(policies.load_policy(tiny.TINY, device="cpu").model, 1e-3, recipes.load("tiny-4.1").runtime)
    assert isinstance(error.value.args[0], torch.distributed.fsdp.CPUOffloadPolicy) == (asked == "true")


@pytest.mark.parametrize("config", SHARED)
def test_a_server_is_asked_by_the_first_process_alone(environment, tmp_path, config):
    script = tmp_path / "served.py"
    script.write_text(SERVED)
    status, errors = call(command(2, [script, tmp_path], config))
    assert status == 0, errors
    single, shared = (json.loads((tmp_path / f"{count}.json").read_text()) for count in ("one", "two"))
    assert single["asked"] == shared["asked"] == 4 and single["drawn"] == shared["drawn"]
    for numbers, expected in zip(shared["numbers"], single["numbers"], strict=True):
        assert numbers == pytest.approx(expected, abs=1e-4)


# A stand-in for the server's client draws from the weights that it is sent, in the process that asks.
SERVED = """
import json, os, pathlib, sys
import numpy as np
from dataclasses import replace
from rvlib.lm import processes
from rvlib.lm.data import tiny
from rvlib.lm.experiments import recipe
from rvlib.lm.models import policies
from rvlib.lm.sampling import engines
from rvlib.lm.sampling.generation import generate
from rvlib.lm.sampling.replies import Sampling, sample_replies
from rvlib.lm.seeding import torch_seed
from rvlib.lm.training.policy_gradient import policy_gradient_step
from rvlib.lm.training.trainer import Trainer

folder = pathlib.Path(sys.argv[1])
settings = recipe.load("tiny-4.1", [
    "runtime.engine=vllm",
    "runtime.server=http://nowhere",
    "runtime.batch_size=12",
    "policy_gradient.batch_size=16",
    "policy_gradient.max_new_tokens=6",
])

class Client:
    stamp, asked = None, 0

    def __init__(self):
        self.policy = policies.load_policy(tiny.TINY)

    def update_model_params(self, model):
        self.policy.model.load_state_dict(dict(model.named_parameters()), strict=False)

    def reset_prefix_cache(self):
        self.policy.model.tie_weights()

    def generate(self, prompts, n, temperature, max_tokens, **settings):
        self.asked += 1
        with torch_seed(self.asked):
            completion_ids = generate(self.policy, prompts, n, max_new_tokens=max_tokens, temperature=temperature)
        return {"completion_ids": completion_ids}

def steps(count):
    client = Client()
    engines._client = lambda *_: client
    policy, ref_policy = (policies.load_policy(tiny.TINY) for _ in range(2))
    prompts = tiny.prompts(8, 0)
    server = {"engine": "vllm", "server": settings.runtime.server}
    drawn = sample_replies(policy, prompts, folder / count / "drawn", Sampling(2, 6), **server, progress=False)
    trainer = Trainer(policy.model, folder / count, 1e-2, settings.runtime)
    policy = replace(policy, sharing=trainer.adam)
    teacher = lambda prompts, replies: np.array([[float(len(reply) % 7) for reply in group] for group in replies])
    numbers = [
        policy_gradient_step(trainer, policy, ref_policy, teacher, prompts, settings, (0, step, 0)) for step in range(3)
    ]
    if processes.first():
        (folder / f"{count}.json").write_text(json.dumps({"asked": client.asked, "numbers": numbers, "drawn": drawn}))

if os.environ["RANK"] == "0":
    steps("one")
processes.start()
steps("two")
processes.stop()
"""


@pytest.mark.parametrize("config", SHARED)
def test_models_that_are_only_read_are_shared_out_and_give_the_numbers_of_whole_ones(environment, tmp_path, config):
    script = tmp_path / "frozen.py"
    script.write_text(FROZEN)
    status, errors = call(command(2, [script, tmp_path], config))
    assert status == 0, errors
    single, shared = (json.loads((tmp_path / f"{count}.json").read_text()) for count in ("one", "two"))
    for numbers, expected in zip(shared, single, strict=True):
        assert numbers == pytest.approx(expected, abs=2e-5)


# A policy with adapters, and one that learns whole beside its ref_policy; reward models on the device and on the host.
FROZEN = """
import json, os, pathlib, sys
import numpy as np, torch, transformers
from dataclasses import replace
from rvlib.lm import processes
from rvlib.lm.data import tiny
from rvlib.lm.experiments import recipe
from rvlib.lm.models import policies
from rvlib.lm.models.reward_functions import ClassifierReward
from rvlib.lm.models.adapters import add_adapter
from rvlib.lm.optim.frozen import share_out
from rvlib.lm.training.policy_gradient import policy_gradient_step
from rvlib.lm.training.trainer import Trainer

folder = pathlib.Path(sys.argv[1])
changes = ["runtime.batch_size=4", "policy_gradient.batch_size=12", "policy_gradient.max_new_tokens=6"]
settings = recipe.load("tiny-4.1", [*changes, "runtime.compute_dtype=float32"])

def reward_model(seed, placement):
    policy = policies.load_policy(tiny.TINY)
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(**{**policy.model.config.to_dict(), "num_labels": 1, "architectures": None})
    model = transformers.LlamaForSequenceClassification(config).eval()
    numel = model.num_parameters()
    sharing = share_out(model, placement)
    if processes.world() > 1:
        assert model.num_parameters() == 0 and sum(shard.part.numel() for shard in sharing.shards) < 0.51 * numel
    return ClassifierReward("reward model", model, policy.tokenizer, {}, sharing=sharing)

def steps(count):
    teacher, truth, numbers, prompts = reward_model(1, "shared"), reward_model(2, "host"), [], tiny.prompts(6, 0)
    for adapters in (True, False):
        policy, ref_policy = policies.load_policy(tiny.TINY), None
        if adapters:
            add_adapter(policy, recipe.LoRA(rank=4, alpha=8))
        else:
            ref_policy = policies.load_policy(tiny.TINY)
            ref_policy = replace(ref_policy, sharing=share_out(ref_policy.model, "host"))
        trainer = Trainer(policy.model, folder / count / str(adapters), 1e-2, settings.runtime)
        policy = replace(policy, sharing=trainer.adam)
        for step in range(2):
            seeds = (0, step, 0)
            numbers.append(policy_gradient_step(trainer, policy, ref_policy, teacher, prompts, settings, seeds))
    texts = [["good", "bad food"]]
    for prompts_of in (prompts[:1], prompts[:3]):  # of one prompt the second process has none
        rewards = processes.score(truth, prompts_of, texts * len(prompts_of))
        numbers.append({str(i): float(value) for i, value in enumerate(rewards.ravel())})
    if processes.first():
        (folder / f"{count}.json").write_text(json.dumps(numbers))

if os.environ["RANK"] == "0":
    steps("one")
processes.start()
steps("two")
processes.stop()
"""


SRUN = """#!/bin/sh
shift  # --kill-on-bad-exit
SLURM_NODEID=1 "$@" & SLURM_NODEID=0 "$@"; status=$?; wait; exit $status
"""


def test_the_slurm_script_starts_every_node(environment, tmp_path, monkeypatch):
    tools = {
        "srun": SRUN,
        "scontrol": "#!/bin/sh\necho localhost",
        "accelerate": f'#!/bin/sh\nexec {sys.executable} -m accelerate.commands.accelerate_cli "$@"',
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name, value in {"JOB_NODELIST": "localhost", "JOB_ID": os.getpid(), "NNODES": 2, "GPUS_ON_NODE": 1}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    done = subprocess.run(
        ["bash", FSDP2.with_name("slurm.sh"), "no-such-recipe"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode != 0 and done.stderr.count("The recipe must be a YAML file or one of") == 1


@pytest.mark.parametrize("first", [0, 1])
def test_the_slurm_script_gives_every_job_of_an_array_its_part(tmp_path, first):
    (tmp_path / "srun").write_text('#!/bin/sh\nfor last; do :; done\necho "$last"')
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho localhost")
    for tool in tmp_path.iterdir():
        tool.chmod(0o755)
    slurm = {"JOB_NODELIST": "localhost", "JOB_ID": 7, "ARRAY_TASK_MIN": first, "ARRAY_TASK_COUNT": 3}
    parts = []
    for number in range(first, first + 3):
        settings = {f"SLURM_{name}": str(value) for name, value in (slurm | {"ARRAY_TASK_ID": number}).items()}
        environment = os.environ | settings | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        script = ["bash", FSDP2.with_name("slurm.sh"), "tiny-4.1"]
        parts.append(subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout.strip())
    assert parts == ["1/3", "2/3", "3/3"]


@DEEPSPEED
def test_another_stage_of_deepspeed_is_refused_with_what_to_use(environment, tmp_path):
    (tmp_path / "two.yaml").write_text(ZERO3.read_text().replace("zero_stage: 3", "zero_stage: 2"))
    status, errors = call(command(2, recipe(environment, tmp_path / "run"), tmp_path / "two.yaml"))
    sentence = (
        "DeepSpeed must share the weights by its stage 3, in memory, got stage 2; "
        "launch with rvlib/accelerate/zero3.yaml.\n"
    )
    assert status != 0 and errors.count(sentence) == 1


def test_a_deepspeed_that_is_not_installed_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    monkeypatch.delitem(sys.modules, "rvlib.lm.optim.zero3", raising=False)
    monkeypatch.setattr(processes, "by_deepspeed", lambda: True)
    with pytest.raises(ModuleNotFoundError) as error:
        optim.make_optimizer(None, 1e-3, recipes.load("tiny-4.1").runtime)
    assert str(missing(error.value.name)).endswith(
        "need the package deepspeed, which is not installed here; "
        "get it with `pip install -r requirements-deepspeed.txt`."
    )


SAVES = """
import pathlib, sys
from rvlib.lm.models import policies

policies.save(policies.load_policy("tiny"), pathlib.Path(sys.argv[1]))
assert "deepspeed" not in sys.modules
"""


def test_a_deepspeed_that_is_not_asked_for_is_not_imported(environment, tmp_path):
    status, errors = call(command(1, ["-c", SAVES, tmp_path / "model"]))
    assert (status, errors) == (0, "") and (tmp_path / "model/model.safetensors").exists()


def test_eight_bit_adam_is_refused_with_what_to_set(monkeypatch):
    runtime = recipes.load(
        "tiny-4.1", ["runtime.optimizer=adam8bit", "runtime.weights_dtype=bfloat16", "runtime.compute_dtype=bfloat16"]
    ).runtime
    processes.check(runtime.engine, runtime.optimizer)
    monkeypatch.setattr(processes, "world", lambda: 2)
    with pytest.raises(
        ValueError,
        match="must be adam, whose 32-bit weights and moments they share, got adam8bit; set runtime.optimizer to adam",
    ):
        processes.check(runtime.engine, runtime.optimizer)


def test_the_engine_of_one_process_is_refused_with_the_others(monkeypatch):
    runtime = recipes.load("tiny-4.1", ["runtime.engine=continuous"]).runtime
    processes.check(runtime.engine, runtime.optimizer)
    monkeypatch.setattr(processes, "world", lambda: 2)
    with pytest.raises(
        ValueError,
        match="^The engine of several processes must be auto, generate or vllm, got continuous, which is for one; "
        "set runtime.engine\\.$",
    ):
        processes.check(runtime.engine, runtime.optimizer)


def test_a_process_by_itself_needs_no_other(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    processes.start()
    assert (
        processes.rank(),
        processes.world(),
        processes.share([1, 2, 3]),
        processes.gather([1, 2]),
        processes.only_first(lambda: 4),
    ) == (0, 1, [1, 2, 3], [1, 2], 4)
