"""`rvlib study`: which number, measured before training, tells which reward model will teach best?

    56 reward models × 3 policies × RLOO and GRPO × 3 seeds, in the world of `words`

Policies are transformers of 1,700 parameters, fine-tuned on three writers. Each reward model teaches each of them by
policy gradient on sampled replies, as in the paper (Adam, the KL term inside the reward, rewards normalised on the
replies of the initial policy); ground truth and KL divergence are exact at each evaluation, since all replies can be
enumerated. A part of the study, one policy, algorithm and seed, is a file: the same command goes on with those that
are missing, and several processes may share them. What the study asks is registered in the book's repository,
`registrations/which-number-picks-the-teacher.md`; `rvlib.teacher_study` reads and analyses what comes out.
"""

import argparse
import datetime
import functools
import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import filelock
import numpy as np
import torch
from numpy.typing import NDArray

from rvlib import _checks, metrics
from rvlib._terminal import Defaults, sentence
from rvlib.files import data_folder, fingerprint, write_text, write_whole
from rvlib.lm import origin
from rvlib.lm.enumerable import teachers, words
from rvlib.lm.enumerable.enumeration import Enumeration
from rvlib.predictors import PREDICTORS, MeasuredReplies, chance_levels
from rvlib.results import rounded
from rvlib.tabular import autoregressive
from rvlib.tabular.estimators import advantages
from rvlib.teacher_study import part_name

Array = NDArray[np.float64]
ALGORITHMS = ("rloo", "grpo")


@dataclass(frozen=True)
class StudySettings:
    """The recipe of the study: everything that its numbers depend on besides the code."""

    prompts: int = 8
    hidden: int = 12
    fine_tuning_steps: int = 300
    measured_replies: int = 64  # to each prompt, for the predictors and the normalisation
    off_policy_pairs: int = 64  # to each prompt
    num_generations: int = 4
    learning_rate: float = 2e-3
    kl_coef: float = 0.05
    steps: int = 160
    evaluate_every: int = 10
    seeds: int = 3
    first_seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, int):
                _checks.whole(name, value, low=0 if name == "first_seed" else 1)
        if self.steps % self.evaluate_every:
            raise ValueError(f"steps must be a multiple of evaluate_every = {self.evaluate_every}, got {self.steps}.")


@dataclass(frozen=True)
class StudyWorld:
    """What all parts of a study share; arrays are (prompts, replies) where nothing else is said."""

    settings: StudySettings
    enumeration: Enumeration
    truth: Array
    policies: dict[str, Array]  # parameters (P,) by writer
    probs: dict[str, Array]  # π(y|x) of each policy
    teachers: dict[str, Array]  # rewards by name

    @classmethod
    def make(cls, settings: StudySettings) -> "StudyWorld":
        """Fine-tune the policies and make the reward models; a matter of a minute."""
        enumeration = Enumeration(len(words.WORDS), words.LENGTH, settings.prompts, hidden=settings.hidden)
        policies = _fine_tune(enumeration, settings)
        table = autoregressive.log_probs(enumeration.logits(np.array(list(policies.values()))))
        probs = dict(zip(policies, np.exp(table)))
        truth = words.ground_truth(settings.prompts)
        models = teachers.train(enumeration, teachers.trained(), probs, truth)
        return cls(settings, enumeration, truth, policies, probs, models | teachers.made_of(truth, models))


def _fine_tune(enumeration: Enumeration, settings: StudySettings) -> dict[str, Array]:
    """Parameters (P,) of a policy for each writer.

    Each step has an unbiased estimate of the cross-entropy: 512 uniformly drawn replies, weighed by the writer's
    probabilities.
    """
    target = np.array([words.writer(name, settings.prompts) for name in words.WRITERS])
    vectors = torch.tensor(enumeration.start([[7, i] for i in range(len(target))], 0.3), requires_grad=True)
    optimizer = torch.optim.Adam([vectors], lr=1e-2)
    prompt, reply = (grid.ravel() for grid in np.indices(target.shape[1:]))
    for step in range(settings.fine_tuning_steps):
        drawn = np.random.default_rng([6, step]).integers(len(reply), size=512)
        batch = np.broadcast_to(drawn, (len(target), len(drawn)))
        logprobs = enumeration.output_log_probs(vectors, prompt[batch], reply[batch])
        weights = torch.tensor(target[:, prompt[drawn], reply[drawn]]) * len(words.REPLIES)
        optimizer.zero_grad()
        (-(weights * logprobs).mean(1)).sum().backward()
        optimizer.step()
    return dict(zip(words.WRITERS, vectors.detach().numpy()))


@dataclass(frozen=True)
class MeasuredTeachers:
    """What is known of all teachers under a policy before training.

    predictors: {name: (teachers,)}; chance: what those that are accuracies are by chance. normalizers: of each
    teacher's rewards; truth: that of the ground truth.
    """

    predictors: dict[str, Array]
    chance: dict[str, Array]
    normalizers: list[metrics.Normalizer]
    truth: metrics.Normalizer


def measure(world: StudyWorld, policy: str) -> MeasuredTeachers:
    """The predictors of each teacher under a policy, before training, and what its rewards are normalised by."""
    settings, probs = world.settings, world.probs[policy]
    rng = np.random.default_rng([3, *map(ord, policy)])
    size = settings.measured_replies
    outputs = np.stack([rng.choice(len(row), size, p=row / row.sum()) for row in probs])
    pairs = rng.integers(probs.shape[1], size=(settings.prompts, settings.off_policy_pairs, 2))
    rows = np.arange(settings.prompts)

    def values_of(replies: NDArray[np.intp], table: Array) -> Array:
        return np.take_along_axis(table, replies.reshape(len(rows), -1), 1).reshape(replies.shape)

    truth = metrics.Normalizer.fit(values_of(outputs, world.truth))
    normalizers = [metrics.Normalizer.fit(values_of(outputs, rewards)) for rewards in world.teachers.values()]
    replies = [
        MeasuredReplies(
            proxy=normalizer.transform(values_of(outputs, rewards)),
            ground_truth=truth.transform(values_of(outputs, world.truth)),
            outputs=outputs,
            probs=values_of(outputs, probs),
            off_policy_proxy=values_of(pairs, rewards),
            off_policy_truth=values_of(pairs, world.truth),
        )
        for rewards, normalizer in zip(world.teachers.values(), normalizers)
    ]
    values = {name: np.array([predictor(measured) for measured in replies]) for name, predictor in PREDICTORS.items()}
    by_chance = [chance_levels(measured) for measured in replies]
    chance = {name: np.array([levels[name] for levels in by_chance]) for name in by_chance[0]}
    return MeasuredTeachers(values, chance, normalizers, truth)


def teach(world: StudyWorld, policy: str, algorithm: str, seed: int) -> dict[str, Array]:
    """Policy gradient of one policy under all teachers side by side.

    {"steps": (times,), "truth", "proxy", "kl": (teachers, times)}: exact means over prompts of the normalised ground
    truth, of the normalised reward and of the KL divergence to the initial policy, in nats.
    """
    settings, enumeration, measured = world.settings, world.enumeration, measure(world, policy)
    truth = measured.truth.transform(world.truth)
    rewards = np.stack(
        [
            normalizer.transform(table)
            for normalizer, table in zip(measured.normalizers, world.teachers.values(), strict=True)
        ]
    )
    ref_logprobs = np.log(world.probs[policy])
    vectors = torch.tensor(np.tile(world.policies[policy], (len(rewards), 1)), requires_grad=True)
    optimizer = torch.optim.Adam([vectors], lr=settings.learning_rate)
    k, rows = settings.num_generations, np.arange(len(rewards))[:, None]
    prompts = np.tile(np.repeat(np.arange(settings.prompts), k), (len(rewards), 1))
    seen: dict[str, list[Array]] = {"truth": [], "proxy": [], "kl": []}

    def evaluate() -> None:
        for name, values in _exact(enumeration, vectors.detach().numpy(), truth, rewards, ref_logprobs).items():
            seen[name].append(values)

    for step in range(settings.steps):
        if step % settings.evaluate_every == 0:
            evaluate()
        uniform = np.random.default_rng([4, seed, step]).random((prompts.shape[1], enumeration.length))
        outputs = enumeration.draw(vectors.detach(), prompts, uniform)
        logprobs = enumeration.output_log_probs(vectors, prompts, outputs)
        kl = logprobs.detach().numpy() - ref_logprobs[prompts, outputs]
        regularised = rewards[rows, prompts, outputs] - settings.kl_coef * kl
        weights = advantages(regularised.reshape(len(rewards), settings.prompts, k), algorithm).reshape(kl.shape)
        optimizer.zero_grad()
        (-(torch.from_numpy(weights) * logprobs).mean(1)).sum().backward()
        optimizer.step()
    evaluate()
    steps = np.arange(0.0, settings.steps + 1, settings.evaluate_every)
    return {"steps": steps} | {name: np.stack(values, 1) for name, values in seen.items()}


def _exact(
    enumeration: Enumeration, vectors: Array, truth: Array, rewards: Array, ref_logprobs: Array
) -> dict[str, Array]:
    """Means over prompts under each policy (B,): of the ground truth, of its own reward, and of the KL divergence."""
    values: dict[str, list[float]] = {"truth": [], "proxy": [], "kl": []}
    for vector, reward in zip(vectors, rewards):  # one by one, since together they would not fit the processor's cache
        logprobs = autoregressive.log_probs(enumeration.logits(vector[None]))[0]
        probs = np.exp(logprobs)
        for name, table in (("truth", truth), ("proxy", reward), ("kl", logprobs - ref_logprobs)):
            values[name].append(float((probs * table).sum(-1).mean()))
    return {name: np.array(numbers) for name, numbers in values.items()}


def _save(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to a file of any name: given a path, `np.savez` would add .npz to it."""
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def _world(settings: StudySettings, folder: pathlib.Path) -> StudyWorld:
    """The world of a study, made by one of its processes and read by the others and by later ones."""
    path, kinds = folder / "world.npz", ("policies", "probs", "teachers")
    with filelock.FileLock(folder / "world.lock"):
        if not path.exists():
            world = StudyWorld.make(settings)
            arrays = {f"{kind}/{name}": table for kind in kinds for name, table in getattr(world, kind).items()}
            write_whole(path, lambda partial: _save(partial, arrays))
    with np.load(path) as arrays:
        tables = {kind: {key.split("/", 1)[1]: arrays[key] for key in arrays if key.startswith(kind)} for kind in kinds}
    enumeration = Enumeration(len(words.WORDS), words.LENGTH, settings.prompts, hidden=settings.hidden)
    return StudyWorld(settings, enumeration, words.ground_truth(settings.prompts), **tables)


def run(settings: StudySettings, folder: pathlib.Path) -> list[pathlib.Path]:
    """Make the parts of the study that are missing in `folder`; returns the files of all its parts.

    A part that another process is making is left to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    world = functools.cache(lambda: _world(settings, folder))
    jobs = [
        (policy, algorithm, seed)
        for seed in range(settings.first_seed, settings.first_seed + settings.seeds)
        for algorithm in ALGORITHMS
        for policy in words.WRITERS
    ]
    for policy in words.WRITERS:
        path = folder / f"measured-{policy}.json"
        if not path.exists():
            known = measure(world(), policy)
            content = {"teachers": list(world().teachers)} | {
                "predictors": rounded(known.predictors, 5),
                "chance": rounded(known.chance, 5),
            }
            write_text(path, json.dumps(content))
    paths = [folder / f"{part_name(*job)}.json" for job in jobs]
    for job, path in zip(jobs, paths):
        lock = filelock.FileLock(path.with_suffix(".lock"), timeout=0)
        try:
            with lock:
                if not path.exists():
                    start = time.perf_counter()
                    curves = teach(world(), *job)
                    seconds = round(time.perf_counter() - start, 1)
                    write_text(path, json.dumps({"seconds": seconds} | rounded(curves, 5)))
                    print(f"{path.stem}: {seconds:.0f} s", flush=True)
        except filelock.Timeout:
            continue
    return paths


def collect(settings: StudySettings, folder: pathlib.Path, out: pathlib.Path) -> None:
    """Write one file of what is there, for `rvlib.teacher_study.load`; it names the parts that are missing."""
    parts, missing = {}, []
    for seed in range(settings.first_seed, settings.first_seed + settings.seeds):
        for policy in words.WRITERS:
            for algorithm in ALGORITHMS:
                name = part_name(policy, algorithm, seed)
                path = folder / f"{name}.json"
                if path.exists():
                    parts[name] = json.loads(path.read_text(encoding="utf-8"))
                else:
                    missing.append(name)
    measured = {
        policy: json.loads((folder / f"measured-{policy}.json").read_text(encoding="utf-8")) for policy in words.WRITERS
    }
    made = {
        "command": "rvlib study",
        "date": datetime.date.today().isoformat(),
        "git_commit": origin.git_commit(),
        "seconds": round(sum(part.pop("seconds") for part in parts.values()), 1),
        "versions": origin.versions(),
    }
    content = {"made": made, "settings": asdict(settings), "missing": missing, "measured": measured, "parts": parts}
    write_text(out, json.dumps(content, separators=(",", ":")) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `rvlib study`."""
    parser = argparse.ArgumentParser(
        prog="rvlib study", description=(__doc__ or "").split("\n")[0], formatter_class=Defaults
    )
    for name, value in asdict(StudySettings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--folder", type=pathlib.Path, help="of the parts (default: study in the data folder)")
    parser.add_argument("--out", type=pathlib.Path, help="for the numbers (default: teaching.json beside the parts)")
    options = parser.parse_args(arguments)
    try:
        settings = StudySettings(**{name: getattr(options, name) for name in asdict(StudySettings())})
        folder, out = _run_and_collect(settings, options)
    except (OSError, ValueError) as error:
        sys.exit(sentence(error))
    print(f"Parts: {folder}\nNumbers: {out}")


def _run_and_collect(settings: StudySettings, options: argparse.Namespace) -> tuple[pathlib.Path, pathlib.Path]:
    """The folder of the parts and the file of the numbers, after what is missing has been made."""
    folder = (options.folder or data_folder() / "study") / fingerprint(asdict(settings))[:8]
    torch.set_num_threads(1)  # tensors this small are slower on many
    run(settings, folder)
    out = options.out or folder / "teaching.json"
    collect(settings, folder, out)
    return folder, out


if __name__ == "__main__":
    main()
