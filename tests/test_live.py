"""Policy gradient while you watch: teachers of a chosen accuracy, growing curves, buttons that work meanwhile."""

import copy
import threading
import time

import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)
pytest.importorskip(
    "transformers", reason="the language models' packages are not installed: pip install -r requirements-lm.txt"
)

from rvlib.lm.experiments import live
from rvlib.metrics import Normalizer, ranking_accuracy, reward_variance, within_prompt_correlation

QUICK = [
    "policy_gradient.epochs=0.25",
    "evaluation.prompts=4",
    "evaluation.num_generations=2",
    "evaluation.per_epoch=8",
]


@pytest.fixture(scope="module")
def world(one_thread, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RVLIB_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(
            live,
            "CHANGES",
            [*live.CHANGES, "policies.tiny.count=1000", "sft.epochs=1", "data.prompts=320", "measure.prompts=32"],
        )
        yield live.World()


def test_noise_lowers_accuracy_and_flattening_lowers_no_pair(world):
    accuracy = [world.teacher(noise).accuracy for noise in (0.0, 0.3, 0.6, 0.9)]
    assert accuracy[0] == pytest.approx(1) and all(np.diff(accuracy) < 0) and accuracy[-1] > 0.5
    flat = world.teacher(0.0, 0.5)
    assert flat.accuracy == pytest.approx(1)
    per_prompt = reward_variance(flat.measured)
    assert np.mean(per_prompt < 1e-5) == pytest.approx(0.5, abs=0.2)
    assert flat.covariance < world.teacher().covariance
    assert ranking_accuracy(flat.measured, world.truth).shape == (len(world.records),)


@pytest.mark.parametrize("noise", [0.5, 0.85])
def test_noise_leaves_the_correlation_within_prompts_that_the_chapter_says(world, noise):
    """Also where prompts differ much, so that the truth's spread within them is small in its own unit."""
    apart, ground_truth = copy.copy(world), world.run.ground_truth()
    offset = {prompt.name: float(index % 3) for index, prompt in enumerate(world.prompts)}

    def added(prompts):
        return np.array([[offset[prompt.name]] for prompt in prompts])

    apart.__dict__.pop("spread", None)
    apart.truth = world.truth + added(world.prompts[: len(world.truth)])
    apart.ground_truth = lambda prompts, replies: Normalizer.fit(apart.truth).transform(
        ground_truth(prompts, replies) + added(prompts)
    )
    correlations = []
    for seed in range(8):
        rewards = apart.teacher(noise, seed=seed).measured
        correlations.append(within_prompt_correlation(rewards, apart.truth))
    assert np.mean(correlations) == pytest.approx(np.sqrt(1 - noise**2), abs=0.05)


def test_a_reply_has_the_same_noise_every_time(world):
    teacher = world.teacher(0.9)
    replies = [["the food was good .", "the food was bad ."]]
    assert np.array_equal(teacher(world.prompts[:1], replies), teacher(world.prompts[:1], replies))
    assert not np.allclose(teacher(world.prompts[:1], replies), world.teacher(0.9, seed=1)(world.prompts[:1], replies))


def test_training_gives_points_as_it_goes(world):
    seen = []
    points = world.train(world.teacher(), lambda points: seen.append(len(points)), changes=QUICK)
    assert seen == list(range(1, len(points) + 1)) and len(points) >= 2
    assert points[0]["kl"] == pytest.approx(0, abs=1e-6) and all(
        np.isfinite(list(point.values())).all() for point in points
    )
    figure = live.figure({"a": points}, world)
    assert list(figure.data[0].y) == [point["ground_truth"] for point in points] and figure.alt


def test_a_training_can_be_stopped(world):
    stop = threading.Event()
    stop.set()
    assert len(world.train(world.teacher(), changes=QUICK, stop=stop)) == 1


def test_the_buttons_answer_while_it_trains(world):
    panel = live.panel(world)
    sliders, description, buttons, view = panel.children
    (noise, _), (train, stop, clear, value) = sliders.children, buttons.children
    before = description.value
    noise.value = 0.5
    assert description.value != before and "accuracy" in description.value
    train.click()
    assert train.disabled and not stop.disabled
    stop.click()
    panel.thread.join(60)
    for _ in range(100):
        if not train.disabled:
            break
        time.sleep(0.05)
    assert not train.disabled and stop.disabled
    assert list(panel.curves) == ["noise 0.50, 0% flat"] and len(view.data) == 1
    value.value = "kl"
    assert view.data[0].y[0] == pytest.approx(0, abs=1e-6)
    clear.click()
    assert not panel.curves and not view.data
