"""Several processes on one run, here two on the CPU (gloo): the numbers of one, killed and gone on with by more or fewer, and errors that end all."""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt")
pytest.importorskip("accelerate", reason="the language models' packages are not installed: pip install -r requirements-lm.txt")
psutil = pytest.importorskip("psutil", reason="the language models' packages are not installed: pip install -r requirements-lm.txt")

ROOT = pathlib.Path(__file__).resolve().parent.parent
FSDP2 = ROOT / "rvlib/accelerate/fsdp2.yaml"
YAML = """
base: tiny-4.1
title: smaller still
seeds: [0]
data: {prompts: 80}
policies: {tiny: {count: 320}}
sft: {epochs: 1}
reward_models: {on-policy-75: null, on-policy-50: null, on-policy-25: null, on-policy-0: null, ground-truth: null}
reward_training: {epochs: 1}
measure: {prompts: 16, outputs: 4}
policy_gradient: {epochs: 12, max_new_tokens: 8}
evaluation: {prompts: 7, outputs: 2, per_epoch: 1}
limits: {save_every: 2, rows: 12, micro_batch: 8}
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


def command(count, what, config=FSDP2):
    """Python with the arguments `what`, by itself or as two processes of accelerate."""
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", str(count), "--main_process_port", "0"]
    return [sys.executable, *(launcher if count > 1 else []), *map(str, what)]


def recipe(environment, folder, *more):
    return ["-m", "rvlib", "run", environment / "small.yaml", "--folder", folder, *more]


def call(arguments):
    """(exit status, what was written to stderr): the test fails if it hangs."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def one(environment):
    """The folder of a run by one process."""
    status, errors = call(command(1, recipe(environment, environment / "one")))
    assert status == 0, errors
    return environment / "one"


def logs(folder):
    """Every number of every step of a run: {stage: (steps, numbers)}."""
    return {
        str(path.parent.relative_to(folder)): np.array([value for line in path.read_text().splitlines() for value in json.loads(line).values()])
        for path in sorted(folder.rglob("log.jsonl"))
    }


def assert_same(folder, expected):
    found, expected = logs(folder), logs(expected)
    assert list(found) == list(expected) and len(found) == 1 + 1 + 2  # fine-tuning, a reward model, policy gradient on two teachers
    for stage, numbers in expected.items():
        assert np.allclose(found[stage], numbers, rtol=0, atol=1e-4), stage


def test_two_processes_have_the_losses_of_one(environment, one):
    status, errors = call(command(2, recipe(environment, environment / "two")))
    assert status == 0, errors
    assert_same(environment / "two", one)
    files, expected = ({str(path.relative_to(folder)) for path in folder.rglob("*") if "tensorboard" not in str(path)} for folder in (environment / "two", one))
    assert files == expected


def test_a_run_is_killed_and_gone_on_with_by_more_processes_and_by_fewer(environment, one):
    folder = environment / "killed"
    for count, at in [(1, "sft/tiny"), (2, "policy-gradient/tiny/on-policy-100/seed-0"), (1, "policy-gradient/tiny/low-variance/seed-0")]:
        kill_at_checkpoint(command(count, recipe(environment, folder)), folder / at)
    status, errors = call(command(2, recipe(environment, folder)))
    assert status == 0, errors
    assert_same(folder, one)
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


def test_a_refusal_is_one_sentence_of_one_process(environment, one):
    status, errors = call(command(2, recipe(environment, one, "--set", "policy_gradient.kl_coef=0.1")))
    assert status != 0 and errors.count("holds a run of another recipe, which differs in policy_gradient.kl_coef") == 1


FAILS = """
import sys
from rvlib.lm import processes, run, stages

def fails(*arguments):
    if processes.rank() == 1:
        raise ValueError("The second process must not go on.")
    return loss(*arguments)

loss, stages.bradley_terry = stages.bradley_terry, fails
run.main(sys.argv[1:])
"""


def test_an_error_of_one_process_ends_both(environment):
    script = environment / "fails.py"
    script.write_text(FAILS)
    status, errors = call(command(2, [script, *recipe(environment, environment / "failed")[3:]]))
    assert status != 0 and errors.count("The second process must not go on.") == 1


def test_the_weights_are_shared_out(environment, tmp_path):
    script = tmp_path / "shares.py"
    script.write_text(SHARES)
    status, errors = call(command(2, [script, tmp_path]))
    assert status == 0, errors
    one, two = (np.load(tmp_path / f"{name}.npy") for name in ("one", "two"))
    assert np.allclose(two, one, rtol=0, atol=1e-6)


# Five rows in micro-batches of two: the first process has three of them, the second two and then nothing to do.
SHARES = """
import pathlib, sys, torch
import numpy as np
from rvlib.lm import models, processes, recipe, tiny
from rvlib.lm.sample import reply_log_probs
from rvlib.lm.train import Learner

folder, limits = pathlib.Path(sys.argv[1]), recipe.load("tiny-4.1", ["limits.micro_batch=2", "limits.gradient_checkpointing=true"]).limits

def steps(name):
    policy = models.load_policy(tiny.TINY)
    learner = Learner(policy.model, folder / name, 1e-3, limits)
    loss = lambda some: -reply_log_probs(policy.model, [[5]] * len(some), [[i + 6, i + 7] for i in some])
    losses = [learner.update(list(range(5)), loss) for _ in range(3)]
    return policy.model, learner, losses, loss

first = np.array(steps("one")[2])
processes.start()
model, learner, losses, loss = steps("two")
values = list(learner.parameters.values())
assert sum(value.to_local().numel() for value in values) < 0.51 * sum(value.numel() for value in values)
with processes.whole(model):
    assert not any(hasattr(value, "full_tensor") for value in model.parameters())
assert all(hasattr(value, "full_tensor") for value in model.parameters())
if processes.first():
    np.save(folder / "one.npy", first), np.save(folder / "two.npy", np.array(losses))

bad = lambda some: loss(some) * (float("nan") if 3 in some else 1.0)  # a row of the second process
try:
    learner.update(list(range(5)), bad)
    raise SystemExit("a loss that is not finite went on")
except FloatingPointError as error:
    assert "got nan at step 0" in str(error)
processes.stop()
"""


SRUN = """#!/bin/sh
shift  # --kill-on-bad-exit
SLURM_NODEID=1 "$@" & SLURM_NODEID=0 "$@"; status=$?; wait; exit $status
"""


def test_the_slurm_script_starts_every_node(environment, tmp_path, monkeypatch):
    tools = {"srun": SRUN, "scontrol": "#!/bin/sh\necho localhost", "accelerate": f'#!/bin/sh\nexec {sys.executable} -m accelerate.commands.accelerate_cli "$@"'}
    for name, text in tools.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name, value in {"JOB_NODELIST": "localhost", "JOB_ID": os.getpid(), "NNODES": 2, "GPUS_ON_NODE": 1}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    done = subprocess.run(["bash", FSDP2.with_name("slurm.sh"), "no-such-recipe"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and done.stderr.count("The recipe must be a YAML file or one of") == 1


def test_deepspeed_is_refused_with_what_to_use(environment, tmp_path, monkeypatch):
    from rvlib.lm import processes

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match="must share the weights by FSDP2, got a configuration of DeepSpeed; launch with rvlib/accelerate/fsdp2.yaml"):
        processes.start()


def test_eight_bit_adam_is_refused_with_what_to_set(monkeypatch):
    from rvlib.lm import processes, recipe

    limits = recipe.load("tiny-4.1", ["limits.optimizer=adam8bit", "limits.dtype=bfloat16", "limits.compute=bfloat16"]).limits
    processes.check(limits)
    monkeypatch.setattr(processes, "world", lambda: 2)
    with pytest.raises(ValueError, match="must be adam, whose 32-bit weights and moments they share, got adam8bit; set limits.optimizer to adam"):
        processes.check(limits)


def test_a_process_by_itself_needs_no_other(monkeypatch):
    from rvlib.lm import processes

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    processes.start()
    assert (processes.rank(), processes.world(), processes.share([1, 2, 3]), processes.gather([1, 2]), processes.only_first(lambda: 4)) == (0, 1, [1, 2, 3], [1, 2], 4)
